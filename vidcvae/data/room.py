"""Checks, before images are decoded, that they fit into memory and on the disk.

A few small files can become gigabytes when enlarged. Linux overcommits memory and then kills the process.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vidcvae.data.sizes import nearest, text
from vidcvae.device import available
from vidcvae.errors import VidcvaeError

if TYPE_CHECKING:
    from vidcvae.data.clips import Stream

SMALLER = "Use fewer images, or smaller ones: --size 32x64, where the command has this option"
ENLARGED = 2  # frames beyond this multiple of the files' height or width are too large because of it


def check(stream: Stream, at_once: int, folder: Path | None = None) -> None:
    """Raise ``VidcvaeError`` if the images of ``stream`` do not fit.

    at_once: the number of images in memory at a time. folder: where all images are written; it need not exist.
    """
    height, width = stream.size
    hint = SMALLER
    files = stream.files_size
    if files and any(side > ENLARGED * own for side, own in zip(stream.size, files, strict=True)):
        hint = f"The image files are {text(files)}; enlarging adds no detail. Use --size {text(nearest(files))}"
    check_bytes(f"{stream.source}: {at_once:,} images of {height}x{width} at once", at_once * 3 * height * width, hint)
    if folder:
        count = sum(stream.counts)
        place = folder.absolute()
        disk = next(near for near in (place, *place.parents) if near.is_dir())
        free = shutil.disk_usage(disk).free
        images = f"{stream.source}: {count:,} images of {height}x{width}"
        _check(images, count * 3 * height * width, free, f"disk in {disk}", hint)


def check_bytes(images: str, wanted: int, hint: str) -> None:
    """Raise ``VidcvaeError`` if ``wanted`` bytes do not fit into memory; ``images`` describes them."""
    _check(images, wanted, available(), "memory", hint)


def _check(images: str, wanted: int, free: int, where: str, hint: str) -> None:
    if wanted > free:
        raise VidcvaeError(
            f"{images} need {wanted / 2**30:.1f} GiB of {where}, where {free / 2**30:.1f} GiB are free.", hint
        )
