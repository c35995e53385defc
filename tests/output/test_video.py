"""Videos out and poses in: nothing is lost on the way, and what cannot be read is named."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import GifImagePlugin, Image

from vidcvae.errors import DataError, UsageError
from vidcvae.output import pictures, video
from vidcvae.scenes import dancing
from vidcvae.storage import durable

SIZE = (8, 16)


def _frames(count: int, colours: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, colours, (count, 3, *SIZE), dtype=np.uint8)


def _with_duplicates() -> np.ndarray:
    """Twelve frames of which eight equal the one before, in three well-separated levels."""
    return np.repeat(_frames(4, 3) * 100, [1, 3, 2, 6], axis=0)


def test_quantising_rounds_to_the_nearest_and_clips() -> None:
    x = torch.tensor([-0.1, 0.0, 0.5 / 255, 1.5 / 255, 0.3, 1.0, 1.1])
    assert video.to_bytes(x).tolist() == [0, 0, 0, 2, 76, 255, 255]


def test_a_gif_keeps_equal_neighbours_as_frames_of_their_own(tmp_path: Path) -> None:
    video.save(tmp_path / "a.gif", _with_duplicates(), 25)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 12  # type: ignore[attr-defined]
        assert image.info["loop"] == 0
        durations = []
        for index in range(12):
            image.seek(index)
            durations.append(image.info["duration"])
            assert np.array_equal(np.array(image.convert("RGB")).transpose(2, 0, 1), _with_duplicates()[index])
    assert durations == [40] * 12


def test_gif_times_add_up_at_a_rate_that_centiseconds_cannot_hold(tmp_path: Path) -> None:
    video.save(tmp_path / "a.gif", _frames(30), 30)
    with Image.open(tmp_path / "a.gif") as image:
        durations = []
        for index in range(30):
            image.seek(index)
            durations.append(image.info["duration"])
    assert set(durations) == {30, 40}
    assert sum(durations) == 1000


def test_a_static_gif_keeps_its_count_and_its_time(tmp_path: Path) -> None:
    video.save(tmp_path / "a.gif", np.repeat(_frames(1), 90, axis=0), 30)
    with Image.open(tmp_path / "a.gif") as image:
        times = [image.seek(i) or image.info["duration"] for i in range(image.n_frames)]  # type: ignore[attr-defined]
    assert len(times) == 90 and sum(times) == 3000
    video.save(tmp_path / "one.gif", _frames(1), 4)
    with Image.open(tmp_path / "one.gif") as image:
        assert image.info["duration"] == 250


def test_all_frames_of_a_gif_have_one_palette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a palette a frame the same colour flickers. Pillow then makes RGB of all frames but the first."""
    strategy = GifImagePlugin.LoadingStrategy.RGB_AFTER_DIFFERENT_PALETTE_ONLY
    monkeypatch.setattr(GifImagePlugin, "LOADING_STRATEGY", strategy)
    video.save(tmp_path / "a.gif", _frames(20), 25)
    with Image.open(tmp_path / "a.gif") as image:
        palettes = {image.seek(i) or (image.mode, bytes(image.getpalette() or [])) for i in range(20)}
    assert len(palettes) == 1 and {mode for mode, _ in palettes} == {"P"}


GROWTH = """
import resource, sys
from pathlib import Path
import numpy as np
from vidcvae.output import video
from vidcvae.scenes import dancing

def peak(count):
    frame = np.random.default_rng(0).integers(0, 256, (3, 32, 40), dtype=np.uint8)
    if sys.argv[1].endswith("mp4"):
        frame = np.sort(frame)  # smooth, which is encoded faster
    video.save(Path(sys.argv[1]), (np.roll(frame, k, 1) for k in range(count)), 25)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few = peak(200)
print(peak(5000) - few)
"""


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_five_thousand_frames_take_no_more_memory_than_a_few(tmp_path: Path, name: str) -> None:
    """As arrays they are 19 MB. In a process of its own: nothing that PyAV was used in survives a fork for sure."""
    done = subprocess.run([sys.executable, "-c", GROWTH, tmp_path / name], check=True, capture_output=True, timeout=60)
    assert int(done.stdout) < 8 << 10  # KiB


def test_what_is_drawn_keeps_its_colours_beside_a_photograph(tmp_path: Path) -> None:
    """A pose of thin limbs on white paper, and a picture of thousands of colours."""
    photo = np.random.default_rng(0).integers(0, 256, (3, 64, 128), dtype=np.uint8)
    pose = np.full((3, 64, 128), 255, np.uint8)
    colours = [(255, 0, 85), (0, 255, 170), (85, 0, 255)]
    for row, colour in enumerate(colours):
        pose[:, 10 * row, 20:60] = np.array(colour)[:, None]
    video.save(tmp_path / "a.gif", [np.concatenate([photo, pose], axis=2)] * 2, 25)
    with Image.open(tmp_path / "a.gif") as image:
        drawn = np.asarray(image.convert("RGB"))[:, 128:]
    assert np.array_equal(drawn, pose.transpose(1, 2, 0))


def test_a_gif_of_real_frames_is_near_them(dance: Path, tmp_path: Path) -> None:
    frames = video.read_poses(dance / "val" / "val_img", (32, 64))[:40]
    poses = video.read_poses(dance / "val" / "val_label", (32, 64))[:40]
    video.save(tmp_path / "a.gif", np.concatenate([frames, poses], axis=-1), 25)
    again = video.read_poses(tmp_path / "a.gif", (32, 128))
    assert again.shape == (40, 3, 32, 128)
    for part, original in ((again[..., :64], frames), (again[..., 64:], poses)):
        assert 10 * np.log10(255**2 / ((part.astype(float) - original) ** 2).mean()) > 35


def test_a_folder_is_exact_and_numbered(tmp_path: Path) -> None:
    frames = _frames(11)
    video.save(tmp_path / "out", frames, 25)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i:06d}.png" for i in range(11)]
    with Image.open(tmp_path / "out" / "000010.png") as image:
        assert np.array_equal(np.array(image).transpose(2, 0, 1), frames[10])
    assert np.array_equal(video.read_poses(tmp_path / "out", SIZE), frames)


@pytest.mark.parametrize("name", ["out", "out.gif"])
def test_a_video_that_breaks_off_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyboardInterrupt), video.recording(tmp_path / name, 25) as add:
        add(_frames(1)[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_mp4_is_h264_that_every_player_shows(tmp_path: Path) -> None:
    frames = np.repeat(np.repeat(_frames(10), 8, axis=2), 8, axis=3)[:, :, :-1, :-1]  # 63 x 127
    video.save(tmp_path / "a.mp4", frames, 25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width, stream.average_rate) == (64, 128, 25)
        decoded = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
    assert len(decoded) == 10
    grey = frames[3].astype(float).transpose(1, 2, 0) @ [0.299, 0.587, 0.114]
    assert np.corrcoef(decoded[3][:63, :127].ravel(), grey.ravel())[0, 1] > 0.95


def test_limbs_keep_their_colours_beside_the_dancer(tmp_path: Path) -> None:
    """Side by side, as --side-by-side writes them: thousands of colours, and limbs of a few pixels each."""
    sequence = dancing.dance(1, 100, 0, 0).split("val")[0]
    poses, frames = np.asarray(sequence.tracks["pose"])[::5], np.asarray(sequence.frames)[::5]
    video.save(tmp_path / "x.gif", np.concatenate([poses, frames], axis=3), 25)
    with Image.open(tmp_path / "x.gif") as image:
        read = [np.asarray((image.seek(t), image.convert("RGB"))[1]).transpose(2, 0, 1) for t in range(len(poses))]
    errors = np.sqrt(((np.stack(read)[..., : poses.shape[3]] - poses.astype(float)) ** 2).mean(1))
    assert errors[poses.min(1) < 200].mean() < 10, "grey levels; it was 14"
    assert errors[poses.min(1) == 255].max() == 0, "white paper stays white"


def test_an_mp4_is_near_its_source_and_says_how_its_colours_are_meant(tmp_path: Path) -> None:
    frames = [pictures.enlarge(f, 4) for f in dancing.dance(20, 0, 0, 0).splits["train"][0].frames]
    video.save(tmp_path / "a.mp4", frames, 30000 / 1001)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(30000, 1001)
        # of AVColorSpace: 5 and 6 are BT.601; of AVColorRange: 1 is 16..235
        assert stream.codec_context.colorspace in (5, 6) and stream.codec_context.color_range == 1
        decoded = [frame.to_ndarray(format="rgb24").transpose(2, 0, 1) for frame in container.decode(stream)]
    error = np.stack(decoded).astype(float) - np.stack(frames)
    assert len(decoded) == 20 and 10 * np.log10(255**2 / (error**2).mean()) > 38


@pytest.mark.parametrize(("fps", "rate"), [(29.97, Fraction(2997, 100)), (5, Fraction(5)), (12.5, Fraction(25, 2))])
def test_an_mp4_keeps_its_frame_rate_and_its_time(tmp_path: Path, fps: float, rate: Fraction) -> None:
    video.save(tmp_path / "a.mp4", np.repeat(_frames(1), 30, axis=0), fps)  # static: none is merged or dropped
    with av.open(tmp_path / "a.mp4") as container:
        times = [frame.time for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == rate
        assert container.duration == pytest.approx(30e6 / fps, rel=1e-3)
    np.testing.assert_allclose(times, np.arange(30) / fps, atol=1e-3)


def test_targets_that_cannot_be_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "plain").write_text("x")
    for name, fps, words in [
        ("a.avi", 25, r"a\.avi is not a GIF or MP4"),
        ("a.png", 25, r"a\.png is not a GIF or MP4"),
        ("full", 25, "full is not an empty folder"),
        ("folder.gif", 25, "is a folder, but a GIF is a file"),
        ("plain", 25, "plain is a file"),
        ("a.gif", 0, "0 frames a second"),
        ("a.gif", float("nan"), "nan frames a second"),
        ("a.gif", 120, "120 frames a second, only 100"),
    ]:
        with pytest.raises(UsageError, match=words):
            video.check_target(tmp_path / name, fps)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_poses_are_ordered_by_number(tmp_path: Path) -> None:
    frames = _frames(12)
    for index, frame in enumerate(frames):
        Image.fromarray(frame.transpose(1, 2, 0)).save(tmp_path / f"{index}.png")
    seen: list[tuple[int, int]] = []
    poses = video.read_poses(tmp_path, SIZE, lambda done, total: seen.append((done, total)))
    assert np.array_equal(poses, frames)
    assert seen[-1] == (12, 12)


def _numbered(folder: Path, numbers: list[int]) -> np.ndarray:
    """A PNG of its own for each number."""
    folder.mkdir()
    frames = _frames(len(numbers))
    for number, frame in zip(numbers, frames, strict=True):
        Image.fromarray(frame.transpose(1, 2, 0)).save(folder / f"{number}.png")
    return frames


def test_missing_poses_are_refused_filled_or_skipped(tmp_path: Path) -> None:
    frames = _numbered(tmp_path / "p", [3, 4, 6, 7, 10])
    with pytest.raises(
        DataError, match=r"p lacks 3 of the poses 3 to 10: 5\.png, 8\.png to 9\.png; .*out of time"
    ) as it:
        video.read_poses(tmp_path / "p", SIZE)
    assert it.value.hint.endswith("--fill")
    calls: list[tuple[int, int]] = []
    filled = video.read_poses(tmp_path / "p", SIZE, lambda *done: calls.append(done), gaps="fill")
    assert np.array_equal(filled, frames[[0, 1, 1, 2, 3, 3, 3, 4]]) and calls[-1] == (8, 8)
    assert np.array_equal(video.read_poses(tmp_path / "p", SIZE, gaps="skip"), frames)


def test_poses_that_are_numbered_in_another_way_are_not_filled(tmp_path: Path) -> None:
    """A name of few letters must not ask for a video without end."""
    frames = _numbered(tmp_path / "far", [0, 1, 10**15])
    for gaps in ("refuse", "fill"):
        with pytest.raises(DataError, match="lacks 999,999,999,999,998 of the poses") as caught:
            video.read_poses(tmp_path / "far", SIZE, gaps=gaps)  # type: ignore[arg-type]
        assert "--fill" not in caught.value.hint
    assert np.array_equal(video.read_poses(tmp_path / "far", SIZE, gaps="skip"), frames)
    (tmp_path / "far/01.png").write_bytes((tmp_path / "far/1.png").read_bytes())
    with pytest.raises(DataError, match=r"1\.png has the same number as .*1\.png"):
        video.read_poses(tmp_path / "far", SIZE)


def test_poses_from_a_gif_whose_equal_frames_pillow_merged(tmp_path: Path) -> None:
    frames = [Image.fromarray(f.transpose(1, 2, 0)).quantize(256) for f in _with_duplicates()]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=40)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 4  # type: ignore[attr-defined]  # the trap itself
    assert video.read_poses(tmp_path / "a.gif", SIZE).shape == (12, 3, *SIZE)


def test_poses_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "named").mkdir()
    image = Image.fromarray(_frames(1)[0].transpose(1, 2, 0))
    image.save(tmp_path / "named" / "left.png")
    (tmp_path / "cut").mkdir()
    image.save(tmp_path / "cut" / "0.png")
    whole = (tmp_path / "cut" / "0.png").read_bytes()
    (tmp_path / "cut" / "1.png").write_bytes(whole[: len(whole) // 2])
    video.save(tmp_path / "whole.gif", _frames(5), 25)
    gif = (tmp_path / "whole.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(gif[: len(gif) - 200])
    (tmp_path / "text.gif").write_text("hello")
    for name, words in [
        ("nowhere", "nowhere does not exist"),
        ("empty", "empty has no images in it"),
        ("named", r"left\.png has a name that is not a number"),
        ("cut", r"cut.1\.png is damaged or cut off"),
        ("cut.gif", r"cut\.gif is damaged or cut off"),
        ("text.gif", r"text\.gif is .*, not a GIF image"),
        ("cut/0.png", "is a single image"),
    ]:
        with pytest.raises(DataError, match=words):
            video.read_poses(tmp_path / name, SIZE)


def test_a_full_disk_is_an_error_with_a_way_out_not_a_killed_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video.os, "posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match=r"cannot keep 12 MB of frames in .*No space left") as error:
        video.on_disk((2000, 3, 32, 64))
    assert "TMPDIR" in error.value.hint


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_a_disk_that_fills_up_while_a_video_is_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "_write", full)
    with pytest.raises(DataError, match=rf"cannot write .*{name}: No space left"):
        video.save(tmp_path / name, _frames(60), 25)
    assert list(tmp_path.iterdir()) == []
