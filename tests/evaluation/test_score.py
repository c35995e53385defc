"""Free-run scores against a slow reference, and what is refused."""

from __future__ import annotations

import json
import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vidcvae import rng
from vidcvae.config import Config, DataConfig, with_size
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.errors import DataError, UsageError
from vidcvae.evaluation import score
from vidcvae.evaluation.free_run import RunVariant, measure, sequence_noise
from vidcvae.evaluation.score import score_split, summaries
from vidcvae.models.loading import Loaded
from vidcvae.models.pose_cvae import PoseCvae
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.course_import import from_course_names

H, W = 8, 16
CONFIG = replace(Config(), data=DataConfig(size=(H, W)))


class Average(nn.Module):
    """The next frame is the mean of the previous one and the pose, plus a tenth of z; the posterior is 5 everywhere."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))
        self.made: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self.most_alive = 0

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        return 1, height, width

    def encode_frames(self, frames: Tensor) -> Tensor:
        return frames

    def encode_condition(self, condition: Tensor, like: Tensor) -> Tensor:
        return condition

    def posterior(self, frames: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        mu = torch.full_like(frames[:, :, :1], 5)
        return mu, torch.full_like(mu, -40)

    def initial_state(self, first_frame: Tensor, first_condition: Tensor | None) -> tuple[()]:
        return ()

    def prior(self, state: tuple[()], previous: Tensor, condition: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[()]]:
        zero = torch.zeros_like(previous[:, :1])
        return (zero, zero), state

    def step(self, state: tuple[()], previous: Tensor, condition: Tensor, z: Tensor) -> tuple[Tensor, tuple[()]]:
        frame = self.share * (previous + condition) + z / 10
        self.made.add(frame)
        self.most_alive = max(self.most_alive, len(self.made))
        return frame, state


def _sequence(name: str, length: int, seed: int) -> Sequence:
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (length, 3, H, W), dtype=np.uint8)
    poses = random.integers(0, 256, (length, 3, H, W), dtype=np.uint8)
    return Sequence(name, frames, {"pose": poses})


def _data(*sequences: Sequence) -> VideoData:
    return VideoData("tiny", "dance", 25, Path("tiny"), {"val": sequences, "test": (_sequence("test/0", 1, 9),)})


def _loaded(model: nn.Module, config: Config = CONFIG) -> Loaded:
    return Loaded(model.eval(), config, CheckpointMeta(step=7), Path("x.safetensors"), "abc", None, "ema", True)


def _decibels(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(float(((a - b) ** 2).mean()))


def _reference(sequence: Sequence, eps: list[np.ndarray] | None = None) -> list[float]:
    """PSNR per frame of ``Average``'s free run, written out."""
    frames, poses = sequence.frames / 255, sequence.tracks["pose"] / 255
    previous, scores = frames[0], []
    for t in range(1, len(frames)):
        previous = 0.5 * (previous + poses[t]) + (eps[t - 1] / 10 if eps else 0)
        scores.append(_decibels(previous, frames[t]))
    return scores


def _scores(
    model: Any, sequences: tuple[Sequence, ...], config: Config, latents: tuple[str, ...], seed: int = 0
) -> dict[str, dict[str, Any]]:
    return summaries(measure(model, sequences, config, [RunVariant(z) for z in latents], seed=seed), sequences)


def test_the_free_run_is_scored_frame_by_frame() -> None:
    sequence = _sequence("val/0", 6, 0)
    scores = score_split(_loaded(Average()), _data(sequence), "val", "zero")
    frames = sequence.frames / 255
    assert scores["psnr_per_frame"] == pytest.approx(_reference(sequence), abs=1e-3)
    assert scores["psnr_mean"] == pytest.approx(np.mean(_reference(sequence)), abs=1e-3)
    assert scores["mse_mean"] == pytest.approx(np.mean([10 ** (-p / 10) for p in _reference(sequence)]), abs=1e-6)
    copy_first = np.mean([_decibels(frames[0], frames[t]) for t in range(1, 6)])
    assert scores["baseline_copy_first_psnr"] == pytest.approx(copy_first, abs=1e-3)
    copy_previous = np.mean([_decibels(frames[t - 1], frames[t]) for t in range(1, 6)])
    assert scores["baseline_copy_previous_truth_psnr"] == pytest.approx(copy_previous, abs=1e-3)
    json.dumps(scores, allow_nan=False)


def test_the_protocol_says_how() -> None:
    scores = score_split(_loaded(Average()), _data(_sequence("val/0", 6, 0)), "val", "prior", seed=3, frames=4)
    assert len(scores["psnr_per_frame"]) == 3
    expected = {
        "dataset": "tiny",
        "split": "val",
        "sequences": ("val/0",),
        "past": 1,
        "future": 3,
        "size": "8x16",
        "condition": "pose",
        "latent": "prior",
        "samples": 1,
        "seed": 3,
        "weights": "ema",
        "batch_norm": "batch",
        "checkpoint": "abc",
        "step": 7,
        "given_frames_counted": False,
        "data_range": "0..1",
        "quantised": False,
    }
    assert {key: scores["protocol"][key] for key in expected} == expected


def test_z_from_the_prior_is_the_noise_of_that_sequence_and_step() -> None:
    sequences = [_sequence("val/0", 5, 0), _sequence("val/1", 5, 1)]
    scores = score_split(_loaded(Average()), _data(*sequences), "val", "prior", seed=4)
    for index, sequence in enumerate(sequences):
        eps = [rng.normal((1, H, W), 4, "rollout", index, t).numpy() for t in range(1, 5)]
        assert scores["sequences"][index]["psnr_per_frame"] == pytest.approx(_reference(sequence, eps), abs=1e-3)


def test_latents_side_by_side_score_as_each_alone() -> None:
    sequences = (_sequence("val/0", 5, 0), _sequence("val/1", 5, 1))
    latents = ("zero", "prior", "posterior", "prior-mean")
    together = _scores(Average(), sequences, CONFIG, latents, seed=2)
    for latent in latents:
        alone = _scores(Average(), sequences, CONFIG, (latent,), seed=2)[latent]
        assert together[latent]["psnr_per_frame"] == pytest.approx(alone["psnr_per_frame"], abs=1e-4)
    assert together["zero"]["psnr_mean"] == together["prior-mean"]["psnr_mean"]
    assert len({together[latent]["psnr_mean"] for latent in ("zero", "prior", "posterior")}) == 3


def test_sequences_of_unequal_length_are_averaged_over_frames() -> None:
    sequences = [_sequence("a", 3, 0), _sequence("b", 6, 1), _sequence("c", 3, 2)]
    scores = score_split(_loaded(Average()), _data(*sequences))
    curves = [_reference(s) for s in sequences]
    assert [s["name"] for s in scores["sequences"]] == ["a", "b", "c"]
    assert scores["psnr_mean"] == pytest.approx(np.mean(np.concatenate(curves)), abs=1e-3)
    assert scores["psnr_per_frame"][0] == pytest.approx(np.mean([c[0] for c in curves]), abs=1e-3)
    assert scores["psnr_per_frame"][4] == pytest.approx(curves[1][4], abs=1e-3)
    assert scores["protocol"]["future"] == (2, 5, 2)


def test_frames_are_forgotten_once_scored() -> None:
    model = Average()
    measure(model, (_sequence("val/0", 200, 0),), CONFIG, [RunVariant("zero"), RunVariant("prior")])
    assert model.most_alive <= 4


def test_progress_counts_every_predicted_frame() -> None:
    seen: list[tuple[int, int]] = []
    sequences, ways = (_sequence("a", 4, 0), _sequence("b", 6, 1)), [RunVariant("zero"), RunVariant("prior")]
    measure(Average(), sequences, CONFIG, ways, progress=lambda *now: seen.append(now))
    assert seen == [(i, 8) for i in range(1, 9)]


def test_noise_of_a_row_does_not_depend_on_its_company() -> None:
    together, alone = sequence_noise((2, 4), 5, [0, 3]), sequence_noise((2, 4), 5, [3])
    assert torch.equal(together(7)[1], alone(7)[0])
    assert not torch.equal(together(7)[0], together(7)[1])
    assert not torch.equal(alone(7), alone(8))


@pytest.mark.golden
def test_a_golden_rollout_scored_against_itself_loses_only_the_rounding(shared: Path) -> None:
    golden = load_file(shared / "golden" / "pose_rollout.safetensors")
    frames, poses = ((golden[k][:9] * 255).round().byte().numpy() for k in ("frames_zero_z_running_stats", "poses"))
    sequence = Sequence("golden", frames, {"pose": poses})
    model = PoseCvae(Config().model)  # type: ignore[arg-type]
    model.load_state_dict(from_course_names(load_file(shared / "golden" / "pose_weights.safetensors")))
    scores = _scores(model.eval(), (sequence,), Config(), ("zero",))["zero"]
    assert min(scores["psnr_per_frame"]) > 55  # rounding to 8 bits alone costs 58.9 dB


def test_what_cannot_be_scored_is_refused_with_the_way_out() -> None:
    data = _data(_sequence("val/0", 6, 0))
    with pytest.raises(UsageError, match=r"no latent 'priro'.* Did you mean 'prior'"):
        score_split(_loaded(Average()), data, "val", "priro")
    with pytest.raises(DataError, match=r"test/0 has 1 frame with truth.*nothing is left to score"):
        score_split(_loaded(Average()), data, "test")
    with pytest.raises(DataError, match=r"tiny has no 'vall' split. Did you mean 'val'"):
        score_split(_loaded(Average()), data, "vall")
    with pytest.raises(UsageError, match="cannot score 7 frames of sequence val/0: it has 6, of which 1 is given"):
        score_split(_loaded(Average()), data, frames=7)
    with pytest.raises(UsageError, match="cannot score 1 frames"):
        score_split(_loaded(Average()), data, frames=1)
    with pytest.raises(DataError, match="frames of tiny are 8x16, but this model makes 32x64"):
        score_split(_loaded(Average(), with_size(Config())), data)


def test_weights_that_are_not_numbers_are_no_score() -> None:
    model = Average()
    model.share.data.fill_(math.nan)
    with pytest.raises(DataError, match=r"x\.safetensors make frames that are not finite numbers\."):
        score_split(_loaded(model), _data(_sequence("val/0", 4, 0)))


def test_the_temporal_difference_error_is_that_of_the_changes_from_frame_to_frame() -> None:
    """The first change is from the given frame; an error that stays the same from frame to frame is none."""
    sequence = _sequence("val/0", 6, 0)
    scores = score_split(_loaded(Average()), _data(sequence))
    frames, poses = sequence.frames / 255, sequence.tracks["pose"] / 255
    guess = [frames[0]]
    for pose in poses[1:]:
        guess.append(0.5 * (guess[-1] + pose))
    errors = [np.abs((guess[t] - guess[t - 1]) - (frames[t] - frames[t - 1])).mean() for t in range(1, 6)]
    assert scores["temporal_difference_error_mean"] == pytest.approx(np.mean(errors), abs=1e-6)
    assert np.abs(np.array(guess) - frames).mean() != pytest.approx(np.mean(errors), abs=1e-2), "a plain error differs"


class Diverged(Average):
    """Sound frames with z = 0, and a posterior that has run away."""

    def posterior(self, frames: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        mu, _ = super().posterior(frames, condition)
        return mu, torch.full_like(mu, 1e3)


@pytest.mark.parametrize(("every", "made"), [(False, "a kl of inf"), (True, "frames that are not finite numbers")])
def test_a_score_of_which_any_number_is_not_finite_is_refused(every: bool, made: str) -> None:
    """A record is JSON, which has no infinity."""
    with pytest.raises(DataError, match=rf"the weights of x\.safetensors make {made}"):
        score_split(_loaded(Diverged()), _data(_sequence("val/0", 4, 0)), "val", "zero", every_latent=every)


def test_every_number_of_a_tree_is_seen_under_the_key_nearest_to_it() -> None:
    tree = {"a": 1.0, "b": [2.0, {"c": 3.0, "d": [4.0]}], "e": 5, "f": "g", "h": None}
    assert list(score._numbers(tree)) == [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)]
    assert list(score._numbers([6.0])) == [("", 6.0)]


def test_the_best_sample_is_that_of_the_highest_mean_psnr_whatever_else_it_has() -> None:
    ways = [RunVariant("prior", k) for k in range(3)]
    tables = {way: [torch.zeros(2, len(score.COLUMNS), dtype=torch.float64) for _ in range(2)] for way in ways}
    psnrs = [([9.0, 1.0], [3.0, 3.0]), ([4.0, 8.0], [1.0, 1.0]), ([5.0, 5.0], [9.0, 0.0])]
    for way, (first, second) in zip(ways, psnrs, strict=True):
        tables[way][0][:, 0], tables[way][1][:, 0] = torch.tensor(first), torch.tensor(second)
        tables[way][0][:, 1] = -sum(first)  # a PSNR by channel that says the opposite
    picks, best = score._best_of(tables, ways)
    assert picks == [1, 2], "means 5, 6, 5 and 3, 1, 4.5"
    assert [table[:, 0].tolist() for table in best] == [[4.0, 8.0], [9.0, 0.0]]
    assert [table[:, 0].tolist() for table in score._mean_of(tables, ways[:2])] == [[6.5, 4.5], [2.0, 2.0]]


def test_summaries_have_their_own_keys() -> None:
    table = torch.arange(2.0 * len(score.COLUMNS)).reshape(2, -1)
    (found,) = summaries({RunVariant("zero"): [table]}, [_sequence("a", 3, 0)]).values()
    keys = {
        *("psnr_mean", "psnr_per_channel_mean", "ssim_mean", "mse_mean", "temporal_difference_error_mean"),
        *(f"baseline_copy_{name}_psnr" for name in ("first", "last_past", "previous_truth")),
        *(f"baseline_copy_{name}_psnr_per_channel" for name in ("first", "last_past", "previous_truth")),
        *("psnr_per_frame", "psnr_per_channel_per_frame", "ssim_per_frame", "baseline_copy_last_past_psnr_per_frame"),
    }
    assert found.keys() == keys
    long = torch.arange(100.0)[:, None].expand(-1, len(score.COLUMNS))
    (found,) = summaries({RunVariant("zero"): [long]}, [_sequence("a", 3, 0)]).values()
    assert found.keys() == keys | {"psnr_first_50", "psnr_last_50"}
    assert (found["psnr_first_50"], found["psnr_last_50"]) == (24.5, 74.5)


def test_tables_that_do_not_belong_together_are_no_score() -> None:
    """A sequence too few in one of the ways, a name too many, a column too few: never a score of what is left."""
    table, ways = torch.zeros(2, len(score.COLUMNS)), [RunVariant("prior"), RunVariant("prior", 1)]
    unequal = {ways[0]: [table], ways[1]: [table, table]}
    for wrong in (
        lambda: score._mean_of(unequal, ways),
        lambda: score._best_of(unequal, ways),
        lambda: score._summary([table, table], ["a", "b", "c"]),
        lambda: score._means(table[:, :-1]),
    ):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            wrong()
