"""Image files to arrays and back. All kinds of damage to a file are raised as ``DataError``.

Datasets are PNG files. A single picture that the user names may have any common format.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vidcvae import reading
from vidcvae.errors import DataError, did_you_mean

# An 8K frame is 7680 x 4320. Larger images are refused before decoding: a PNG of 200 kB could fill the memory.
MAX_PIXELS = 8192 * 4320
MAX_GIF_FRAMES = 20_000  # a few kilobytes can declare any number
_END = b"IEND\xaeB`\x82"  # the last chunk's name and checksum
PICTURE_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp")
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")  # modes that convert to 8-bit RGB unambiguously


class OtherFormatError(DataError):
    """A file has none of the expected formats."""


def open_image(path: Path) -> Image.Image:
    """A fully decoded PNG in its stored mode.

    Raises ``DataError`` that names the file if it is missing, not a PNG, cut off, damaged, or too large for a frame.
    """
    return _decoded(path, ("PNG",))


def open_picture(path: Path) -> Image.Image:
    """A fully decoded picture in one of ``PICTURE_FORMATS``, rotated as its EXIF data say; a GIF's first frame.

    Raises ``DataError`` as ``open_image`` does.
    """
    return ImageOps.exif_transpose(_decoded(path, PICTURE_FORMATS))


def _decoded(path: Path, forms: tuple[str, ...]) -> Image.Image:
    with opened(path, *forms) as (image, file):
        image.load()
        if image.format == "PNG" and _END not in _tail(file):  # Pillow does not check this
            raise DataError(f"{path} is damaged or cut off (it has no end).")
        if image.mode not in _MODES:
            raise DataError(f"{path} has pixels of mode {image.mode}, not 8-bit colour.", "Save it as RGB.")
        return image


@contextlib.contextmanager
def opened(path: Path, *forms: str) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """An image of one of the formats ``forms`` ("PNG", "GIF"), not yet decoded, and its file.

    Raises ``DataError`` that names the file, also for errors while it is decoded inside the block.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with reading.open_file(path) as file, Image.open(file, formats=forms) as image:
                refuse_too_large(image)
                yield image, file
    except DataError:
        raise
    except FileNotFoundError:
        beside = [near.name for near in path.parent.iterdir()] if path.parent.is_dir() else []
        meant = did_you_mean(path.name, beside)
        raise DataError(f"there is no file {path}.{meant}", "Check its name and its folder.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not an image.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path} is too large for a frame (over {MAX_PIXELS:,} pixels).") from None
    except UnidentifiedImageError:
        wanted = f"a {forms[0]} image" if len(forms) == 1 else f"an image ({', '.join(forms)})"
        raise OtherFormatError(f"{path} is {_what_instead(path)}, not {wanted}.") from None
    # Pillow's parsers raise many types: OSError, SyntaxError, struct.error, ..
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise DataError(f"{path} is damaged or cut off ({reading.label(reason[:200])}).") from None


def size_of(path: Path) -> tuple[int, int] | None:
    """Height and width of a PNG, without decoding it; None if it is not a readable PNG."""
    with contextlib.suppress(DataError), opened(path, "PNG") as (image, _):
        return image.height, image.width
    return None


def refuse_too_large(image: Image.Image) -> None:
    """Raise Pillow's ``DecompressionBombError`` for an image too large. A GIF can grow from frame to frame."""
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"over {MAX_PIXELS:,} pixels")


def gif_frames(image: Image.Image) -> Iterator[tuple[Image.Image, int]]:
    """Yield each frame of an ``opened`` GIF, valid until the next one, and its duration in milliseconds.

    Raises any of Pillow's errors at a damaged frame, after yielding the frames before it.
    """
    for index in itertools.count():
        try:
            image.seek(index)
        except EOFError:
            return
        refuse_too_large(image)
        yield image, round(image.info.get("duration", 0))


def unit_of_time(milliseconds: Sequence[int]) -> int | None:
    """A GIF's shortest duration if all are multiples of it (Pillow and others merge equal neighbours), else None."""
    unit = min(milliseconds)
    return unit if unit > 0 and not any(duration % unit for duration in milliseconds) else None


def pixels(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """uint8 (3, H, W), resized bilinearly as in the course, unless it has the size already."""
    height, width = size
    image = image.convert("RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def read_image(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The PNG at ``path`` as uint8 (3, H, W); raises ``DataError`` as ``open_image`` does."""
    return pixels(open_image(path), size)


def open_alike(paths: Iterable[Path]) -> Iterator[Image.Image]:
    """The PNGs of one sequence, decoded; raises ``DataError`` as ``open_image`` and ``check_size`` do."""
    first: tuple[int, int] | None = None
    for path in paths:
        image = open_image(path)
        first = first or image.size
        check_size(path, image, first)
        yield image


def check_size(path: Path, image: Image.Image, first: tuple[int, int]) -> None:
    """Raise ``DataError`` if an image has another width and height than the ``first`` of its sequence."""
    if image.size != first:
        raise DataError(f"{path} is {image.height}x{image.width}, but the images before it are {first[1]}x{first[0]}.")


def encode_png(frame: np.ndarray) -> bytes:
    """uint8 (3, H, W) as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def _tail(file: BinaryIO) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 1024))
    return file.read()


def _what_instead(path: Path) -> str:
    """A guess at the format of a file that could not be identified."""
    try:
        with reading.open_file(path) as file:
            head = file.read(16)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not head:
        return "empty"
    known = {b"GIF8": "a GIF", b"\xff\xd8\xff": "a JPEG", b"RIFF": "a WebP or AVI file"}
    return next((name for magic, name in known.items() if head.startswith(magic)), "damaged or of another kind")
