"""The robot-pushing layout: the real sample, made-up clips with tables, and every way a clip can be wrong."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from vidcvae.data import trajectories
from vidcvae.data.dataset import known_fps, open_dataset
from vidcvae.data.dataset_toml import read_facts, to_toml
from vidcvae.errors import DataError
from vidcvae.output.inspection import inspect

SIZE = (64, 64)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two training clips of 11 and 3 frames, the second in another group and without tables; one validation clip."""
    write_clip(tmp_path / "train" / "traj_0_to_1" / "0", 11)
    write_clip(tmp_path / "train" / "traj_2_to_30" / "7", 3, tables=False)
    write_clip(tmp_path / "validate" / "traj_0_to_1" / "12", 2)
    return tmp_path


def write_clip(folder: Path, frames: int, tables: bool = True) -> None:
    """Frame t is of the even grey 10 t; row t is t, t + 0.25, ..."""
    folder.mkdir(parents=True)
    for t in range(frames):
        Image.new("RGB", (64, 64), (10 * t,) * 3).save(folder / f"{t}.png")
    for file, columns in (("actions.csv", 4), ("endeffector_positions.csv", 3)):
        lines = [",".join(str(t + c / 4) for c in range(columns)) for t in range(frames)]
        if tables:
            (folder / file).write_text("\n".join(lines) + "\n")


def test_reads_the_real_sample(shared: Path) -> None:
    root = shared / "data" / "bair-clips"
    data = trajectories.stream(root, SIZE).collect()
    assert data.kind == "push" and data.size == SIZE
    assert {split: len(found) for split, found in data.splits.items()} == {"train": 10, "validate": 2, "test": 5}
    clip = data.split("test")[3]
    assert clip.name == "traj_0_to_99/3" and clip.frames.shape == (12, 3, 64, 64) and not clip.tracks
    for t in (2, 10):  # 10.png comes after 9.png
        expected = iio.imread(root / "test" / "traj_0_to_99" / "3" / f"{t}.png")
        np.testing.assert_array_equal(clip.frames[t].transpose(1, 2, 0), expected)


def test_reads_frames_and_tables_in_numeric_order(dataset: Path) -> None:
    done: list[tuple[int, int]] = []
    data = trajectories.stream(dataset, SIZE, progress=lambda *counts: done.append(counts)).collect()
    first, second = data.split("train")
    assert (first.name, second.name) == ("traj_0_to_1/0", "traj_2_to_30/7")
    assert first.frames[:, 0, 0, 0].tolist() == [10 * t for t in range(11)]
    assert first.tracks["action"].dtype == np.float32 and first.tracks["action"].shape == (11, 4)
    assert first.tracks["action"][10].tolist() == [10, 10.25, 10.5, 10.75]
    assert first.tracks["position"][2].tolist() == [2, 2.25, 2.5]
    assert len(second) == 3 and not second.tracks
    assert "test" not in data.splits
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_groups_and_clips_come_by_number(tmp_path: Path) -> None:
    """In an order that is not that of their names as text."""
    for name in ("traj_10_to_19/10", "traj_10_to_19/9", "traj_2_to_9/2", "traj_2_to_9/10", "traj_2_to_9/9"):
        write_clip(tmp_path / "test" / name, 1, tables=False)
    assert [clip.name for clip in trajectories.list_clips(tmp_path)] == [
        "traj_2_to_9/2", "traj_2_to_9/9", "traj_2_to_9/10", "traj_10_to_19/9", "traj_10_to_19/10"
    ]  # fmt: skip


def test_reads_another_size_and_the_facts(dataset: Path) -> None:
    (dataset / "dataset.toml").write_text('name = "pushes"\nfps = 5\n')
    data = trajectories.stream(dataset, (32, 48)).collect()
    assert data.size == (32, 48)
    assert (data.name, data.fps) == ("pushes", 5.0)


@pytest.mark.parametrize("facts", [None, 'name = "pushes"\n'])
def test_without_a_rate_in_its_file_pushing_has_10_frames_a_second(dataset: Path, facts: str | None) -> None:
    assert known_fps(dataset) is None
    if facts:
        (dataset / "dataset.toml").write_text(facts)
    assert open_dataset(dataset).fps == 10
    assert known_fps(dataset) is None
    silent = read_facts(dataset)
    (dataset / "dataset.toml").write_text(to_toml(silent))
    assert read_facts(dataset) == silent and silent.fps is None
    (dataset / "dataset.toml").write_text("fps = 12.5\n")
    assert open_dataset(dataset).fps == known_fps(dataset) == 12.5


def test_is_trajectory_folder(dataset: Path, dance: Path) -> None:
    assert trajectories.is_trajectory_folder(dataset)
    for other in (dance, dataset / "train", dataset / "nowhere", dataset / "train" / "traj_0_to_1" / "0" / "0.png"):
        assert not trajectories.is_trajectory_folder(other)


ACTIONS = "train/traj_0_to_1/0/actions.csv"
POSITIONS = "train/traj_0_to_1/0/endeffector_positions.csv"
ROWS = [f"{t},0,0,0" for t in range(11)]


@pytest.mark.reliability
@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (ACTIONS, "\n".join([*ROWS[:2], "1,2,3", *ROWS[3:]]), "line 3 has 3 columns, not 4"),
        (POSITIONS, "\n".join(ROWS), "line 1 has 4 columns, not 3"),
        (ACTIONS, "a,b,c,d\n" + "\n".join(ROWS), "line 1: 'a' is not a number"),
        (ACTIONS, "\n".join([*ROWS[:-1], "1,2,,4"]), "line 11: '' is not a number"),
        (ACTIONS, "\n".join([*ROWS[:-1], "1,2,nan,4"]), "line 11 has a number that is not finite"),
        (ACTIONS, "\n".join(["1,2,3,1e39", *ROWS[1:]]), "line 1 has a number that is not finite"),
        (ACTIONS, "\n".join(ROWS[:-1]) + "\n\n", "has 10 lines, but the clip has 11 frames"),
        (ACTIONS, "", "has 0 lines, but the clip has 11 frames"),
        (ACTIONS, b"\xff\xfe\x00\x01", "is not a text file"),
        (ACTIONS, "0,0,0,0\n" * 200_000, "is too large"),
        ("train/traj_0_to_1/0/5.png", b"\x89PNG\r\n\x1a\n", "is damaged"),
        ("train/traj_2_to_30/7/2.png", b"", "is empty, not a PNG image"),
        ("train/traj_2_to_30/7/3.png", "size", "is 32x64, but the images before it are 64x64"),
        ("dataset.toml", "fps = -1", "fps must be"),
    ],
)
def test_a_wrong_file_is_named(dataset: Path, file: str, content: str | bytes, words: str) -> None:
    path = dataset / file
    if content == "size":
        Image.new("RGB", (64, 32)).save(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        trajectories.stream(dataset, SIZE).collect()
    assert str(path) in caught.value.message and words in caught.value.message
    assert caught.value.hint


@pytest.mark.reliability
def test_cut_off_frame_is_named(dataset: Path) -> None:
    path = dataset / "validate" / "traj_0_to_1" / "12" / "1.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"12.1\.png is damaged or cut off"):
        trajectories.stream(dataset, SIZE).collect()


@pytest.mark.reliability
def test_wrong_layouts_are_named(dataset: Path, tmp_path: Path) -> None:
    clip = dataset / "train" / "traj_0_to_1" / "0"
    (clip / "4.png").unlink()
    with pytest.raises(DataError, match=r"traj_0_to_1.0 has a gap: 4\.png is missing"):
        trajectories.list_clips(dataset)
    for path in clip.glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"traj_0_to_1.0 has no frames"):
        trajectories.list_clips(dataset)
    (dataset / "train" / "traj_9_to_9").write_text("")
    (clip / "0.png").write_text("")
    with pytest.raises(DataError, match=r"traj_9_to_9 cannot be read"):
        trajectories.list_clips(dataset)
    with pytest.raises(DataError, match=r"has no folder train/traj_A_to_B"):
        trajectories.stream(tmp_path / "nowhere", SIZE).collect()


@pytest.mark.reliability
def test_a_folder_of_no_clips_is_named(tmp_path: Path) -> None:
    (tmp_path / "train" / "traj_0_to_9").mkdir(parents=True)
    for read in (open_dataset, inspect):
        with pytest.raises(DataError, match=r"train.traj_0_to_9 has no clips\."):
            read(tmp_path)
    write_clip(tmp_path / "train" / "traj_10_to_19" / "11", 2)
    assert len(open_dataset(tmp_path).split("train")) == 1


@pytest.mark.reliability
def test_two_frames_of_one_number_are_named(dataset: Path) -> None:
    clip = dataset / "train" / "traj_0_to_1" / "0"
    (clip / "01.png").write_bytes((clip / "1.png").read_bytes())
    with pytest.raises(DataError) as caught:
        trajectories.list_clips(dataset)
    assert caught.value.message == f"{clip / '1.png'} has the same number as {clip / '01.png'}."


@pytest.mark.reliability
def test_faults_lists_every_bad_clip(dataset: Path) -> None:
    assert trajectories.faults(dataset) == []
    (dataset / ACTIONS).write_text("x")
    (dataset / "validate" / "traj_0_to_1" / "12" / "0.png").write_bytes(b"GIF89a")
    messages = [error.message for error in trajectories.faults(dataset)]
    assert len(messages) == 2
    assert "actions.csv, line 1" in messages[0] and "0.png is a GIF" in messages[1]


def test_a_table_alone_may_have_any_number_of_rows(dataset: Path, tmp_path: Path) -> None:
    assert trajectories.read_track(dataset / ACTIONS, 4).shape == (11, 4)
    with pytest.raises(DataError, match="there is no file"):
        trajectories.read_track(tmp_path / "none.csv", 4)


def test_given_frames_may_have_tables_that_go_on(dataset: Path) -> None:
    long, short = dataset / "train" / "traj_0_to_1" / "0", dataset / "validate" / "traj_0_to_1" / "12"
    files = {track: long / file for track, file in trajectories.TRACK_FILES.items()}
    given = trajectories.read_given(short, files, SIZE)
    assert (len(given), given.condition_length) == (2, 11)
    assert given.tracks["action"][10].tolist() == [10, 10.25, 10.5, 10.75]
    files["position"] = short / "endeffector_positions.csv"
    with pytest.raises(DataError, match=r"actions\.csv has 11 lines and .*endeffector_positions\.csv has 2 lines"):
        trajectories.read_given(short, files, SIZE)


@pytest.mark.parametrize("part", ["train", "train/traj_0_to_1"])
def test_a_split_in_place_of_a_clip_is_answered_with_a_clip(dataset: Path, part: str) -> None:
    with pytest.raises(DataError, match=r"is not a clip: it is a folder of \d clips?\.") as caught:
        trajectories.read_given(dataset / part, {}, SIZE)
    assert caught.value.hint == f"Choose one: {dataset}/train/traj_0_to_1/0"
