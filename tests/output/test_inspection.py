"""Inspection: the real data's known figures, measures against scikit-image, and notes for what misleads."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from vidcvae.data import packed, pose_folder, room
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.output import inspection
from vidcvae.scenes import dancing


def test_the_real_data(dance: Path) -> None:
    report = inspection.inspect(dance).report
    train, val, test = (report["splits"][split] for split in ("train", "val", "test"))
    assert report["faults"] == [] and report["kind"] == "dance"
    assert val["copy_first_psnr"] == pytest.approx(16.05, abs=0.005)
    assert val["nearest_pose_psnr"] == pytest.approx(23.4, abs=0.1)
    assert (train["nearest_pose_psnr"], test["nearest_pose_psnr"]) == (None, None)
    assert (train["frames"], train["rows"]["pose"]) == (2516, 2516)
    assert [s["frames"] for s in train["stretches"]] == [629] * 4
    assert [(s["frames"], s["poses"], s["unknown_poses"]) for s in test["stretches"]] == [(1, 630, [0])] * 2
    assert train["files"]["label"] == {"count": 2516, "sizes": {"32x64": 2516}, "modes": {"RGB": 2516}}
    json.dumps(report, allow_nan=False)


def test_measures_agree_with_scikit_image(tmp_path: Path) -> None:
    data = dancing.dance(270, 12, 1, 0, (16, 32))  # one stretch is longer than a piece of the sums
    data = VideoData(data.name, "dance", 25, data.source, {**data.splits, "train": (_joined(data.split("train")),)})
    packed.write(data, tmp_path / "pack")
    for split in ("train", "val"):
        found = inspection.inspect(tmp_path / "pack").report["splits"][split]
        frames = data.split(split)[0].frames
        unit = frames / 255
        assert found["mean"] == pytest.approx(unit.mean(), rel=1e-5)
        assert found["motion"] == pytest.approx(np.abs(np.diff(unit, axis=0)).mean(), rel=1e-4)
        first = np.mean([peak_signal_noise_ratio(unit[0], f, data_range=1) for f in unit[1:]])
        previous = np.mean([peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairwise(unit)])
        assert found["copy_first_psnr"] == pytest.approx(first, abs=1e-3)
        assert found["copy_previous_psnr"] == pytest.approx(previous, abs=1e-3)
    assert inspection.inspect(tmp_path / "pack").report["splits"]["test"]["motion"] is None


def test_the_nearest_pose_is_that_of_a_slow_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dancing.dance(60, 12, 1, 0, (16, 32))
    packed.write(data, tmp_path / "pack")
    pose_folder.write_folder(data, tmp_path / "folder")

    def blurred(poses: np.ndarray) -> np.ndarray:
        return np.stack([gaussian_filter(pose.astype(float), (0, 2, 2)).ravel() for pose in poses])

    train, val = _joined(data.split("train")), data.split("val")[0]
    known = blurred(train.tracks["pose"])
    picks = [np.square(known - pose).sum(axis=1).argmin() for pose in blurred(val.tracks["pose"][1:])]
    expected = np.mean(
        [peak_signal_noise_ratio(train.frames[k], f) for k, f in zip(picks, val.frames[1:], strict=True)]
    )
    for path in ("pack", "folder"):
        found = inspection.inspect(tmp_path / path, (16, 32))
        assert found.report["splits"]["val"]["nearest_pose_psnr"] == pytest.approx(expected, abs=1e-3)
    measures = next(part for part in inspection.summary(found.report) if not isinstance(part, str))
    assert measures.columns[-1] == "nearest pose"
    assert [row[-1] for row in measures.rows] == ["-", f"{expected:.2f}", "-"]
    # where all frames have no room at once, only this is left out
    monkeypatch.setattr(room, "available", lambda: 130 * 3 * 16 * 32)  # of 157 images, 120 at once
    report = inspection.inspect(tmp_path / "folder", (16, 32)).report
    assert report["splits"]["val"]["nearest_pose_psnr"] is None and report["splits"]["val"]["copy_first_psnr"] > 0
    assert any(note.startswith("the nearest poses were not searched: ") for note in report["notes"])


def _joined(sequences: tuple[Sequence, ...]) -> Sequence:
    frames = np.concatenate([s.frames for s in sequences])
    return Sequence("0", frames, {"pose": np.concatenate([s.tracks["pose"] for s in sequences])})


def test_a_static_video_is_seen_for_what_it_is(tmp_path: Path) -> None:
    still = Sequence("0", np.full((5, 3, 16, 32), 90, np.uint8), {"pose": np.zeros((5, 3, 16, 32), np.uint8)})
    pose_folder.write_folder(VideoData("still", "dance", 25, Path("x"), {"val": (still,)}), tmp_path / "still")
    report = inspection.inspect(tmp_path / "still", (16, 32)).report
    assert report["splits"]["val"]["copy_first_psnr"] == 100
    assert report["notes"] == ["val hardly moves: repeating the first frame scores 100.00 dB."]


def test_faults_are_listed_and_nothing_is_measured(tmp_path: Path) -> None:
    root = tmp_path / "dance"
    pose_folder.write_folder(dancing.dance(8, 4, 0, 0, (16, 32)), root)
    (root / "train/train_img/2.png").unlink()
    (root / "val/val_label/1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = inspection.inspect(root)
    assert len(found.report["faults"]) == 2 and found.rows == []
    assert "mean" not in found.report["splits"]["train"]
    assert found.report["splits"]["train"]["files"]["img"]["count"] == 7


def test_a_damaged_pack_names_its_blocks(tmp_path: Path) -> None:
    packed.write(dancing.dance(8, 4, 0, 0, (16, 32)), tmp_path / "pack")
    with (tmp_path / "pack/data-00000.bin").open("r+b") as file:
        file.seek(100)
        file.write(b"\x00\xff\x00\xff")
    (fault,) = inspection.inspect(tmp_path / "pack").report["faults"]
    assert "the frames of train sequence 0-7 do not match their checksum" in fault


def test_robot_pushing_is_known_too(shared: Path) -> None:
    report = inspection.inspect(shared / "data" / "bair-clips").report
    assert report["kind"] == "push" and report["size"] == [64, 64]
    assert {split: found["sequences"] for split, found in report["splits"].items()} == {
        "train": 10, "validate": 2, "test": 5
    }  # fmt: skip
    assert 18 < report["splits"]["test"]["copy_last_past"]["psnr"] < 20  # LAB.md: about 19


def test_the_contact_sheet_shows_frames_over_poses(tmp_path: Path) -> None:
    packed.write(dancing.dance(128, 12, 1, 0), tmp_path / "pack")
    found = inspection.inspect(tmp_path / "pack")
    assert [title for title, _ in found.rows] == ["train 0-63", "train 64-127", "val 0-11", "test 0"]
    sheet = inspection.contact_sheet(found.rows)
    row = 16 + 4 + 2 * (96 + 4)
    assert sheet.shape == (3, 4 * row, 4 + 6 * 196)
    val = packed.open_packed(tmp_path / "pack").split("val")[0]
    at = 2 * row + 20  # the val row's first frame, three times enlarged, and its pose beneath
    assert np.array_equal(sheet[:, at : at + 96 : 3, 4 : 4 + 192 : 3], val.frames[0])
    assert np.array_equal(sheet[:, at + 100 : at + 196 : 3, 4 : 4 + 192 : 3], val.tracks["pose"][0])
