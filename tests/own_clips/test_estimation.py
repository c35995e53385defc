"""MediaPipe run over a clip: how it is called, by a stand-in; and what comes of it, by MediaPipe itself."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidcvae.errors import UsageError
from vidcvae.own_clips import estimation, footage
from vidcvae.workflow import own_clip

from .. import video_clips as clips

SOMEBODY = [{"x": 0.5, "y": 0.25, "z": 0.0, "visibility": 0.9}] * 33
PICTURE = Image.new("RGB", (40, 20))


def test_times_only_ever_grow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of two frames of one time stamp, or closer than a millisecond, the second is a millisecond later."""
    (tmp_path / "model.task").write_bytes(b"model")
    stand_in = clips.install_mediapipe(monkeypatch, [SOMEBODY] * 6)
    with estimation.estimator(tmp_path / "model.task", tmp_path / "clip.mp4", most=2) as estimate:
        for seconds in (0.0, 0.04, 0.04, 0.0401, 0.08, 0.0419):
            (person,) = estimate(PICTURE, seconds)
            assert person == [[0.5, 0.25, 0.0, 0.9]] * 33
        assert stand_in.closed == 0
    assert stand_in.times == [0, 40, 41, 42, 80, 81]
    assert (stand_in.most, stand_in.closed) == (2, 1)


def test_it_is_closed_whatever_happens_and_its_noise_is_not_heard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.task").write_bytes(b"model")
    stand_in = clips.install_mediapipe(monkeypatch, [SOMEBODY] * 2)
    with (
        pytest.raises(KeyboardInterrupt),
        estimation.estimator(tmp_path / "model.task", tmp_path / "clip.mp4") as estimate,
    ):
        estimate(PICTURE, 0.0)
        os.write(2, b"ours\n")
        raise KeyboardInterrupt
    os.write(2, b"and afterwards\n")
    assert stand_in.closed == 1
    assert capfd.readouterr().err == "ours\nand afterwards\n"


def test_a_system_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.task").write_bytes(b"model")
    clips.install_mediapipe(monkeypatch, [])

    def fail(options: object) -> None:
        raise OSError("libGLESv2.so.2: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(sys.modules["mediapipe.tasks.python"].vision.PoseLandmarker, "create_from_options", fail)
    with (
        pytest.raises(UsageError, match=r"cannot be started \(libGLESv2") as error,
        estimation.estimator(tmp_path / "model.task", tmp_path / "clip.mp4"),
    ):
        pass
    assert "apt-get install libegl1 libgles2" in error.value.hint


# --- MediaPipe itself ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(shared: Path) -> Path:
    pytest.importorskip("mediapipe", reason="MediaPipe is not installed: pip install -e '.[pose]'")
    path = shared / "models" / estimation.MODEL
    if not path.is_file():
        pytest.skip(f"no pose model {path}")
    return path


def test_the_real_one_refuses_what_is_no_model(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.task").write_bytes(model.read_bytes()[:5000])
    with (
        pytest.raises(UsageError, match=r"a\.task is not a pose model"),
        estimation.estimator(tmp_path / "a.task", tmp_path / "clip.mp4"),
    ):
        pass
    assert capfd.readouterr().err == ""


def test_the_real_one_finds_what_it_found_elsewhere(shared: Path, model: Path) -> None:
    """Landmarks of the same clip by the same model, from another program: HybrIK's example with its 412 frames."""
    clip = shared / "data" / "clips" / "taiji.mp4"
    frames = json.loads(clip.with_name("taiji_mediapipe.json").read_text())
    apart = []
    with estimation.estimator(model, clip, most=1) as estimate:
        for frame, (seconds, image) in zip(frames[:40], footage.open_video(clip).images, strict=False):
            (person,) = estimate(image, seconds)
            apart += np.hypot(*((np.array(person) - frame["landmarks"])[:, :2] * image.size).T).tolist()
    assert len(apart) == 40 * 33
    assert np.median(apart) < 0.1 and max(apart) < 2  # pixels, of a man of 577


def test_the_real_one_ends_without_a_word(shared: Path, model: Path, tmp_path: Path) -> None:
    """A process of its own, for what the library says when the interpreter ends."""
    clip = shared / "data" / "clips" / "squats.mp4"
    options = ("-o", tmp_path / "out", "--estimate", "--pose-model", model, "--people", 1, "--size", "64x40")
    saved = tmp_path / "found.json"
    options = (*options, "--save-keypoints", saved, "--crop", "none")
    command = map(str, [sys.executable, "-m", "vidcvae", "dataset", "import", "video", clip, *options])
    done = subprocess.run(list(command), capture_output=True, text=True, check=False, timeout=120)
    ours = ("finding the joints: ", "reading: ", "writing: ", "Next: ")
    told = [line for line in done.stderr.splitlines() if not line.startswith(ours)]
    assert (done.returncode, told) == (0, []), done.stderr
    assert "train 53 frames in 1 sequence; val 10 frames" in done.stdout
    poses = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("out/train/train_label/*.png"))]
    heights = [np.ptp(np.flatnonzero((pose.min(2) < 200).any(1))) + 1 for pose in poses]
    assert min(heights) > 15 and max(heights) > 1.3 * min(heights)  # she stands and squats in a frame of 64 rows
    assert all((a != b).any() for a, b in itertools.pairwise(poses))
    # what was kept makes the same dataset again, without an estimator
    given = ("-o", tmp_path / "again", "--keypoints", saved, "--size", "64x40", "--crop", "none")
    command = map(str, [sys.executable, "-m", "vidcvae", "dataset", "import", "video", clip, *given])
    done = subprocess.run(list(command), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    files = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png")]
    assert len(files) > 2 * 63
    assert all((tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)


def test_the_real_one_shows_where_somebody_is(shared: Path, model: Path, tmp_path: Path) -> None:
    """Of a portrait clip, by hand: she is in columns 180 to 560 of 720, and in rows 200 to 1030 of 1280."""
    clip = own_clip.Clip(shared / "data" / "clips" / "squats.mp4", estimate=True, pose_model=model, people=1)
    plan, _ = own_clip.plan(clip)
    left, top, right, bottom = plan.fit.box
    assert 60 < left < 180 and 560 < right < 700 and 80 < top < 220 and 1000 < bottom < 1200
    assert plan.fit.size[0] > 1.5 * plan.fit.size[1]
