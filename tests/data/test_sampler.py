"""Which clips an epoch has: the course's windows, every start, shares of them, and the same each time it is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidcvae.config import DataConfig, TrainingConfig
from vidcvae.data.clips import Sequence
from vidcvae.data.sampler import clip_starts, epoch_clips, epoch_order, frames_in_use
from vidcvae.errors import DataError


def videos(*lengths: int) -> list[Sequence]:
    return [Sequence(str(n), np.zeros((n, 3, 8, 8), np.uint8)) for n in lengths]


def test_windows_are_the_courses_and_never_cross_a_sequence() -> None:
    assert clip_starts(videos(10, 3, 9), 4, "windows") == [(0, 0), (0, 4), (2, 0), (2, 4)]


def test_random_has_every_start() -> None:
    assert clip_starts(videos(6, 3, 4), 4, "random") == [(0, 0), (0, 1), (0, 2), (2, 0)]


def test_the_real_stretches_give_39_windows_each() -> None:
    assert len(clip_starts(videos(629, 629, 629, 629), 16, "windows")) == 4 * 39  # 629 = 39 x 16 + 5


@pytest.mark.parametrize(("partial", "kept"), [(1.0, 100), (0.29, 29), (0.999, 99), (0.001, 1)])
def test_partial_keeps_the_first_share(partial: float, kept: int) -> None:
    starts = clip_starts(videos(400), 4, "windows", partial)
    assert starts == [(0, 4 * k) for k in range(kept)]


def test_too_short_sequences_name_the_longest_and_the_option() -> None:
    with pytest.raises(DataError, match="16 frames of a clip; the longest has 12") as error:
        clip_starts(videos(5, 12), 16, "random")
    assert "--clip-length 12" in error.value.hint


@pytest.mark.parametrize("sampling", ["windows", "random"])
def test_an_epoch_costs_the_same_in_either_sampling_and_repeats_nothing(sampling: str) -> None:
    picks = epoch_order(videos(50, 33), DataConfig(sampling=sampling), TrainingConfig(clip_length=8), epoch=3)
    assert len(picks) == 50 // 8 + 33 // 8
    assert len(set(picks)) == len(picks)
    assert set(picks) <= set(clip_starts(videos(50, 33), 8, sampling))


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    sequences, data, training = videos(200, 100), DataConfig(), TrainingConfig(clip_length=8, seed=5)
    order = epoch_order(sequences, data, training, 2)
    assert order == epoch_order(sequences, data, training, 2)
    assert order != epoch_order(sequences, data, training, 3)
    assert order != epoch_order(sequences, data, replace(training, seed=6), 2)


def test_random_reaches_every_start_over_the_epochs() -> None:
    sequences, training = videos(24), TrainingConfig(clip_length=8)
    seen = {pick for epoch in range(60) for pick in epoch_order(sequences, DataConfig(), training, epoch)}
    assert seen == set(clip_starts(sequences, 8, "random"))


def test_without_shuffle_windows_come_in_file_order() -> None:
    data = DataConfig(sampling="windows", shuffle=False)
    assert epoch_order(videos(16, 8), data, TrainingConfig(clip_length=8), 7) == [(0, 0), (0, 8), (1, 0)]


def test_without_shuffle_random_clips_are_drawn_anew_but_sorted() -> None:
    starts = clip_starts(videos(100), 8, "random")
    first, second = (epoch_clips(starts, 12, 0, epoch, shuffle=False) for epoch in (0, 1))
    assert first == sorted(first) and second == sorted(second) and first != second


def test_fast_train_takes_the_first_40_percent_in_the_first_5_epochs() -> None:
    data = DataConfig(sampling="windows", fast_train=True)
    sizes = [len(epoch_order(videos(800), data, TrainingConfig(clip_length=8), epoch)) for epoch in range(7)]
    assert sizes == [40] * 5 + [100] * 2
    assert set(epoch_order(videos(800), data, TrainingConfig(clip_length=8), 0)) == {(0, 8 * k) for k in range(40)}


def test_no_clip_is_drawn_where_its_poses_are_missing() -> None:
    frames = np.zeros((10, 3, 8, 8), np.uint8)
    sequences = [Sequence("short", frames, {"pose": frames[:6]}), Sequence("whole", frames, {"pose": frames})]
    assert clip_starts(sequences, 4, "random") == [(0, 0), (0, 1), (0, 2), *((1, s) for s in range(7))]
    assert clip_starts(sequences, 4, "windows") == [(0, 0), (1, 0), (1, 4)]
    assert frames_in_use(sequences, 4, "random", 1.0) == [6, 10]


@pytest.mark.parametrize(
    ("sampling", "partial", "frames"),
    [
        ("windows", 1.0, [10, 3, 9]),
        ("windows", 0.75, [10, 3, 4]),  # 3 of 4 windows
        ("windows", 0.5, [10, 0, 0]),  # both windows of the first: its rest belongs to no window
        ("windows", 0.25, [4, 0, 0]),
        ("random", 1.0, [10, 3, 9]),
        ("random", 0.5, [9, 0, 0]),  # 6 of 7 + 6 starts: 0 to 5, and 5 + 4 frames
        ("random", 0.54, [10, 0, 0]),
        ("random", 0.001, [4, 0, 0]),
    ],
)
def test_a_share_of_the_clips_is_a_share_of_the_frames(sampling: str, partial: float, frames: list[int]) -> None:
    assert frames_in_use(videos(10, 3, 9), 4, sampling, partial) == frames
