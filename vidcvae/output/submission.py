"""The course's Kaggle file: one row of pixels for each frame of each test sequence.

Header ``id,0,1,...,6143`` (for 32x64), ids running on over all sequences, the given first frame included, values
rint(255 x) in channel-first order. What the course's code writes with pandas, byte for byte, but streamed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vidcvae.output.video import Add, Frame
from vidcvae.storage import durable


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Add]:
    """Yields ``add(frame)`` for uint8 frames (3, H, W); the file appears, whole, when the block ends.

    Raises ``DataError`` naming the file if the system refuses.
    """
    rows = 0
    with durable.writing(target) as file:

        def add(frame: Frame) -> None:
            nonlocal rows
            if rows == 0:
                file.write(_line(["id", *map(str, range(frame.size))]))
            file.write(_line([str(rows), *map(str, frame.reshape(-1).tolist())]))
            rows += 1

        yield add


def _line(cells: list[str]) -> bytes:
    return (",".join(cells) + "\n").encode("ascii")
