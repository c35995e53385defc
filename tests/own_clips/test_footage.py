"""Reading clips: time, turning, transparency, odd sizes, and what is kept of damaged ones."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import GifImagePlugin, Image

from vidcvae.errors import DataError
from vidcvae.own_clips import footage

from .. import video_clips as clips


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Forty frames of an odd size, with noise, so that each takes room in a file."""
    noise = np.random.default_rng(0).integers(-20, 20, (40, 33, 65, 3))
    return np.clip(clips.make_clip(40, (33, 65)).frames.astype(int) + noise, 0, 255).astype(np.uint8)


def read(clip: footage.Pictures) -> tuple[list[float], np.ndarray]:
    times, images = zip(*clip.images, strict=True)
    return list(times), np.stack([np.asarray(image) for image in images])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


def test_an_mp4_of_odd_size_comes_whole(frames: np.ndarray, tmp_path: Path) -> None:
    clips.write_video(tmp_path / "a.mp4", frames, fps=30)
    clip = footage.open_video(tmp_path / "a.mp4")
    times, images = read(clip)
    assert (clip.total, clip.rate) == (40, 30)
    np.testing.assert_allclose(times, np.arange(40) / 30, atol=1e-3)
    assert images.shape == frames.shape and psnr(images, frames) > 28


def test_time_stamps_of_a_variable_rate_are_kept(frames: np.ndarray, tmp_path: Path) -> None:
    wanted = np.cumsum(np.random.default_rng(1).uniform(0.01, 0.09, 40)) + 3
    clips.write_video(tmp_path / "a.mp4", frames, times=wanted)
    times, _ = read(footage.open_video(tmp_path / "a.mp4"))
    np.testing.assert_allclose(times, wanted - wanted[0], atol=2e-3)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_phone_held_otherwise_is_turned_upright(frames: np.ndarray, tmp_path: Path, turn: int) -> None:
    """What is stored lies on its side; ``turn`` is by how much it is to be turned, counterclockwise."""
    clips.write_video(tmp_path / "a.mp4", np.rot90(frames, -turn // 90, axes=(1, 2)), turn=turn)
    _, images = read(footage.open_video(tmp_path / "a.mp4"))
    assert psnr(images, frames) > 28


def test_a_mirrored_picture_is_mirrored_back(frames: np.ndarray, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv444p"
        stream.set_display_matrix([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30])
        mirrored = np.ascontiguousarray(frames[0, :32, :64][:, ::-1])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(mirrored, format="rgb24")))
        container.mux(stream.encode(None))
    _, images = read(footage.open_video(tmp_path / "a.mp4"))
    assert psnr(images[0], frames[0, :32, :64]) > 22


def test_transparency_shows_white(tmp_path: Path) -> None:
    picture = np.zeros((4, 6, 4), np.uint8)
    picture[:, :3] = (200, 0, 0, 255)
    picture[:, 3:5] = (0, 0, 0, 128)
    expected = np.full((4, 6, 3), 255, np.uint8)
    expected[:, :3] = (200, 0, 0)
    expected[:, 3:5] = 127
    Image.fromarray(picture).save(tmp_path / "0.png")
    _, images = read(footage.open_frames(tmp_path, 25))
    np.testing.assert_array_equal(images[0], expected)
    picture[:, 3:5, 3] = 0  # a GIF knows no half
    Image.fromarray(picture).save(tmp_path / "a.gif")
    _, images = read(footage.open_gif(tmp_path / "a.gif"))
    np.testing.assert_array_equal(images[0][:, 3:], 255)
    with av.open(str(tmp_path / "a.mov"), "w") as container:  # a codec with alpha
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 4, 6, "rgba"
        picture[:, 3:5, 3] = 128
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        container.mux(stream.encode(None))
    _, images = read(footage.open_video(tmp_path / "a.mov"))
    np.testing.assert_array_equal(images[0], expected)


def test_a_gif_keeps_its_times(tmp_path: Path) -> None:
    levels = [Image.new("L", (8, 8), level) for level in (0, 80, 160, 240)]
    levels[0].save(tmp_path / "a.gif", save_all=True, append_images=levels[1:], duration=[40, 120, 40, 80])
    clip = footage.open_gif(tmp_path / "a.gif")
    times, images = read(clip)
    np.testing.assert_allclose(times, [0, 0.04, 0.16, 0.2])
    assert clip.rate == pytest.approx(25)  # merged frames: 40 ms is the unit
    np.testing.assert_allclose(images[:, 0, 0, 0], [0, 80, 160, 240], atol=3)
    levels[0].save(tmp_path / "b.gif", save_all=True, append_images=levels[1:], duration=[40, 70, 40, 80])
    assert footage.open_gif(tmp_path / "b.gif").rate is None


def test_a_gif_without_times_plays_as_in_a_browser(tmp_path: Path) -> None:
    """A frame that is to last for 0 or 1 hundredth of a second is shown for ten, one of two hundredths for two."""
    levels = [Image.new("L", (8, 8), level) for level in (0, 80, 160, 240)]
    levels[0].save(tmp_path / "a.gif", save_all=True, append_images=levels[1:], duration=[0, 10, 20, 0])
    times, _ = read(footage.open_gif(tmp_path / "a.gif"))
    np.testing.assert_allclose(times, [0, 0.1, 0.2, 0.22])


def test_a_gif_too_large_to_be_a_frame_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    image = b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"
    (tmp_path / "a.gif").write_bytes(b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + image)
    with pytest.raises(DataError, match=r"a\.gif is too large for a frame"):
        footage.open_gif(tmp_path / "a.gif")


def test_a_folder_is_read_by_the_numbers_in_its_names(frames: np.ndarray, tmp_path: Path) -> None:
    clips.write_images(tmp_path, frames[:12], "take2_{}.png", first=5)
    Image.fromarray(frames[12]).save(tmp_path / "take2_17.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("mine")
    clip = footage.open_frames(tmp_path, 10)
    times, images = read(clip)
    assert clip.numbers == tuple(range(5, 18))
    np.testing.assert_allclose(times, np.arange(13) / 10)
    np.testing.assert_array_equal(images[:12], frames[:12])
    assert psnr(images[12], frames[12]) > 25


# --- damage ----------------------------------------------------------------------------------------


def kept(clip: footage.Pictures) -> tuple[int, float, str]:
    """How many frames came, the second of the last, and why no more."""
    count, second = 0, 0.0
    with pytest.raises(footage.BrokenOff) as error:
        for second, _ in clip.images:  # noqa: B007
            count += 1
    return count, second, str(error.value)


@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_a_clip_that_is_cut_off_keeps_what_is_there(frames: np.ndarray, tmp_path: Path, form: str) -> None:
    clips.write_video(tmp_path / "whole", frames, gop=10, format=form, muxer={"movflags": "faststart"})
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    count, second, reason = kept(footage.open_video(tmp_path / "cut"))
    assert 10 < count < 30 and second == pytest.approx((count - 1) / 25, abs=0.01)
    # on a machine of one core, FFmpeg reports the torn packet itself
    assert "header promises are missing" in reason or "Invalid data found" in reason


def test_damage_in_the_middle_ends_the_clip_there(frames: np.ndarray, tmp_path: Path) -> None:
    clips.write_video(tmp_path / "a.mp4", frames, gop=10)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
    (tmp_path / "a.mp4").write_bytes(data)
    count, second, reason = kept(footage.open_video(tmp_path / "a.mp4"))
    assert 10 < count < 30 and 0.3 < second < 1.2
    assert "data" in reason


def test_a_gif_that_is_cut_off_keeps_what_is_there(frames: np.ndarray, tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in frames[:10]]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=40)
    whole = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(whole[: len(whole) // 2])
    count, second, _ = kept(footage.open_gif(tmp_path / "a.gif"))
    assert 2 < count < 8 and second == pytest.approx((count - 1) * 0.04)
    (tmp_path / "b.gif").write_bytes(whole[:-1])
    assert kept(footage.open_gif(tmp_path / "b.gif"))[2] == "the end of the file is missing"


def test_damage_to_a_gif_that_pillow_reports_without_a_word_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [Image.new("L", (8, 8), grey) for grey in (0, 60, 120)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=40)
    clip = footage.open_gif(tmp_path / "a.gif")
    seek = GifImagePlugin.GifImageFile.seek

    def wordless(image: GifImagePlugin.GifImageFile, frame: int) -> None:
        if frame == 2:
            raise AssertionError
        seek(image, frame)

    monkeypatch.setattr(GifImagePlugin.GifImageFile, "seek", wordless)
    assert kept(clip) == (2, 0.04, "AssertionError")


def test_what_is_no_clip_is_named(frames: np.ndarray, tmp_path: Path) -> None:
    clips.write_video(tmp_path / "a.mp4", frames[:5])
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # the index, at the end, is missing
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile 'a.mp4'\n")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:10,\na.mp4\n#EXT-X-ENDLIST\n")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    for name in ("cut.mp4", "text.mp4", "empty.mp4", "list.mp4", "list.m3u8", "."):
        with pytest.raises(DataError, match="cannot be read as a video") as error:
            footage.open_video(tmp_path / name)
        assert error.value.hint
    with pytest.raises(DataError, match=r"sound.wav has no pictures"):
        footage.open_video(tmp_path / "sound.wav")
    with pytest.raises(DataError, match="there is no video"):
        footage.open_video(tmp_path / "nowhere.mp4")
    with pytest.raises(DataError, match=r"text.mp4 is not a GIF"):
        footage.open_gif(tmp_path / "text.mp4")
    with pytest.raises(DataError, match="there is no GIF"):
        footage.open_gif(tmp_path / "nowhere.gif")


def test_folders_that_are_no_clip_are_named(tmp_path: Path) -> None:
    for name in ("empty", "names", "twice", "damaged"):
        (tmp_path / name).mkdir()
    image = Image.new("RGB", (8, 8))
    image.save(tmp_path / "names" / "left.png")
    image.save(tmp_path / "twice" / "a1.png")
    image.save(tmp_path / "twice" / "b1.png")
    (tmp_path / "damaged" / "0.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"0" * 40)
    for name, words in [
        ("nowhere", "is missing"),
        ("damaged/0.jpg", "is not a folder"),
        ("empty", "has no images"),
        ("names", r"left.png has no number"),
        ("twice", r"b1.png has the same number as .*a1.png"),
    ]:
        with pytest.raises(DataError, match=words):
            footage.open_frames(tmp_path / name, 25)
    with pytest.raises(DataError, match=r"0.jpg is"):
        list(footage.open_frames(tmp_path / "damaged", 25).images)
