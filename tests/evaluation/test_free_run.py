"""The parts of free runs and of their summaries, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidcvae import config as settings
from vidcvae import rng
from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError
from vidcvae.evaluation import free_run
from vidcvae.evaluation.free_run import COLUMNS, Way
from vidcvae.evaluation.score import summaries


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
    ways = [Way("zero"), Way("prior"), Way("prior-mean"), Way("posterior"), Way("prior", 1)]
    draws = [ways[0], ways[1], ways[2], ways[4]]
    fixed, anchored = settings.resolve(), {"name": "anchor-cvae", "prior": "learned"}
    svg = {"model": {"name": "svg-lp"}, "data": {"size": [64, 64]}}
    assert list(free_run._run_together(ways, fixed)) == [(draws, 32), ([ways[3]], 4)]
    for learned in (settings.resolve({"model": anchored}), settings.resolve(svg)):
        assert free_run.learned_prior(learned)
        assert list(free_run._run_together(ways, learned)) == [([ways[0]], 32), (draws[1:], 32), ([ways[3]], 4)]
    assert not free_run.learned_prior(fixed)
    assert not free_run.learned_prior(settings.resolve({"model": anchored | {"prior": "fixed"}}))
    assert not free_run.learned_prior(settings.resolve(svg, {"model": {"name": "svg-fp"}}))
    many = [Way("prior", k) for k in range(70)]
    assert [len(group) for group, _ in free_run._run_together(many, fixed)] == [32, 32, 6]


def test_rows_of_means_have_no_noise_and_ways_of_a_sample_share_theirs() -> None:
    ways = [Way("zero"), Way("prior", 1), Way("prior", 1, others=True), Way("prior", 0)]
    noise = free_run._noise_for(ways, (2,), 3, [5, 6], "cpu")(4)
    assert noise.shape == (8, 2) and not noise[:2].any()
    drawn = [free_run.sequence_noise((2,), free_run.sample_seed(3, k), [5, 6])(4) for k in (1, 0)]
    assert torch.equal(noise[2:], torch.cat([drawn[0], drawn[0], drawn[1]]))
    assert not free_run._noise_for(ways[:1], (2,), 3, [5, 6], "cpu")(4).any()


# --- summaries ---------------------------------------------------------------------------------------


def test_scores_are_means_over_all_frames_and_curves_are_means_over_the_sequences_that_last() -> None:
    random = np.random.default_rng(0)
    tables = [random.random((length, len(COLUMNS))) for length in (120, 100, 3)]
    (found,) = summaries({Way("zero"): [torch.from_numpy(t) for t in tables]}, [clip(1)] * 3).values()
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
    found = summaries({Way("prior"): [table]}, [clip(1)])
    assert list(found) == ["prior"]
    assert ("psnr_first_50" in found["prior"]) == ("psnr_last_50" in found["prior"]) == ends
    assert "sequences" not in found["prior"]
