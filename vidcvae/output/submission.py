"""The course's Kaggle file: one row of pixels for each frame of each test sequence.

The header is ``id,0,1,...,6143`` (for 32x64). The ids run on over all sequences and include the given first frames.
The values are rint(255 x) in channel-first order. The file equals that of the course's code byte for byte, but is
streamed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vidcvae.output.video import Add, Frame
from vidcvae.storage import durable


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Add]:
    """Yields ``add(frame)`` for uint8 frames (3, H, W). The file appears, complete, when the block ends.

    Raises ``DataError`` that names the file if writing fails.
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
