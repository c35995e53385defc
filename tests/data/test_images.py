"""PNG files: whatever bytes they hold, an image or one ``DataError`` comes out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vidcvae.data import images
from vidcvae.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (3, 8, 16), np.uint8)
GOOD = images.encode_png(NOISE)


def test_what_is_encoded_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    assert np.array_equal(images.read_image(tmp_path / "a.png", (8, 16)), NOISE)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(GOOD))).transpose(2, 0, 1), NOISE)


def test_every_shortened_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    for length in range(len(GOOD)):
        path.write_bytes(GOOD[:length])
        with pytest.raises(DataError, match=r"cut\.png"):
            images.open_image(path)


def test_a_folder_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DataError, match=r"a\.png is a folder"):
        images.open_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"there is no file .*b\.png"):
        images.open_image(tmp_path / "b.png")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_bytes_are_an_image_or_refused_in_words(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    raw = bytearray(GOOD)
    for at, value in changes:
        raw[at] = value
    (tmp_path / "a.png").write_bytes(bytes(raw))
    try:
        assert images.read_image(tmp_path / "a.png", (8, 16)).shape == (3, 8, 16)
    except DataError as error:
        assert "a.png" in error.message


def test_a_photo_is_upright_as_its_camera_held_it(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise to see it upright
    picture.save(tmp_path / "photo.webp", lossless=True, exif=exif)
    upright = images.open_picture(tmp_path / "photo.webp")
    assert np.array_equal(np.asarray(upright.convert("L")), np.rot90(np.asarray(picture), -1))
