"""[data]: which clips are trained, in which order, and how they are moved."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vidcvae.config import DataConfig, SvgConfig
from vidcvae.scenes import pushing
from vidcvae.workflow.datasets import open_dataset

from .conftest import PLACES, Known, Train, Trained, begins, config, dataset

LONG = {"epochs": 60, "log_every": 1000}


def clips_of(found: Trained) -> list[tuple[int, int]]:
    return [place for step in found.steps for place in begins(step.batch)]


def epochs_of(found: Trained, clips: int) -> list[list[tuple[int, int]]]:
    """The clips of each epoch of so many."""
    every = clips_of(found)
    return [every[i : i + clips] for i in range(0, len(every), clips)]


@pytest.mark.setting("data.size")
def test_frames_are_read_at_the_size_asked_for(tmp_path: Path) -> None:
    """A frame whose left half is white, made half as large by the folder's reader."""
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :32] = 255
    for side in ("img", "label"):
        (tmp_path / "val" / f"val_{side}").mkdir(parents=True)
        for n in range(2):
            Image.fromarray(image).save(tmp_path / "val" / f"val_{side}" / f"{n}.png")
    for size in ((16, 32), (8, 64)):
        asked = config(data={"size": list(size)})
        (clip,) = open_dataset(tmp_path, asked.data.size).split("val")
        assert clip.frames.shape == clip.tracks["pose"].shape == (2, 3, *size)
        assert (clip.frames[..., : size[1] // 2 - 1] == 255).all() and not clip.frames[..., size[1] // 2 + 1 :].any()


@pytest.mark.setting("data.sampling")
def test_windows_do_not_overlap_and_random_clips_begin_everywhere(train: Train) -> None:
    """Of 11 and 9 frames: windows of 4 begin at 0 and 4; any of the first 8 and 6 frames begins a clip that fits."""
    found = train(config(data={"sampling": "windows"}), dataset(11, 9), Known())
    windows = [(0, 0), (0, 4), (1, 0), (1, 4)]
    assert [sorted(epoch) for epoch in epochs_of(found, 4)] == [windows, windows]
    found = train(config(data={"sampling": "random"}, training=LONG), dataset(11, 9), Known())
    everywhere = [(0, t) for t in range(8)] + [(1, t) for t in range(6)]
    assert len(found.steps) == 60 * 4 / 2, "an epoch has as many clips as there are windows"
    times = Counter(clips_of(found))
    assert sorted(times) == everywhere
    assert all(5 <= n <= 35 for n in times.values()), "17 times each on average"
    assert all(len(set(epoch)) == 4 for epoch in epochs_of(found, 4)), "none twice in an epoch"


@pytest.mark.setting("data.shuffle")
def test_clips_come_in_file_order_or_in_another_order_each_epoch(train: Train) -> None:
    windows = [(0, 0), (0, 4), (0, 8), (1, 0), (1, 4), (1, 8)]
    data = {"sampling": "windows"}
    found = train(config(data={**data, "shuffle": False}), dataset(12, 12), Known())
    assert clips_of(found) == 2 * windows
    found = train(config(data={**data, "shuffle": True}, training={"epochs": 4}), dataset(12, 12), Known())
    epochs = epochs_of(found, 6)
    assert all(sorted(epoch) == windows for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.setting("data.partial")
@pytest.mark.parametrize(("share", "used"), [(0.5, [0, 4]), (0.34, [0]), (0.75, [0, 4, 8]), (0.01, [0])])
def test_a_part_of_the_clips_is_the_first(train: Train, share: float, used: list[int]) -> None:
    """Four windows: the share of them, rounded down, and at least one."""
    chosen = config(data={"sampling": "windows", "partial": share}, training={"batch_size": 1})
    found = train(chosen, dataset(16), Known())
    assert sorted(clips_of(found)) == sorted(2 * [(0, t) for t in used])


@pytest.mark.setting("data.fast_train", "data.fast_train_epochs", "data.fast_train_fraction")
@pytest.mark.parametrize(
    ("data", "sizes"),
    [
        ({"fast_train_epochs": 2}, [8] * 5),
        ({"fast_train": True, "fast_train_epochs": 2}, [3, 3, 8, 8, 8]),  # 0.4 x 8
        ({"fast_train": True, "fast_train_epochs": 1, "fast_train_fraction": 0.7}, [5, 8, 8, 8, 8]),
        ({"fast_train": True, "fast_train_epochs": 9, "fast_train_fraction": 0.25}, [2] * 5),
    ],
)
def test_the_first_epochs_take_fewer_clips(train: Train, data: dict[str, object], sizes: list[int]) -> None:
    """Two sequences of 16 frames have eight windows of 4."""
    chosen = config(data={"sampling": "windows", **data}, training={"epochs": 5, "batch_size": 1})
    found = train(chosen, dataset(16, 16), Known())
    windows = [(i, t) for i in (0, 1) for t in (0, 4, 8, 12)]
    every = clips_of(found)
    for size in sizes:
        epoch, every = every[:size], every[size:]
        assert sorted(epoch) == windows[:size]
    assert not every


@pytest.mark.setting("data.flip")
def test_half_of_the_clips_are_mirrored_with_their_poses_and_anchors(train: Train) -> None:
    chosen = config(data={"flip": True}, training=LONG)
    model = Known()
    model.uses_anchor = True
    found = train(chosen, dataset(12), model)
    mirrored = 0
    for step in found.steps:
        assert step.batch.condition is not None and step.batch.anchor is not None
        for frames, poses, *anchor in zip(step.batch.frames, step.batch.condition, *step.batch.anchor, strict=True):
            turned = not np.array_equal(frames[0, 2], PLACES)
            mirrored += turned
            for image in (*frames, *poses, *anchor):
                assert np.array_equal(image[2], PLACES[:, ::-1] if turned else PLACES)
    clips = 2 * len(found.steps)
    assert clips == 60 * 4 and 0.4 < mirrored / clips < 0.6
    found = train(config(), dataset(12), Known())
    assert all(np.array_equal(clip[0, 2], PLACES) for step in found.steps for clip in step.batch.frames)


@pytest.mark.setting("data.shift")
def test_clips_are_moved_by_up_to_so_many_pixels(train: Train) -> None:
    """As SciPy's ``shift`` moves them: what comes in repeats the edge, or is paper in a pose."""
    chosen = config(data={"shift": 2}, training=LONG)
    model = Known()
    model.uses_anchor = True
    found = train(chosen, dataset(12), model)
    moves = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    moved = [ndimage.shift(PLACES, by, order=0, mode="nearest") for by in moves]
    on_paper = [ndimage.shift(PLACES, by, order=0, cval=255) for by in moves]
    times: Counter[int] = Counter()
    for step in found.steps:
        assert step.batch.condition is not None and step.batch.anchor is not None
        for frames, poses, image, pose in zip(step.batch.frames, step.batch.condition, *step.batch.anchor, strict=True):
            (k,) = [k for k, other in enumerate(moved) if np.array_equal(frames[0, 2], other)]
            times[k] += 1
            assert all(np.array_equal(frame[2], moved[k]) for frame in (*frames, image))
            assert all(np.array_equal(frame[2], on_paper[k]) for frame in (*poses, pose))
    down = Counter({i - 2: sum(times[5 * i + j] for j in range(5)) for i in range(5)})
    right = Counter({j - 2: sum(times[5 * i + j] for i in range(5)) for j in range(5)})
    for side in (down, right):  # of 240 clips: an eighth, three times a quarter, an eighth
        assert all(15 < side[by] < 45 for by in (-2, 2)) and all(40 < side[by] < 80 for by in (-1, 0, 1))


@pytest.mark.setting("data.condition")
@pytest.mark.parametrize(("condition", "row"), [("source", -1), ("target", 0)])
def test_the_row_of_actions_into_frame_t_is_its_own_or_the_one_before(train: Train, condition: str, row: int) -> None:
    data = pushing.push(2, 0, 0, 9, 0)
    tracks = [np.concatenate([s.tracks["action"], s.tracks["position"]], 1) for s in data.split("train")]
    model = {"name": "svg-fp", "backbone": "dcgan64", "frame_dim": 4, "latent_dim": 2, "hidden_dim": 8}
    chosen = config(
        model=model,
        data={"size": [64, 64], "condition": condition, "shuffle": False, "sampling": "windows"},
        training={"past": 2, "batch_size": 4, "clip_length": 4, "epochs": 1},
    )
    assert isinstance(chosen.model, SvgConfig) and DataConfig().condition == "source"
    (step,) = train(chosen, data, Known()).steps
    for clip, (sequence, first) in enumerate([(0, 0), (0, 4), (1, 0), (1, 4)]):
        for t in range(1, 4):
            assert step.batch.condition is not None
            assert np.array_equal(step.batch.condition[clip, t], tracks[sequence][first + t + row])
