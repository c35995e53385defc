"""Scores of robot pushing: both PSNRs, samples, posterior and other clips' actions, against runs written out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidcvae import config as settings
from vidcvae.config import Config, ValidationConfig
from vidcvae.data.clips import Sequence, VideoData, condition_rows
from vidcvae.errors import DataError, UsageError
from vidcvae.evaluation.free_run import RunVariant, measure, other_clips, sample_seed, sequence_noise
from vidcvae.evaluation.score import score_split, summaries, with_past
from vidcvae.models import build_model
from vidcvae.models.interface import VideoModel
from vidcvae.models.loading import Loaded
from vidcvae.models.rollout import rollout
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.training import validation
from vidcvae.training.state import new_state

FRAMES, PAST, CLIPS = 6, 2, 3


def _config(name: str = "svg-fp", conditions: str = "actions+positions", **training: Any) -> Config:
    model = {"name": name, "backbone": "dcgan64", "frame_dim": 4, "latent_dim": 2, "hidden_dim": 8}
    sections = {"model": {**model, "conditions": conditions}, "data": {"size": [64, 64]}}
    return settings.resolve(sections, {"training": {"past": PAST, "batch_size": 2, **training}})


def _loud(config: Config) -> VideoModel:
    """Random weights, large enough for every input to show in the frames."""
    torch.manual_seed(0)
    model = build_model(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "stages" not in name:  # all but the convolutions between code and pixels
                parameter.mul_(20)
    return model


def _loaded(config: Config) -> Loaded:
    return Loaded(_loud(config), config, CheckpointMeta(step=7), Path("x.safetensors"), "abc", None, "raw", False)


def _clip(name: str, seed: int, length: int = FRAMES) -> Sequence:
    random = np.random.default_rng(seed)
    tracks = {"action": random.normal(0, 2, (length, 4)), "position": random.normal(0, 2, (length, 3))}
    frames = (random.integers(0, 200, (length, 3, 1, 1)) + random.integers(0, 55, (1, 3, 64, 64))).astype(np.uint8)
    return Sequence(name, frames, {k: v.astype(np.float32) for k, v in tracks.items()})


@pytest.fixture(scope="module")
def data() -> VideoData:
    clips = tuple(_clip(f"traj_0_to_2/{i}", i) for i in range(CLIPS))
    return VideoData(
        "tiny", "push", 10, Path("tiny"), {"validate": clips, "test": (_clip("lone", 9), _clip("b", 8, 5))}
    )


def _run(model: VideoModel, clip: Sequence, config: Config, seed: int, row: int, length: int = FRAMES) -> np.ndarray:
    """The frames of one clip's draw from the prior, alone: (T-P, 3, H, W)."""
    past = config.training.past
    rows = condition_rows(clip, 0, length, config.model.condition_kind, "source")
    condition = None if rows is None else torch.from_numpy(rows)[None]
    noise = sequence_noise((2,), seed, [row])
    given = torch.from_numpy(clip.frames[None, :past].copy())
    return torch.cat(list(rollout(model, given, condition, noise, latent="prior", length=length))).numpy()


def _both_psnrs(made: np.ndarray, clip: Sequence, past: int = PAST) -> tuple[list[float], list[float]]:
    """PSNR per frame and per channel, by loops over frames and channels."""
    per_frame, per_channel = [], []
    for t, frame in enumerate(made, start=past):
        errors = [float(((frame[c].astype(float) - clip.frames[t, c] / 255) ** 2).mean()) for c in range(3)]
        per_frame.append(-10 * math.log10(sum(errors) / 3))
        per_channel.append(sum(-10 * math.log10(error) for error in errors) / 3)
    return per_frame, per_channel


def test_both_psnrs_and_the_baseline_are_those_of_loops_over_frames_and_channels(data: VideoData) -> None:
    loaded = _loaded(_config())
    scores = score_split(loaded, data, "validate", "prior", seed=3)
    clips = data.split("validate")
    found = [_both_psnrs(_run(loaded.model, clip, loaded.config, 3, row), clip) for row, clip in enumerate(clips)]
    for part, key in enumerate(("psnr", "psnr_per_channel")):
        curves = np.array([pair[part] for pair in found])
        assert scores[f"{key}_mean"] == pytest.approx(curves.mean(), abs=1e-3)
        assert scores[f"{key}_per_frame"] == pytest.approx(curves.mean(0), abs=1e-3)
    assert scores["psnr_mean"] < scores["psnr_per_channel_mean"]  # Jensen
    copies = [_both_psnrs(np.repeat(c.frames[PAST - 1 : PAST] / 255, FRAMES - PAST, 0), c) for c in clips]
    assert scores["baseline_copy_last_past_psnr"] == pytest.approx(np.mean([c[0] for c in copies]), abs=1e-3)
    assert scores["baseline_copy_last_past_psnr_per_channel"] == pytest.approx(
        np.mean([c[1] for c in copies]), abs=1e-3
    )
    expected = np.mean([c[0] for c in copies], axis=0)
    assert scores["baseline_copy_last_past_psnr_per_frame"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["svg-fp", "svg-lp"])
def test_best_and_mean_of_samples_are_those_of_brute_force(data: VideoData, name: str) -> None:
    loaded, count = _loaded(_config(name)), 3
    scores = score_split(loaded, data, "validate", "prior", samples=count, seed=1)
    clips = data.split("validate")
    curves = np.array(
        [
            [
                _both_psnrs(_run(loaded.model, clip, loaded.config, sample_seed(1, k), row), clip)[0]
                for row, clip in enumerate(clips)
            ]
            for k in range(count)
        ]
    )  # (samples, clips, frames)
    assert curves.std(0).min() > 1e-3  # the samples differ
    best = curves.mean(2).argmax(0)
    assert scores["best"]["samples"] == best.tolist()
    expected = np.stack([curves[k, row] for row, k in enumerate(best)]).mean(0)
    assert scores["best"]["psnr_per_frame"] == pytest.approx(expected, abs=1e-3)
    assert scores["psnr_per_frame"] == pytest.approx(curves.mean((0, 1)), abs=1e-3)
    alone = score_split(loaded, data, "validate", "prior", seed=1)
    assert alone["psnr_mean"] == pytest.approx(curves[0].mean(), abs=1e-3)  # a single draw is the first sample
    assert "best" not in alone


def test_other_clips_are_a_derangement_within_each_length_and_fixed_by_the_seed() -> None:
    lengths = [5, 6, 5, 5, 6, 5]
    found = {tuple(other_clips(lengths, seed)) for seed in range(20)}
    assert len(found) > 1
    for partners in found:
        assert sorted(partners) == list(range(6))
        assert all(partners[i] != i and lengths[partners[i]] == lengths[i] for i in range(6))
    assert other_clips(lengths, 3) == other_clips(lengths, 3)
    assert other_clips([7, 7], 0) == [1, 0]
    with pytest.raises(UsageError, match="no other clip has the 6 frames of b"):
        other_clips([5, 6, 5], 0, ["a", "b", "c"])


def test_the_actions_of_other_clips_change_the_score_as_swapping_them_by_hand_does(data: VideoData) -> None:
    loaded, clips = _loaded(_config()), data.split("validate")
    scores = score_split(loaded, data, "validate", seed=2)
    partners = other_clips([FRAMES] * CLIPS, 2)
    swapped = tuple(replace(clip, tracks=clips[i].tracks) for clip, i in zip(clips, partners, strict=True))
    by_hand = summaries(measure(loaded.model, swapped, loaded.config, [RunVariant("zero")]), swapped)["zero"][
        "psnr_mean"
    ]
    assert scores["other_actions"]["psnr_mean"] == pytest.approx(by_hand, abs=1e-4)
    assert scores["listening_gap_psnr"] == pytest.approx(scores["psnr_mean"] - by_hand, abs=1e-4)
    assert abs(scores["listening_gap_psnr"]) > 1e-3
    shuffled = score_split(loaded, data, "validate", seed=2, shuffle_actions=True)
    assert shuffled["psnr_mean"] == pytest.approx(by_hand, abs=1e-4)
    assert shuffled["own_actions"]["psnr_mean"] == pytest.approx(scores["psnr_mean"], abs=1e-6)
    assert shuffled["listening_gap_psnr"] == pytest.approx(scores["listening_gap_psnr"], abs=1e-6)
    assert [s["protocol"]["actions"] for s in (scores, shuffled)] == ["own", "of other clips"]


def test_the_posterior_reconstruction_stands_beside_the_free_run(data: VideoData) -> None:
    loaded = _loaded(_config())
    scores = score_split(loaded, data, "validate", seed=4)
    alone = score_split(loaded, data, "validate", "posterior", seed=4)
    assert scores["posterior"]["psnr_per_frame"] == pytest.approx(alone["psnr_per_frame"], abs=1e-4)
    assert scores["posterior"]["psnr_mean"] != pytest.approx(scores["psnr_mean"], abs=1e-3)


def test_one_lone_clip_is_scored_without_other_actions(data: VideoData) -> None:
    loaded = _loaded(_config())
    assert "listening_gap_psnr" not in score_split(loaded, data, "test")
    with pytest.raises(UsageError, match="no other clip has the 6 frames of lone"):
        score_split(loaded, data, "test", shuffle_actions=True)
    assert "listening_gap_psnr" in score_split(loaded, data, "test", frames=5)


@pytest.mark.parametrize("past", [1, 3])
def test_another_past_is_the_model_made_for_it(data: VideoData, past: int) -> None:
    loaded = _loaded(_config())
    config = _config(past=past)
    scores = score_split(loaded, data, "validate", "prior", past=past, frames=past + 2)
    clip, model = data.split("validate")[1], _loud(config)
    expected = _both_psnrs(_run(model, clip, config, 0, 1, past + 2), clip, past)[0]
    assert scores["sequences"][1]["psnr_per_frame"] == pytest.approx(expected, abs=1e-3)
    assert (scores["protocol"]["past"], scores["protocol"]["future"]) == (past, 2)
    assert loaded.config.training.past == PAST  # the model that was loaded is as it was


def test_the_protocol_tells_split_samples_and_definitions(data: VideoData) -> None:
    protocol = score_split(_loaded(_config()), data, "val", "prior", samples=2, frames=4)["protocol"]
    expected = {"split": "validate", "samples": 2, "latent": "prior", "condition": "actions+positions (source)"}
    assert {key: protocol[key] for key in expected} == expected
    assert "highest mean PSNR" in protocol["best"] and "Finn" in protocol["psnr_per_channel"]


def test_ways_side_by_side_are_each_alone(data: VideoData) -> None:
    """Of a learned prior z = 0 is not its mean, and more ways than rows of a batch are run in turns."""
    config = _config("svg-lp")
    model, clips = _loud(config), data.split("validate")
    ways = [RunVariant("zero"), RunVariant("prior-mean"), RunVariant("posterior"), RunVariant("zero", others=True)]
    ways += [RunVariant("prior", sample) for sample in range(34)]
    together = measure(model, clips, config, ways, seed=5, frames=3)
    for way in (*ways[:4], ways[-1]):
        alone = measure(model, clips, config, [way], seed=5, frames=3)[way]
        for a, b in zip(together[way], alone, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    means = [together[way][0][0, 0].item() for way in ways[:4]]
    assert len({round(mean, 4) for mean in means}) == 4


def test_validation_runs_nothing_beside_its_latents(data: VideoData) -> None:
    counts: list[tuple[int, int]] = []
    config = replace(_config(), validation=ValidationConfig(frames=4))
    state, clips = new_state(_loud(config), config), data.split("validate")
    validation.measured(state, config, clips, range(CLIPS), lambda *now: counts.append(now))
    assert counts == [(1, 2), (2, 2)]  # both latents and all clips in one batch, step by step


def test_what_cannot_be_scored_is_refused_with_the_way_out(data: VideoData) -> None:
    free = _loaded(_config(conditions="none"))
    assert "listening_gap_psnr" not in score_split(free, data, "validate", frames=4)
    with pytest.raises(UsageError, match="svg-fp that is not conditioned on actions"):
        score_split(free, data, "validate", shuffle_actions=True)
    with pytest.raises(UsageError, match="cannot score 12 frames of sequence traj_0_to_2/0: it has 6") as error:
        score_split(free, data, "validate", frames=12)
    assert "--future from 1 to 4" in error.value.hint
    with pytest.raises(UsageError, match="3 samples are draws from the prior, but z is zero"):
        score_split(free, data, "validate", samples=3)
    bare = replace(data, splits={"test": (replace(data.split("test")[0], tracks={}),)})
    with pytest.raises(DataError, match=r"sequence lone has no actions\.csv, but the model is conditioned on actions"):
        score_split(_loaded(_config()), bare, "test")
    dance = settings.Config()
    with pytest.raises(UsageError, match="pose-cvae starts from one given frame, not from 2"):
        with_past(replace(free, config=dance), 2)
