"""A tiny ``anchor-cvae``, really trained on videos where the anchor and the latent each know what nothing else tells.

A square in the colour of its video moves where the pose says; every third frame it is away, and so the frame before
does not always show its colour: the anchor does. The background's brightness is drawn anew for every frame: only the
true frame, and so the posterior, knows it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidcvae import config as settings
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.evaluation import drift
from vidcvae.evaluation.score import score_split
from vidcvae.models.interface import at
from vidcvae.models.loading import Loaded, load_model
from vidcvae.storage.run import RunFolder
from vidcvae.training.loop import train

SIDE = 16
COLOURS = ((230, 40, 40), (40, 230, 40))


def _video(colour: tuple[int, int, int], frames: int, seed: int) -> Sequence:
    random = np.random.default_rng(seed)
    video = np.empty((frames, 3, SIDE, SIDE), np.uint8)
    poses = np.full((frames, 3, SIDE, SIDE), 255, np.uint8)
    for t in range(frames):
        video[t] = random.choice([70, 130])
        x, y = (t * 3 + seed) % (SIDE - 5), (t * 2 + seed) % (SIDE - 5)
        if t % 3 != 1:
            video[t, :, y : y + 6, x : x + 6] = np.array(colour)[:, None, None]
            poses[t, :, y + 1 : y + 5, x + 1 : x + 5] = 0
    return Sequence(f"{colour}-{seed}", video, {"pose": poses})


@pytest.fixture(scope="module")
def data() -> VideoData:
    splits = {
        "train": tuple(_video(colour, 40, seed) for seed, colour in enumerate(COLOURS)),
        "val": tuple(_video(colour, 30, seed + 10) for seed, colour in enumerate(COLOURS)),
    }
    return VideoData("squares", "dance", 25, Path("squares"), splits)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: VideoData) -> Loaded:
    config = settings.resolve(
        {
            "model": {"name": "anchor-cvae", "channels": 16, "latent_channels": 2},
            "lr_schedule": {"type": "cosine", "final": 1e-5},
            "data": {"size": [SIDE, SIDE]},
            "loss": {"smoothing": 0.0},
            "kl": {"type": "none", "stop": 1e-5},
            "optimizer": {"lr": 3e-3},
            "training": {
                **{"epochs": 1, "steps_per_epoch": 200, "clip_length": 3, "batch_size": 16, "device": "cpu"},
                "latent_dropout": 0.5,  # else z tells the colour too
            },
            "validation": {"every": 0},
        }
    )
    run = RunFolder(tmp_path_factory.mktemp("anchor") / "run")
    run.path.mkdir(exist_ok=True)
    train(run, config, data)
    return load_model(run.checkpoints / "last.safetensors")


def test_the_latent_carries_what_only_the_truth_knows(trained: Loaded, data: VideoData) -> None:
    scores = score_split(trained, data, "val", every_latent=True)
    latents = {z: found["psnr_mean"] for z, found in scores["by_latent"].items()}
    assert latents["posterior"] > latents["prior"] + 3
    assert latents["posterior"] > scores["psnr_mean"] + 3
    assert scores["active_units"] >= 1
    assert scores["kl"] > 0.5  # one bit a frame is 0.69 nats
    assert scores["psnr_mean"] > scores["baseline_copy_first_psnr"]


def test_the_appearance_follows_the_anchor(trained: Loaded, data: VideoData) -> None:
    """Frame 0 of one video, the anchor of another: the square that comes back has the anchor's colour."""
    own, other = data.split("val")[0], data.split("val")[1]
    frames, poses = (torch.from_numpy(x)[None].float() / 255 for x in (own.frames, own.tracks["pose"]))
    strange = tuple(torch.from_numpy(x[:1].copy()).float() / 255 for x in (other.frames, other.tracks["pose"]))
    colours = {}
    for name, anchor in (("own", (frames[:, 0], poses[:, 0])), ("other", strange)):
        model, made = trained.model, []
        with torch.no_grad():
            state, frame = model.initial_state(frames[:, 0], poses[:, 0], anchor), frames[:, 0]
            for t in range(1, 12):
                code = at(model.encode_condition(poses[:, t : t + 1], frame[:, None]), 0)
                z = torch.zeros(1, *model.latent_shape(SIDE, SIDE))
                frame, state = model.step(state, at(model.encode_frames(frame[:, None]), 0), code, z)
                if t % 3 != 1:
                    made.append(frame[0][:, poses[0, t, 0] == 0].mean(1))  # inside the square
        colours[name] = torch.stack(made).mean(0)
    red_over_green = {name: (colour[0] - colour[1]).item() for name, colour in colours.items()}
    assert red_over_green["own"] > 0.2, colours
    assert red_over_green["other"] < -0.2, colours


def test_five_thousand_frames_do_not_collapse(trained: Loaded, data: VideoData) -> None:
    found = drift.long_run(trained, data, "val", frames=5000)
    assert len(found.passes) == 172
    assert found.lost < 0.5
    assert min(found.passes) > found.passes[0] - 0.5
