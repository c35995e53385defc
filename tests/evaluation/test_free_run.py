"""The parts of free runs and of their summaries, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vidcvae import config as settings
from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError, UsageError
from vidcvae.evaluation import free_run
from vidcvae.evaluation.free_run import COLUMNS, RunVariant
from vidcvae.evaluation.score import summaries

from .by_hand import Adds


def clip(frames: int, poses: int | None = None) -> Sequence:
    images = np.zeros((frames, 3, 8, 8), np.uint8)
    return Sequence("s", images, {} if poses is None else {"pose": np.zeros((poses, 3, 8, 8), np.uint8)})


def test_a_run_is_as_long_as_truth_and_conditions_are_known() -> None:
    assert free_run.run_length(clip(9), 1) == 9
    assert free_run.run_length(clip(9, 7), 1) == 7 == free_run.run_length(clip(7, 9), 2)
    assert free_run.run_length(clip(9), 1, 4) == 4
    assert free_run.run_length(clip(9), 1, 40) == 9
    assert free_run.run_length(clip(3), 2) == 3
    for frames, past, says in ((1, 1, "1 frame with truth, of which 1 is given"), (2, 2, "2 frames .* 2 are given")):
        with pytest.raises(DataError, match=says):
            free_run.run_length(clip(frames, 40), past)


def test_sequences_of_a_length_are_run_side_by_side() -> None:
    assert list(free_run.batches([5, 6, 5, 5, 6, 5, 5], 2)) == [[0, 2], [3, 5], [6], [1, 4]]
    assert list(free_run.batches([5] * 40)) == [list(range(32)), list(range(32, 40))]


def test_noise_depends_on_the_seed_the_row_and_the_step_alone() -> None:
    noise = free_run.sequence_noise((2, 3), 7, [4, 0])
    want = torch.stack([rng.normal((2, 3), 7, "rollout", row, 5) for row in (4, 0)])
    assert torch.equal(noise(5), want) and not torch.equal(noise(6), want)
    assert free_run.sample_seed(7, 0) == 7
    assert len({free_run.sample_seed(seed, k) for seed in (7, 8) for k in range(5)}) == 10


def test_ways_that_can_be_run_as_draws_share_a_batch() -> None:
    """z = 0 is the mean of N(0, I), but not of a learned prior; a posterior needs all frames, and has fewer rows."""
    ways = [
        RunVariant("zero"),
        RunVariant("prior"),
        RunVariant("prior-mean"),
        RunVariant("posterior"),
        RunVariant("prior", 1),
    ]
    draws = [ways[0], ways[1], ways[2], ways[4]]
    fixed, anchored = settings.resolve(), {"name": "anchor-cvae", "prior": "learned"}
    svg = {"model": {"name": "svg-lp"}, "data": {"size": [64, 64]}}
    assert list(free_run._run_together(ways, fixed)) == [(draws, 32), ([ways[3]], 4)]
    for learned in (settings.resolve({"model": anchored}), settings.resolve(svg)):
        assert learned.model.learned_prior
        assert list(free_run._run_together(ways, learned)) == [([ways[0]], 32), (draws[1:], 32), ([ways[3]], 4)]
    assert not fixed.model.learned_prior
    assert not settings.resolve({"model": anchored | {"prior": "fixed"}}).model.learned_prior
    assert not settings.resolve(svg, {"model": {"name": "svg-fp"}}).model.learned_prior
    many = [RunVariant("prior", k) for k in range(70)]
    assert [len(group) for group, _ in free_run._run_together(many, fixed)] == [32, 32, 6]


def test_rows_of_means_have_no_noise_and_ways_of_a_sample_share_theirs() -> None:
    ways = [RunVariant("zero"), RunVariant("prior", 1), RunVariant("prior", 1, others=True), RunVariant("prior", 0)]
    noise = free_run._noise_for(ways, (2,), 3, [5, 6], "cpu")(4)
    assert noise.shape == (8, 2) and not noise[:2].any()
    drawn = [free_run.sequence_noise((2,), free_run.sample_seed(3, k), [5, 6])(4) for k in (1, 0)]
    assert torch.equal(noise[2:], torch.cat([drawn[0], drawn[0], drawn[1]]))
    assert not free_run._noise_for(ways[:1], (2,), 3, [5, 6], "cpu")(4).any()


def test_nothing_is_drawn_for_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a sample that no way draws."""
    asked: list[int] = []
    monkeypatch.setattr(free_run, "sequence_noise", lambda shape, seed, *_: asked.append(seed) or torch.zeros)
    free_run._noise_for([RunVariant("zero"), RunVariant("prior-mean", 1)], (2,), 3, [5, 6], "cpu")
    assert asked == []
    free_run._noise_for([RunVariant("zero", 1), RunVariant("prior", 2)], (2,), 3, [5, 6], "cpu")
    assert asked == [rng.seed_of(3, "sample", 2)]


# --- runs that can be worked out by hand ---------------------------------------------------------------


class Sums(Adds):
    """A frame is the one before, plus its first action, plus a tenth of z (one number; the posterior's is 1)."""

    channels, logvar = 1, -80


def pushed(number: int, length: int = 4) -> Sequence:
    """A black clip; the action of row t is (number + 1) (t + 1) / 100."""
    actions = np.zeros((length, 4), np.float32)
    actions[:, 0] = (number + 1) * np.arange(1, length + 1) / 100
    return Sequence(str(number), np.zeros((length, 3, 8, 8), np.uint8), {"action": actions})


def push_config(condition: str = "source", conditions: str = "actions") -> Config:
    model = {"name": "svg-fp", "backbone": "dcgan64", "conditions": conditions}
    sections = {"model": model, "data": {"size": [64, 64], "condition": condition}, "training": {"past": 2}}
    return settings.resolve(sections)


def brightness(table: Tensor) -> list[float]:
    """Of black clips the frames' grey, from their PSNR."""
    return [10 ** (-value / 20) for value in table[:, 0].tolist()]


def test_what_is_measured_and_in_which_order() -> None:
    """Records of any version hold these names."""
    measures = ["psnr", "psnr_per_channel", "ssim", "mse", "temporal_difference_error"]
    assert list(free_run.MEASURES) == measures
    assert list(COLUMNS) == [
        *measures,
        *("baseline_copy_first_psnr", "baseline_copy_first_psnr_per_channel"),
        *("baseline_copy_last_past_psnr", "baseline_copy_last_past_psnr_per_channel"),
        *("baseline_copy_previous_truth_psnr", "baseline_copy_previous_truth_psnr_per_channel"),
    ]
    assert [RunVariant(z).draws for z in ("zero", "prior-mean", "prior", "posterior")] == [False, False, True, True]
    assert RunVariant("prior") == RunVariant("prior", 0, False)


@pytest.mark.parametrize(("condition", "rows"), [("source", (1, 2)), ("target", (2, 3))])
def test_frames_follow_the_actions_of_their_row(condition: str, rows: tuple[int, int]) -> None:
    """Two frames are given; the third is made by row 1 or 2 of the actions, which say 2 or 3 hundredths."""
    way = RunVariant("zero")
    (table,) = free_run.measure(Sums(), [pushed(0)], push_config(condition), [way])[way]
    grey = [(rows[0] + 1) / 100, (rows[0] + rows[1] + 2) / 100]
    assert brightness(table) == pytest.approx(grey, rel=1e-4) and table.dtype == torch.float64
    assert table[:, 3].tolist() == pytest.approx([g * g for g in grey], rel=1e-4)
    assert table[:, 4].tolist() == pytest.approx([grey[0], grey[1] - grey[0]], rel=1e-4)
    assert table[:, 5:].eq(100).all(), "black is copied as black"


def test_only_some_sequences_run_as_they_would_among_the_others() -> None:
    """Their noise is of their number among all, their others are of all, and they come in the order asked for."""
    sequences, config = [pushed(number) for number in range(5)], push_config()
    ways = [RunVariant("zero"), RunVariant("prior"), RunVariant("prior", 1), RunVariant("zero", others=True)]
    told: list[tuple[int, int]] = []
    some = free_run.measure(
        Sums(), sequences, config, ways, seed=3, frames=3, only=[4, 1], progress=lambda *now: told.append(now)
    )
    every = free_run.measure(Sums(), sequences, config, ways, seed=3, frames=3)
    assert told == [(1, 1)] and [len(some[way]) for way in ways] == [2] * 4
    partners = free_run.other_clips([3] * 5, 3)
    for row, number in enumerate((4, 1)):
        for way in ways:
            torch.testing.assert_close(some[way][row], every[way][number], rtol=1e-6, atol=1e-6)
        assert brightness(some[ways[0]][row]) == pytest.approx([2 * (number + 1) / 100], rel=1e-4)
        assert brightness(some[ways[3]][row]) == pytest.approx([2 * (partners[number] + 1) / 100], rel=1e-4)
        for way, seed in ((ways[1], 3), (ways[2], rng.seed_of(3, "sample", 1))):
            z = rng.normal((1, 1, 1), seed, "rollout", number, 2).item()
            assert brightness(some[way][row]) == pytest.approx([abs(2 * (number + 1) / 100 + z / 10)], rel=1e-4)


def test_a_batch_has_32_rows_at_most_and_4_where_all_frames_are_encoded() -> None:
    sequences, config = [pushed(number, 3) for number in range(12)], push_config()

    def rows(*ways: RunVariant) -> list[int]:
        model = Sums()
        free_run.measure(model, sequences, config, ways)
        return model.rows[::2]  # a step into the second given frame, and one that is measured

    assert rows(RunVariant("zero"), RunVariant("prior"), RunVariant("prior", 1)) == [30, 6]
    assert rows(RunVariant("posterior")) == [4, 4, 4]
    assert rows(*(RunVariant("prior", k) for k in range(20))) == [20] * 12
    assert rows(*(RunVariant("prior", k) for k in range(40))) == [32] * 15, (
        "32 samples a clip, then 8 samples of 4 clips"
    )


def test_the_posterior_s_z_is_that_of_the_truth_beside_other_ways() -> None:
    ways, sequences = (
        [RunVariant("posterior"), RunVariant("zero"), RunVariant("posterior", others=True)],
        [pushed(0), pushed(1)],
    )
    found = free_run.measure(Sums(), sequences, push_config(), ways, frames=3)
    for way, grey in zip(ways, ((0.12, 0.14), (0.02, 0.04), (0.14, 0.12)), strict=True):
        assert [brightness(table)[0] for table in found[way]] == pytest.approx(grey, rel=1e-4)


def test_a_run_without_conditions_is_as_long_as_the_truth_and_its_seed_is_0() -> None:
    way = RunVariant("prior")
    (table,) = free_run.measure(Sums(), [pushed(0)], push_config(conditions="none"), [way])[way]
    z = [rng.normal((1, 1, 1), 0, "rollout", 0, t).item() / 10 for t in (2, 3)]
    assert brightness(table) == pytest.approx([abs(z[0]), abs(z[0] + z[1])], rel=1e-4)


def test_the_networks_compute_in_the_precision_asked_for() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = Sums()
        free_run.measure(model, [pushed(0)], push_config(), [RunVariant("zero")], dtype=dtype)
        assert model.kinds == {dtype}


# --- who stands beside whom ----------------------------------------------------------------------------


def test_each_clip_looks_at_the_next_in_a_circle_of_random_order() -> None:
    lengths = [5, 6, 5, 5, 6, 5, 5]
    for seed in range(4):
        found = free_run.other_clips(lengths, seed)
        for length, clips in ((5, [0, 2, 3, 5, 6]), (6, [1, 4])):
            random = torch.Generator().manual_seed(rng.seed_of(seed, "other-clips", length))
            circle = [clips[i] for i in torch.randperm(len(clips), generator=random).tolist()]
            assert [found[i] for i in circle] == [*circle[1:], circle[0]]


def test_who_has_no_other_of_its_length_is_named() -> None:
    with pytest.raises(UsageError, match="no other clip has the 6 frames of 1, so") as caught:
        free_run.other_clips([5, 6, 5], 0)
    assert "--future" in caught.value.hint
    with pytest.raises(UsageError, match="no other clip has the 4 frames of 7, so"):
        free_run.measure(Sums(), [pushed(7), pushed(0, 3)], push_config(), [RunVariant("zero", others=True)])
    with pytest.raises(DataError, match="nothing is left") as refused:
        free_run.run_length(clip(1), 1)
    assert "vidcvae export" in refused.value.hint


def test_noise_lies_where_it_is_needed() -> None:
    noise = free_run.sequence_noise((2,), 0, iter([0, 1]), "meta")
    assert noise(1).device.type == "meta" and noise(2).shape == (2, 2)
    noise = free_run._noise_for([RunVariant("zero"), RunVariant("prior")], (2,), 0, [0, 1], "meta")(1)
    assert noise.device.type == "meta" and noise.shape == (4, 2)


def test_a_single_array_is_neither_copied_nor_repeated() -> None:
    """A dance of 10,000 frames may lie on the disk, and is rolled out in several ways."""
    one, two = np.arange(6.0).reshape(2, 3), np.zeros((2, 3))
    stacked = free_run.stacked([one, None])
    assert stacked is not None and stacked.shape == (1, 2, 3) and stacked.data_ptr() == one.ctypes.data
    both = free_run.stacked([one, two])
    assert both is not None and torch.equal(both, torch.tensor(np.stack([one, two])))
    one.flags.writeable = False
    kept = free_run.stacked([one])
    assert kept is not None and kept.shape == (1, 2, 3) and kept.data_ptr() != one.ctypes.data, "which torch may write"
    assert free_run.stacked([None]) is None
    copies = free_run._repeat(stacked, 3)
    assert copies.shape == (3, 2, 3) and copies.data_ptr() == stacked.data_ptr()
    assert copies.untyped_storage().nbytes() == one.nbytes
    assert torch.equal(free_run._repeat(both, 2), torch.cat([both, both]))


# --- summaries ---------------------------------------------------------------------------------------


def test_scores_are_means_over_all_frames_and_curves_are_means_over_the_sequences_that_last() -> None:
    random = np.random.default_rng(0)
    tables = [random.random((length, len(COLUMNS))) for length in (120, 100, 3)]
    (found,) = summaries({RunVariant("zero"): [torch.from_numpy(t) for t in tables]}, [clip(1)] * 3).values()
    every = np.concatenate(tables)
    for column, name in enumerate(COLUMNS):
        key = name if name.startswith("baseline") else f"{name}_mean"
        assert found[key] == pytest.approx(every[:, column].mean())
        for sequence, table in zip(found["sequences"], tables, strict=True):
            assert sequence[key] == pytest.approx(table[:, column].mean())
    for name in ("psnr", "psnr_per_channel", "ssim", "baseline_copy_last_past_psnr"):
        column = COLUMNS.index(name)
        curve = [np.mean([t[i, column] for t in tables if i < len(t)]) for i in range(120)]
        assert found[f"{name}_per_frame"] == pytest.approx(curve)
    assert found["psnr_first_50"] == pytest.approx(np.mean(found["psnr_per_frame"][:50]))
    assert found["psnr_last_50"] == pytest.approx(np.mean(found["psnr_per_frame"][70:]))
    assert found["sequences"][1]["psnr_per_frame"] == pytest.approx(tables[1][:, 0])


@pytest.mark.parametrize(("length", "ends"), [(99, False), (100, True)])
def test_only_long_runs_are_scored_by_their_ends_and_only_several_one_by_one(length: int, ends: bool) -> None:
    table = torch.rand(length, len(COLUMNS))
    found = summaries({RunVariant("prior"): [table]}, [clip(1)])
    assert list(found) == ["prior"]
    assert ("psnr_first_50" in found["prior"]) == ("psnr_last_50" in found["prior"]) == ends
    assert "sequences" not in found["prior"]
