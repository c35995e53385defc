"""The GIF and MP4 writers and the two GIF readers of before against those of today; they go with this file."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import pytest
from PIL import GifImagePlugin, Image

from vidcvae.data import images
from vidcvae.errors import DataError
from vidcvae.output import media, pictures
from vidcvae.own_clips import footage


def _gif_parts(frames: Iterable[media.Frame], palette: Image.Image, fps: float) -> Iterator[bytes]:
    """A GIF89a file piece by piece: one image block a frame, cut to what changed.

    Pillow's own ``save_all`` merges equal neighbours into one longer frame, so that counts and times no longer
    agree with the video; here a frame that changes nothing is a block of one pixel.
    """
    colours = bytes(palette.getpalette() or [])[: 3 * 256].ljust(3 * 256, b"\0")
    before: np.ndarray | None = None
    for index, frame in enumerate(frames):
        picture = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
        picture = picture.quantize(palette=palette, dither=Image.Dither.NONE)
        current = np.asarray(picture)
        left, top, right, bottom = (0, 0, *picture.size)
        if before is None:
            yield b"GIF89a" + right.to_bytes(2, "little") + bottom.to_bytes(2, "little") + b"\xf7\0\0" + colours
            yield b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"  # play for ever
        else:
            left, top, right, bottom = _changed(current != before)
        before = current
        # Times are in 1/100 s: each frame's end is rounded, so that errors do not add up
        ticks = round((index + 1) * 100 / fps) - round(index * 100 / fps)
        blocks = GifImagePlugin.getdata(picture.crop((left, top, right, bottom)), (left, top), duration=ticks * 10)
        yield b"".join(blocks)
    yield b";"


def _changed(mask: np.ndarray) -> tuple[int, int, int, int]:
    """left, top, right, bottom around what is true in ``mask`` (H, W); one pixel if nothing is."""
    if not mask.any():
        return 0, 0, 1, 1
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@contextlib.contextmanager
def _record_mp4(target: Path, fps: float) -> Iterator[media.Add]:
    """H.264 in yuv420p, which every player shows; it needs even sides, so odd ones repeat their last row or column."""
    import av

    encoded = io.BytesIO()  # an MP4's index is written last, at its front
    with av.open(encoded, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt = "yuv420p"
        # said, not left to be guessed: players take large pictures for BT.709, and PyAV converts by BT.601
        stream.codec_context.colorspace = av.video.reformatter.Colorspace.SMPTE170M
        stream.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
        stream.options = {"crf": "16", "preset": "medium"}

        def add(frame: media.Frame) -> None:
            even = np.pad(frame.transpose(1, 2, 0), [(0, side % 2) for side in frame.shape[1:]] + [(0, 0)], mode="edge")
            if not stream.codec_context.is_open:  # the first frame
                stream.height, stream.width = even.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))

        yield add
        container.mux(stream.encode(None))
    target.write_bytes(encoded.getvalue())


def _read_gif(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Frames of a GIF; those that stand for several of equal length, as Pillow merges them, are repeated."""
    frames: list[media.Frame] = []
    durations: list[int] = []
    seen = 0
    with images.opened(path, "GIF") as (image, _), contextlib.suppress(EOFError):  # raised behind the last frame
        while True:
            image.seek(len(frames))
            images.refuse_too_large(image)
            seen += image.width * image.height
            if len(frames) == 20_000 or seen > media.MAX_GIF_PIXELS:
                raise DataError(f"{path} is too long: of its size, {len(frames):,} frames are read.")
            frames.append(images.pixels(image, size))
            durations.append(round(image.info.get("duration", 0)))
    unit = min(durations)
    repeats = [d // unit for d in durations] if unit > 0 and not any(d % unit for d in durations) else [1] * len(frames)
    if sum(repeats) > 20_000:
        raise DataError(f"{path} is too long: its times tell of {sum(repeats):,} frames.")
    return np.repeat(np.stack(frames), repeats, axis=0)


def _gif_durations(image: Any) -> list[float]:
    """Seconds of each frame, as far as they can be read."""
    durations: list[float] = []
    with contextlib.suppress(Exception):  # the end of the file, or whatever a parser met in a damaged one
        while len(durations) < 20_000:
            image.seek(len(durations))
            images.refuse_too_large(image)
            milliseconds = image.info.get("duration", 0)
            durations.append(milliseconds / 1000 if milliseconds > 10 else 0.1)
    return durations


def _gif_frames(file: BinaryIO, image: Any, durations: list[float]) -> Iterator[tuple[float, Image.Image]]:
    now = 0.0
    with file, image:
        for index, duration in enumerate([*durations, 0.0]):
            try:
                image.seek(index)
                images.refuse_too_large(image)
                picture = footage.on_white(image)
            except EOFError:
                break
            except Exception as error:
                raise footage.BrokenOff(str(error)) from None
            yield now, picture
            now += duration
        if len(durations) == 20_000:
            raise footage.BrokenOff(f"of a GIF, {20_000:,} frames are read")
        file.seek(-min(16, file.seek(0, os.SEEK_END)), os.SEEK_END)
        if not file.read().rstrip(b"\0").endswith(b";"):
            raise footage.BrokenOff("the end of the file is missing")


@pytest.fixture(scope="module")
def shown(dance: Path) -> np.ndarray:
    """Real frames beside their poses, three times as large, and the last one for a while."""
    parts = [media.read_poses(dance / "val" / name, (32, 64))[:30] for name in ("val_img", "val_label")]
    frames = [pictures.enlarge(f, 3) for f in np.concatenate(parts, axis=-1)]
    return np.stack(frames + frames[-1:] * 5)


def decoded(path: Path) -> tuple[list[int], np.ndarray]:
    with Image.open(path) as image:
        frames = [(image.seek(i) or image.info["duration"], np.array(image.convert("RGB"))) for i in range(35)]
    return [time for time, _ in frames], np.stack([picture for _, picture in frames])


@pytest.mark.parametrize("fps", [5, 12.5, 25, 29.97, 30, 100])
def test_the_gif_has_the_same_pixels_and_times(shown: np.ndarray, tmp_path: Path, fps: float) -> None:
    media.save(tmp_path / "new.gif", shown, fps)
    few = media.spread(len(shown), media.PALETTE_PIXELS * 3 // shown[0].size)
    palette = media._palette(shown[i] for i in few)
    (tmp_path / "old.gif").write_bytes(b"".join(_gif_parts(shown, palette, fps)))
    times, pixels = decoded(tmp_path / "new.gif")
    assert times == decoded(tmp_path / "old.gif")[0]
    np.testing.assert_array_equal(pixels, decoded(tmp_path / "old.gif")[1])
    assert (tmp_path / "new.gif").stat().st_size < 1.02 * (tmp_path / "old.gif").stat().st_size


@pytest.mark.parametrize("fps", [5, 25, 29.97, 30000 / 1001])
def test_the_mp4_has_the_same_pixels_times_and_tags(shown: np.ndarray, tmp_path: Path, fps: float) -> None:
    frames = shown[:, :, :-1, :-1]  # odd sides
    media.save(tmp_path / "new.mp4", frames, fps)
    with _record_mp4(tmp_path / "old.mp4", fps) as add:
        for frame in frames:
            add(frame)
    found: list[Any] = []
    for name in ("new.mp4", "old.mp4"):
        with av.open(tmp_path / name) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context
            tags = codec.name, codec.pix_fmt, codec.width, codec.height, codec.colorspace, codec.color_range
            pictures = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
            found.append((tags, stream.average_rate, stream.duration * stream.time_base, *zip(*pictures, strict=True)))
    assert found[0][:3] == found[1][:3]
    np.testing.assert_allclose(found[0][3], found[1][3], atol=1e-6)
    np.testing.assert_array_equal(found[0][4], found[1][4])


def test_both_readers_see_what_they_saw(shown: np.ndarray, tmp_path: Path) -> None:
    media.save(tmp_path / "ours.gif", shown, 30)
    pillow = [Image.fromarray(f.transpose(1, 2, 0)) for f in shown]
    clear = [image.convert("RGBA") for image in pillow]
    for image in clear:
        image.paste((0, 0, 0, 0), (0, 0, 20, 20))
    for name, given, duration in (("merged", pillow, 40), ("no-delay", pillow, 0), ("clear", clear, 50)):
        given[0].save(tmp_path / f"{name}.gif", save_all=True, append_images=given[1:], duration=duration, disposal=2)
    whole = (tmp_path / "merged.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "no-end.gif").write_bytes(whole[:-1])
    for path in sorted(tmp_path.glob("*.gif")):
        if path.stem != "cut":
            np.testing.assert_array_equal(media.read_poses(path, (96, 384)), _read_gif(path, (96, 384)))
        file = path.open("rb")
        image = Image.open(file)
        durations = _gif_durations(image)
        old, new = read_on(_gif_frames(file, image, durations)), read_on(footage.open_gif(path).images)
        assert (old[0], old[2]) == (pytest.approx(new[0]), new[2]), path
        np.testing.assert_array_equal(old[1], new[1])
        assert footage.open_gif(path).total == len(durations)


def read_on(frames: Iterator[tuple[float, Image.Image]]) -> tuple[list[float], np.ndarray, str]:
    times, seen, why = [], [], ""
    try:
        for time, image in frames:
            times.append(time)
            seen.append(np.asarray(image))
    except footage.BrokenOff as error:
        why = str(error)
    return times, np.stack(seen), why
