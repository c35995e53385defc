"""A skeleton where a frame is meant, or frames where skeletons are, and a run of the other kind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidcvae.data import images, pose_folder
from vidcvae.scenes import dancing
from vidcvae.workflow import generation
from vidcvae.workflow.voice import SILENT, Voice


class Heard(Voice):
    def __init__(self) -> None:
        self.warned: list[str] = []
        self.note = self.detail = lambda text: None  # type: ignore[method-assign]
        self.progress = SILENT.progress  # type: ignore[method-assign]

    def warn(self, text: str) -> None:
        self.warned.append(text)


def said(first: Path, poses: Path, size: tuple[int, int]) -> list[str]:
    loaded: Any = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(frame_size=size)))
    voice = Heard()
    generation.read_dance(loaded, generation.Files(first, poses, fill=True), voice)
    return voice.warned


@pytest.mark.parametrize("size", [(32, 64), (64, 64), (128, 128)])
def test_drawn_dances_are_taken_in_silence_and_mixed_up_ones_are_told(tmp_path: Path, size: tuple[int, int]) -> None:
    pose_folder.write_folder(dancing.dance(6, 4, 1, 3, size), tmp_path)
    img, label = tmp_path / "train/train_img", tmp_path / "train/train_label"
    for number in range(6):
        assert said(img / f"{number}.png", label, size) == []
    (skeleton,) = said(label / "0.png", label, size)
    assert "0.png looks like a pose image: 9" in skeleton
    (video,) = said(img / "0.png", img, size)
    assert "train_img does not look like pose images: " in video and "% of it is white" in video
    assert len(said(label / "0.png", img, size)) == 2


def test_real_dances_are_taken_in_silence_and_mixed_up_ones_are_told(shared: Path) -> None:
    val, test = shared / "data/dance/val", shared / "data/dance/test"
    for number in range(0, 630, 90):
        assert said(val / f"val_img/{number}.png", test / "test_label/0", (32, 64)) == []
    (skeleton,) = said(test / "test_label/0/0.png", test / "test_label/1", (32, 64))
    assert "looks like a pose image: 9" in skeleton
    (video,) = said(val / "val_img/0.png", val / "val_img", (32, 64))
    assert "val_img does not look like pose images: 0% of it is white" in video


def test_people_before_a_white_wall_are_nothing_to_be_told_of(tmp_path: Path) -> None:
    """Three quarters of the picture are wall: neither a skeleton, nor surely none."""
    frame = np.full((3, 32, 64), 255, np.uint8)
    frame[:, 4:32, 24:42] = 90
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(images.encode_png(frame))
    assert said(tmp_path / "0.png", tmp_path, (32, 64)) == []


def test_a_blank_pose_is_a_pose(tmp_path: Path) -> None:
    pose_folder.write_folder(dancing.dance(4, 2, 0, 3, (32, 64)), tmp_path)
    poses = tmp_path / "poses"
    poses.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 32), "white").save(poses / f"{number}.png")
    assert said(tmp_path / "train/train_img/0.png", poses, (32, 64)) == []
