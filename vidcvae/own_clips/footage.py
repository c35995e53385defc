"""Pictures from videos, GIFs and folders of images: upright, in RGB, with the time in seconds of each."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vidcvae import reading
from vidcvae.data import images, numbered
from vidcvae.errors import DataError, typed

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_GIF_MILLISECONDS = 100  # how long browsers show a frame with a duration of 0 or 1 hundredth of a second
_SLACK = 0.5  # seconds by which an intact file may end early if its header does not count frames

# (a, b, c, d) of a display matrix, which maps (x, y) to (ax + cy, bx + dy), and Pillow's name for it
_UPRIGHT = {
    (0, -1, 1, 0): Image.Transpose.ROTATE_90, (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270, (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM, (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}  # fmt: skip
_SWAPPING = {turn for matrix, turn in _UPRIGHT.items() if not matrix[0]}  # width and height


class BrokenOff(Exception):
    """A clip cannot be read any further; the text says why."""


@dataclass(frozen=True)
class Again(Iterable[Any]):
    """An iterable that can be iterated repeatedly; each time, ``begin`` makes a new iterator."""

    begin: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.begin()


@dataclass(frozen=True)
class Pictures:
    """A clip, not yet read.

    images: (second, picture) in order; each iteration reads the clip again and raises ``BrokenOff`` at damage.
    sizes: as ``images``, with (width, height) instead of the picture, if that is much cheaper.
    total: the expected number of pictures; 0 if unknown.
    rate: frames per second; None if the clip has no fixed rate.
    numbers: the number in each image's name, if the clip is a folder.
    """

    path: Path
    images: Iterable[tuple[float, Image.Image]]
    total: int
    rate: float | None = None
    numbers: tuple[int, ...] | None = None
    sizes: Iterable[tuple[float, tuple[int, int]]] | None = None


# --- videos ----------------------------------------------------------------------------------------


def open_clip(kind: str, path: Path, rate: float) -> Pictures:
    """Open ``path`` as a "video", a "gif" or "frames", a folder of images shown at ``rate`` per second."""
    match kind:
        case "frames":
            return open_frames(path, rate)
        case "gif":
            return open_gif(path)
    return open_video(path)


def open_video(path: Path) -> Pictures:
    """The first video stream of ``path``, timed by its time stamps and rotated as the file says.

    Raises ``DataError`` if the file is missing or has no readable video.
    """
    file, container, stream = _opened(path)
    with file, contextlib.closing(container):
        rate = float(stream.average_rate) if stream.average_rate else None
        total = stream.frames
    images, sizes = (Again(partial(_decode, path, rate, convert)) for convert in (_upright, _upright_size))
    return Pictures(path, images, total, rate, sizes=sizes)


def _opened(path: Path) -> tuple[Any, Any, Any]:
    """The file, its container and its first stream of pictures."""
    import av

    if not path.exists():
        raise DataError(f"there is no video {path}.", "Name a file such as dance.mp4.")
    try:
        file = reading.open_file(path)
        # an open file and no protocols: a playlist in disguise opens nothing else
        container = av.open(file, options={"protocol_whitelist": "none"}, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        reason = f"{error.strerror}" if error.strerror else str(error)
        raise DataError(f"{path} cannot be read as a video, or its end is missing ({reason}).", _REPAIR) from None
    stream = next(iter(container.streams.video), None)
    if stream is None or stream.codec_context is None:
        raise DataError(f"{path} has no pictures in it, or in an unknown form.", "Name a video.")
    width, height = stream.codec_context.width, stream.codec_context.height
    if not 0 < width * height <= images.MAX_PIXELS:
        raise DataError(f"{path} has frames of {width}x{height}, which is not a size to work with.")
    return file, container, stream


_REPAIR = "Copy it again from where it was recorded, or convert it: ffmpeg -i CLIP -c copy NEW.mp4"


def _decode(path: Path, rate: float | None, convert: Callable[[Any], Any]) -> Iterator[tuple[float, Any]]:
    import av

    file, container, stream = _opened(path)
    stream.thread_type = "AUTO"
    count, start, now = 0, None, 0.0
    with file, contextlib.closing(container):
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise BrokenOff("its data are damaged there")
                time = frame.time if frame.time is not None else count / (rate or 25)
                start = time if start is None else start
                now = max(now, time - start)
                yield now, convert(frame)
                count += 1
        except (av.FFmpegError, OSError) as error:
            raise BrokenOff(str(error.strerror or error)) from None
        whole = container.duration / 1e6 if container.duration else 0.0
        frame_time = 1 / rate if rate else 0.04
        short = whole - (now + frame_time if count else 0)
        # Editors leave hidden frames in the file after a cut, so the time decides before the count of frames
        if count < stream.frames if short > frame_time / 2 and stream.frames else short > _SLACK:
            raise BrokenOff(f"{short:.2f} seconds that its header promises are missing")


def _upright(frame: Any) -> Image.Image:
    """A decoded frame in RGB, turned by its display matrix."""
    if any(component.is_alpha for component in frame.format.components):
        image = on_white(Image.fromarray(frame.to_ndarray(format="rgba")))
    else:
        image = frame.to_image()
    turn = _turn(frame)
    return image if turn is None else image.transpose(turn)


def _upright_size(frame: Any) -> tuple[int, int]:
    """Width and height of the picture that ``_upright`` makes."""
    across = _turn(frame) not in _SWAPPING
    return (frame.width, frame.height) if across else (frame.height, frame.width)


def _turn(frame: Any) -> Image.Transpose | None:
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32)
    return _UPRIGHT.get(tuple(int(np.sign(round(v / 65536))) for v in (a, b, c, d)))  # type: ignore[arg-type]


def on_white(image: Image.Image) -> Image.Image:
    """RGB, with transparency shown as white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


# --- GIFs and folders ------------------------------------------------------------------------------


def open_gif(path: Path) -> Pictures:
    """The frames of a GIF with their own durations; raises ``DataError`` if the file is not a GIF."""
    if not path.exists():
        raise DataError(f"there is no GIF {path}.", "Name a file such as dance.gif.")
    durations: list[int] = []
    try:
        with images.opened(path, "GIF") as (image, _):
            for _, milliseconds in itertools.islice(images.gif_frames(image), images.MAX_GIF_FRAMES):
                durations.append(_shown(milliseconds))
    except images.OtherFormatError:
        raise DataError(f"{path} is not a GIF.", f"A video: {typed('dataset', 'import', 'video', path)}") from None
    except DataError:
        if not durations:  # else the frames before the damage are kept
            raise
    unit = images.unit_of_time(durations)
    return Pictures(path, Again(partial(_gif_frames, path)), len(durations), 1000 / unit if unit else None)


def _shown(milliseconds: int) -> int:
    return milliseconds if milliseconds > 10 else _GIF_MILLISECONDS


def _gif_frames(path: Path) -> Iterator[tuple[float, Image.Image]]:
    now, broken = 0, ""
    with images.opened(path, "GIF") as (image, file):
        try:
            for index, (frame, milliseconds) in enumerate(images.gif_frames(image)):
                if index == images.MAX_GIF_FRAMES:
                    raise BrokenOff(f"of a GIF, {images.MAX_GIF_FRAMES:,} frames are read")
                yield now / 1000, on_white(frame)
                now += _shown(milliseconds)
            file.seek(-min(16, file.seek(0, os.SEEK_END)), os.SEEK_END)
            if not file.read().rstrip(b"\0").endswith(b";"):
                raise BrokenOff("the end of the file is missing")
        except Exception as error:  # Pillow's parsers raise whatever their unpacking met
            broken = str(error) or type(error).__name__
    if broken:
        raise BrokenOff(broken)


def open_frames(folder: Path, rate: float) -> Pictures:
    """The images in a folder, ``rate`` per second, in the order of the last number in each name.

    Raises ``DataError`` if there are none, if a name has no number, or if two share a number.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "is missing"
        raise DataError(
            f"{folder} {what}, but frames are images in a folder.", "Such as frames/0.png, frames/1.png, .."
        )
    found = numbered.sort(numbered.visible(folder), SUFFIXES, numbered.last_number)
    for path in found.unnumbered:
        raise DataError(f"{path} has no number in its name.", "Frames are ordered by number: 0.png, 1.png, ..")
    for path, other in found.duplicates:
        raise DataError(f"{path} has the same number as {other}.", "Remove one of them.")
    if not found.entries:
        raise DataError(f"{folder} has no images.", f"Frames are files in {', '.join(SUFFIXES)}.")
    pictures = Again(lambda: ((index / rate, _open_image(path)) for index, (_, path) in enumerate(found.entries)))
    return Pictures(folder, pictures, len(found.entries), rate, tuple(found.by_number))


def _open_image(path: Path) -> Image.Image:
    """An image upright in RGB; raises ``DataError`` that names the file."""
    if path.suffix.lower() == ".png":
        return on_white(images.open_image(path))
    with images.opened(path, {".webp": "WEBP", ".bmp": "BMP"}.get(path.suffix.lower(), "JPEG")) as (image, _):
        return on_white(ImageOps.exif_transpose(image))
