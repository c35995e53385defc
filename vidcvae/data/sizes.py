"""Frame sizes, (height, width): the defaults, and a description of what resizing does to the picture."""

from __future__ import annotations

from vidcvae.config.schema import LAB_SIZE, SIDES

DEFAULT_SIZES = {"dance": LAB_SIZE, "push": (64, 64)}
_SAME = 0.02  # the largest relative difference between the scales of height and width that keeps the shape


def text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def nearest(files: tuple[int, int]) -> tuple[int, int]:
    """The smallest valid frame size that is not below the size of ``files``."""
    height, width = (min(-(-side // SIDES.step) * SIDES.step, SIDES[-1]) for side in files)
    return height, width


def resize_text(
    files: tuple[int, int] | None, size: tuple[int, int], *, silent: bool = False, way_out: str = ""
) -> str:
    """A sentence about files that are read at a ``size`` other than their own; "" if it is their own.

    silent: whether the size was chosen because dataset.toml has none.
    way_out: the option, such as "--size ", that selects the files' own size.
    """
    if files is None or size in (files, own := nearest(files)):
        return ""
    down, across = size[0] / files[0], size[1] / files[1]
    added = max(down, across) > 1
    if abs(across / down - 1) <= _SAME:
        how = f"{'enlarged' if added else 'shrunk'} to {down:.0%}{', which adds no detail' * added}"
    else:
        stretched = f"{max(across / down, down / across):.3g} times as {'wide' if across > down else 'tall'}"
        how = f"{down:.0%} of the height and {across:.0%} of the width, so that everything looks {stretched}"
        how += "; enlarging adds no detail" * added
    taken = f", and dataset.toml says no size: taken at {text(size)}," if silent else f", taken at {text(size)}:"
    hint = f" {way_out}{text(own)} {'takes them as they are' if own == files else 'is nearest to them'}."
    return f"The image files are {text(files)}{taken} {how}.{hint * bool(way_out)}"
