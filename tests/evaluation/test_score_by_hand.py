"""Whole score records, worked out by hand: every number, every key, and every word of the protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vidcvae
from vidcvae import config as settings
from vidcvae import rng
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.errors import UsageError
from vidcvae.evaluation.score import protocol_of, score_split
from vidcvae.storage.checkpoint import CheckpointMeta

from .by_hand import (
    BESIDE,
    CLIPS,
    CURVE,
    DATA,
    FIFTH,
    LENGTH,
    OWN,
    PAST,
    PREDICTED,
    RECORD,
    SUMMARY,
    SWAPPED,
    Adds,
    clip,
    config,
    curve,
    decibels,
    growing,
    loaded,
    mean_of,
    psnrs,
)


def test_every_number_of_a_record_of_robot_pushing() -> None:
    told: list[tuple[int, int]] = []
    scores = score_split(loaded(), DATA, progress=lambda *now: told.append(now))
    assert scores.keys() == RECORD | {"sequences", "posterior", "other_actions", "listening_gap_psnr"}
    for kind, key in enumerate(("psnr", "psnr_per_channel")):
        assert scores[f"{key}_per_frame"] == pytest.approx(curve(OWN, kind), abs=1e-3)
        assert scores[f"{key}_mean"] == pytest.approx(np.mean(curve(OWN, kind)), abs=1e-3)
        copies = {
            "first": ([[0.4] * 3, [0.6] * 3, [0.8] * 3], [[0.0] * 3] * 3),  # frame 0 of a is black, its 3rd 0.4
            "last_past": ([[0.2] * 3, [0.4] * 3, [0.6] * 3], [[0.0] * 3] * 3),
            "previous_truth": ([[0.2] * 3] * 3, [[0.0] * 3] * 3),
        }
        for name, errors in copies.items():
            assert scores[f"baseline_copy_{name}_{key}"] == pytest.approx(np.mean(curve(errors, kind)), abs=1e-3)
    assert scores[CURVE] == pytest.approx(curve(([[0.2] * 3, [0.4] * 3, [0.6] * 3], [[0.0] * 3] * 3)), abs=1e-3)
    assert scores["mse_mean"] == pytest.approx(np.mean(np.square(OWN)), abs=1e-7)
    assert scores["temporal_difference_error_mean"] == pytest.approx((0.13 / 3 + 0.03) / 2, abs=1e-6)
    a, b = scores["sequences"]
    assert (a["name"], b["name"]) == ("a", "b")
    assert a.keys() == b.keys() == (SUMMARY | {"name"}) - {"psnr_per_channel_per_frame", "ssim_per_frame", CURVE}
    assert a["psnr_per_frame"] == pytest.approx(psnrs(OWN[0])[0], abs=1e-3)
    assert b["psnr_per_channel_mean"] == pytest.approx(np.mean(psnrs(OWN[1])[1]), abs=1e-3)
    # z = 1 in each step of the posterior, and KL and activity are those of the constants
    assert scores["posterior"].keys() == scores["other_actions"].keys() == BESIDE
    drawn = growing(0.11, 0.12, 0.2), growing(0.13, 0.13, 0.13)
    assert scores["posterior"]["psnr_per_frame"] == pytest.approx(curve(drawn), abs=1e-3)
    assert scores["kl"] == pytest.approx(20)
    assert (scores["active_units"], scores["latent_dimensions"]) == (0, 1)
    assert scores["other_actions"]["psnr_per_frame"] == pytest.approx(curve(SWAPPED), abs=1e-3)
    gap = np.mean(curve(OWN)) - np.mean(curve(SWAPPED))
    assert gap > 10 and scores["listening_gap_psnr"] == pytest.approx(gap, abs=1e-3)
    assert scores["model"] == {"name": "svg-fp", "parameters": 9, "minutes": 2.5}
    assert (scores["data"], scores["whole"], scores["selection"]) == ("there/tiny", True, {"chosen": "unknown"})
    assert scores["config"] == settings.to_table(config())
    # own and other actions side by side, then the posterior
    assert told == [(i, 2 * PREDICTED) for i in range(1, 2 * PREDICTED + 1)]


def test_ssim_of_flat_frames_is_their_luminance_s() -> None:
    """0.5 beside 0.4: (2 * 0.5 * 0.4 + 0.01^2) / (0.5^2 + 0.4^2 + 0.01^2)."""
    data = replace(DATA, splits={"val": (clip("c", 2, 0, (0.1, 0.1, 0.1)),)})
    scores = score_split(loaded(), data, frames=3)
    assert scores["ssim_per_frame"] == pytest.approx([0.4001 / 0.4101], abs=1e-5)
    assert scores["ssim_mean"] == pytest.approx(0.4001 / 0.4101, abs=1e-5)
    assert scores["psnr_mean"] == pytest.approx(20, abs=1e-3)
    assert scores["whole"] is False and scores.keys() == RECORD | {"posterior"}, "one clip has no others' actions"


def test_shuffled_actions_are_scored_with_their_best_beside_the_own() -> None:
    """As the clips with each other's tracks, sample by sample."""
    shuffled = score_split(loaded(), DATA, "val", "prior", samples=3, shuffle_actions=True, seed=1)
    tracks = [c.tracks for c in CLIPS]
    other = tuple(replace(c, tracks=t) for c, t in zip(CLIPS, reversed(tracks), strict=True))
    swapped = score_split(loaded(), replace(DATA, splits={"val": other}), "val", "prior", samples=3, seed=1)
    assert shuffled["best"].keys() == BESIDE | {"samples"}
    assert shuffled["best"]["samples"] == swapped["best"]["samples"]
    for part, key in ((None, "psnr_per_frame"), ("best", "psnr_per_frame"), ("best", "mse_mean")):
        a, b = (s if part is None else s[part] for s in (shuffled, swapped))
        assert a[key] == pytest.approx(b[key], abs=1e-3)
    own = score_split(loaded(), DATA, "val", "prior", samples=3, seed=1)
    assert shuffled["own_actions"]["psnr_mean"] == pytest.approx(own["psnr_mean"], abs=1e-3)
    assert shuffled["listening_gap_psnr"] == pytest.approx(own["psnr_mean"] - swapped["psnr_mean"], abs=1e-3)
    assert shuffled.keys() == RECORD | {"sequences", "best", "posterior", "own_actions", "listening_gap_psnr"}
    told = {"samples": 3, "seed": 1, "latent": "prior", "actions": "of other clips"}
    assert {key: shuffled["protocol"][key] for key in told} == told
    assert "best" in score_split(loaded(), DATA, "val", "prior", samples=2)
    # each sample has the noise of its own seed, and the score is the mean over samples
    curves = []
    for sample in range(3):
        seed = rng.seed_of(1, "sample", sample) if sample else 1
        for row, errors in enumerate(((0.01, 0.02, 0.1), (0.03, 0.03, 0.03))):
            z = [rng.normal((1, 1, 1), seed, "rollout", row, t).item() / 10 for t in range(PAST, LENGTH)]
            curves.append(psnrs([[k * e + sum(z[:k]) for e in errors] for k in range(1, 4)])[0])
    assert own["psnr_per_frame"] == pytest.approx(mean_of(curves), abs=1e-2)


def test_every_latent_stands_beside_the_one_that_was_asked_for() -> None:
    scores = score_split(loaded(), DATA, every_latent=True)
    assert scores.keys() >= {"by_latent", "latents"}
    assert list(scores["by_latent"]) == ["prior-mean", "prior", "posterior"]
    assert scores["by_latent"]["prior-mean"]["psnr_mean"] == pytest.approx(scores["psnr_mean"])
    assert scores["by_latent"]["posterior"] == scores["posterior"]
    assert scores["by_latent"]["prior"].keys() == BESIDE
    told = scores["latents"]
    assert told["kl"] == pytest.approx(20)
    assert (told["dimensions"], told["shape"], told["frames"]) == (1, [1, 1, 1], 2 * (LENGTH - 1))
    assert "zero" in score_split(loaded(), DATA, "val", "prior", every_latent=True)["by_latent"]


def poses(*names: str) -> VideoData:
    """Black clips whose poses are a fifth, which is added in each step."""
    tracks = {"pose": np.full((LENGTH, 3, 8, 16), FIFTH, np.uint8)}
    frames = np.zeros((LENGTH, 3, 8, 16), np.uint8)
    return VideoData("dance", "dance", 25, Path("d"), {"val": tuple(Sequence(n, frames, tracks) for n in names)})


class AddsPose(Adds):
    def encode_condition(self, condition: Tensor | None, like: Tensor) -> Tensor:
        assert condition is not None
        return condition.mean((-2, -1))


def test_dance_has_nothing_beside_its_score() -> None:
    """And no z from the truth, although there is a posterior."""
    chosen = settings.resolve({"data": {"size": [8, 16]}})
    scores = score_split(loaded(AddsPose(), chosen, meta=CheckpointMeta()), poses("a", "b"))
    assert scores.keys() == RECORD | {"sequences", "baseline_nearest_pose_psnr", "nearest_pose"}
    assert scores["psnr_per_frame"] == pytest.approx([decibels(k / 5) for k in range(1, 5)], abs=1e-3)
    assert scores["model"] == {"name": "pose-cvae", "parameters": 9, "minutes": None}
    assert (scores["protocol"]["step"], scores["protocol"]["actions"]) == (0, "none")
    with pytest.raises(UsageError, match="is a pose-cvae that is not conditioned on actions") as caught:
        score_split(loaded(AddsPose(), chosen), poses("a", "b"), shuffle_actions=True)
    assert caught.value.hint == "Leave out --shuffle-actions."


def test_a_model_without_conditions_has_no_others_actions() -> None:
    assert score_split(loaded(chosen=config("none")), DATA).keys() == RECORD | {"sequences", "posterior"}


# --- the protocol ------------------------------------------------------------------------------------

ORDINARY = {
    "dataset": "tiny",
    "split": "validate",
    "sequences": ("a", "b"),
    "size": "64x64",
    "past": 2,
    "future": 3,
    "condition": "actions (source)",
    "actions": "own",
    "latent": "zero",
    "samples": 1,
    "seed": 0,
    "weights": "raw",
    "weights_available": "raw",
    "batch_norm": "none",
    "checkpoint": "abc",
    "step": 7,
    "version": vidcvae.__version__,
    "precision": "float32",
    "clips": "every sequence, from its frame 0",
    "given_frames_counted": False,
    "reduce": "mean",
    "best": "of each sequence the sample of the highest mean PSNR over its predicted frames",
    "data_range": "0..1",
    "quantised": False,
    "averaging": "mean of the scores of all predicted frames of all sequences",
    "psnr": "per frame, from the squared error over all its channels",
    "psnr_per_channel": "mean of the PSNRs of a frame's channels (Finn 2016)",
    "ssim": "Wang 2004: 11x11 Gaussian window, sigma 1.5, full windows only",
    "temporal_difference_error": "mean of |change of the prediction - change of the truth|, from frame to frame",
}


def test_the_ordinary_protocol_is_word_for_word_what_records_hold() -> None:
    """Records of older versions are compared with these words."""
    found = score_split(loaded(), DATA)["protocol"]
    digest = found.pop("data_digest")
    assert found == ORDINARY
    assert digest == score_split(loaded(), DATA, frames=4)["protocol"]["data_digest"], "of the whole clips"
    protocol = protocol_of(loaded(), DATA)
    assert protocol.data_digest == digest and hash(protocol), "which nothing changes once it is told"


@pytest.mark.parametrize(
    ("parts", "options", "told"),
    [
        ({}, {"frames": 4}, {"future": 2}),
        ({}, {"latent": "prior", "samples": 2, "seed": 5}, {"latent": "prior", "samples": 2, "seed": 5}),
        ({}, {"shuffle_actions": True}, {"actions": "of other clips"}),
        ({"chosen": config("none")}, {"frames": 5}, {"condition": "none", "actions": "none"}),
        ({"chosen": config(ema=0.9)}, {}, {"weights_available": "raw, ema"}),
        ({"chosen": config(ema=0.9), "weights": "ema"}, {}, {"weights": "ema", "weights_available": "raw, ema"}),
        ({"weights": "ema"}, {}, {"weights": "ema", "weights_available": "ema"}),
        ({"dtype": torch.bfloat16}, {}, {"precision": "bfloat16"}),
        ({"model": nn.Sequential(nn.BatchNorm2d(3))}, {}, {"batch_norm": "running"}),
    ],
)  # fmt: skip
def test_what_is_out_of_the_ordinary_is_told(parts: dict[str, Any], options: dict[str, Any], told: Any) -> None:
    found = protocol_of(loaded(**parts), DATA, "val", **options)
    assert {key: getattr(found, key) for key in ORDINARY} == ORDINARY | told
    assert protocol_of(replace(loaded(**parts), batch_stats=True), DATA, "val", **options).batch_norm == "batch"


def test_the_networks_run_in_the_precision_of_the_model() -> None:
    model = Adds()
    score_split(loaded(model, dtype=torch.bfloat16), DATA)
    assert model.kinds == {torch.bfloat16}
