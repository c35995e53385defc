"""How large a dataset's frames are: what it says, what it is taken at, and what another size does to the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vidcvae
from vidcvae import config as settings
from vidcvae.data import dataset_toml, packed, pose_folder, sizes
from vidcvae.data.dataset import open_stream
from vidcvae.errors import DataError, UsageError
from vidcvae.scenes import dancing, pushing
from vidcvae.workflow.datasets import open_dataset, sized


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A dance of 72x128 that says so."""
    pose_folder.write_folder(dancing.dance(6, 3, 1, 0, (72, 128)), tmp_path / "large")
    return tmp_path / "large"


@pytest.fixture
def silent(large: Path) -> Path:
    """The same files, and a dataset.toml as it was before datasets knew their size."""
    file = large / dataset_toml.FILE
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("size")))
    return large


def test_a_written_folder_says_its_size_and_is_opened_at_it(large: Path, tmp_path: Path) -> None:
    assert "\nsize = [72, 128]\n" in (large / dataset_toml.FILE).read_text()
    facts = dataset_toml.read_facts(large)
    assert facts.size == (72, 128)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / dataset_toml.FILE).write_text(dataset_toml.to_toml(facts))
    assert dataset_toml.read_facts(tmp_path / "again") == facts
    assert vidcvae.open_dataset(large).size == vidcvae.open_dataset(large, cache=tmp_path / "cache").size == (72, 128)
    assert vidcvae.open_dataset(large, (32, 64)).size == (32, 64)
    pushing.write_folder(pushing.push(2, 1, 0, 4, 0), tmp_path / "push")
    assert "\nsize = [64, 64]\n" in (tmp_path / "push" / dataset_toml.FILE).read_text()


def test_what_says_nothing_is_taken_as_before(silent: Path, tmp_path: Path) -> None:
    assert dataset_toml.read_facts(silent).size is None
    assert open_dataset(silent).size == (32, 64)
    pushing.write_folder(pushing.push(2, 1, 0, 4, 0), tmp_path / "push")
    (tmp_path / "push" / dataset_toml.FILE).unlink()
    assert open_dataset(tmp_path / "push").size == (64, 64)


def test_a_pack_is_opened_as_it_is(large: Path, tmp_path: Path) -> None:
    packed.write(open_stream(large), tmp_path / "own")
    packed.write(open_stream(large, (40, 64)), tmp_path / "other")
    assert open_dataset(tmp_path / "own").size == (72, 128)
    assert open_dataset(tmp_path / "other").size == (40, 64)


def test_the_dataset_says_the_size_where_the_settings_do_not(large: Path) -> None:
    unset = settings.resolve({"data": {"path": str(large)}})
    assert unset.data.size == "auto"
    with pytest.raises(UsageError, match=r"data\.size is auto"):
        _ = unset.data.frame_size
    assert sized(unset).data.frame_size == (72, 128)
    assert sized(settings.resolve({"data": {"path": str(large), "size": "32x64"}})).data.frame_size == (32, 64)
    assert sized(settings.resolve({"data": {"path": "synthetic:dance"}})).data.frame_size == (32, 64)
    data = dancing.dance(6, 3, 1, 0, (16, 24))
    assert sized(unset, data).data.frame_size == (16, 24)
    with pytest.raises(UsageError, match=r"frames of 16x24, but data\.size is 32x64") as error:
        sized(settings.resolve({"data": {"size": "32x64"}}), data)
    assert "auto" in error.value.hint


def test_a_pack_whose_frames_no_model_takes_is_refused(tmp_path: Path) -> None:
    packed.write(dancing.dance(6, 3, 0, 0, (30, 44)), tmp_path / "odd")
    with pytest.raises(UsageError, match=r"data\.size 30x44 must be multiples of 8"):
        sized(settings.resolve({"data": {"path": str(tmp_path / "odd")}}))


def test_a_folder_of_frames_that_no_model_takes_does_not_say_so(tmp_path: Path) -> None:
    """A size in dataset.toml is one that can be trained at; such a folder is taken as those that say nothing."""
    pose_folder.write_folder(dancing.dance(6, 3, 0, 0, (30, 44)), tmp_path / "odd")
    assert "size" not in (tmp_path / "odd" / dataset_toml.FILE).read_text()
    assert open_dataset(tmp_path / "odd").size == (32, 64)


@pytest.mark.parametrize(
    "size", ["[72]", "[72, 128, 3]", '"72x128"', "[72, 130]", "[true, 8]", "[8.0, 16]", "[0, 8]", "[8, 4104]", "72"]
)
def test_a_size_that_is_none_is_named(large: Path, size: str) -> None:
    (large / dataset_toml.FILE).write_text(f"size = {size}\n")
    with pytest.raises(
        DataError, match=r"dataset\.toml: size must be \[height, width\], multiples of 8 from 8 to 4096"
    ):
        open_dataset(large)


def test_a_misspelt_size_is_pointed_home(large: Path) -> None:
    (large / dataset_toml.FILE).write_text("siez = [72, 128]\n")
    with pytest.raises(DataError, match=r"siez is not known.*'size'"):
        open_dataset(large)


@pytest.mark.parametrize(
    ("files", "size", "says"),
    [
        ((72, 128), (72, 128), ""),
        (None, (32, 64), ""),
        ((30, 60), (32, 64), ""),  # the multiples of 8 that are nearest
        ((64, 128), (32, 64), "The image files are 64x128, taken at 32x64: shrunk to 50%."),
        ((16, 16), (40, 40), "The image files are 16x16, taken at 40x40: enlarged to 250%, which adds no detail."),
        # 64/128 over 32/72 is 1.125
        ((72, 128), (32, 64), "taken at 32x64: 44% of the height and 50% of the width, so that everything looks "
                              "1.12 times as wide."),
        ((128, 72), (32, 64), "25% of the height and 89% of the width, so that everything looks 3.56 times as wide."),
        ((16, 32), (32, 32), "200% of the height and 100% of the width, so that everything looks 2 times as tall; "
                             "enlarging adds no detail."),
    ],
)  # fmt: skip
def test_what_a_size_does_to_the_picture(files: tuple[int, int] | None, size: tuple[int, int], says: str) -> None:
    told = sizes.resize_text(files, size)
    assert says in told and bool(says) == bool(told)


def test_the_way_out_is_the_files_own_size() -> None:
    assert sizes.resize_text((72, 128), (32, 64), way_out="--size ").endswith("--size 72x128 takes them as they are.")
    assert sizes.resize_text((70, 128), (32, 64), way_out="--size ").endswith("--size 72x128 is nearest to them.")
    said = sizes.resize_text((72, 128), (32, 64), silent=True)
    assert said.startswith("The image files are 72x128, and dataset.toml says no size: taken at 32x64, 44% of")


def test_frames_at_the_own_size_are_the_files(large: Path) -> None:
    before = dancing.dance(6, 3, 1, 0, (72, 128))
    assert np.array_equal(open_dataset(large).split("val")[0].frames, before.split("val")[0].frames)
