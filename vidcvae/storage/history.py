"""The history of a run: one JSON line for each log step, epoch and validation, only ever appended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidcvae.errors import DataError
from vidcvae.storage import durable


class History:
    """An open history. On resume it is rewound to where the checkpoint was taken, so no line is there twice."""

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Open ``path`` for appending, cut back to ``size`` bytes, or else to its last whole line."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            whole = path.read_bytes()
            keep = whole.rfind(b"\n") + 1 if size is None else size
            if keep < len(whole):
                durable.truncate(path, keep)
        self._file = path.open("ab")

    def append(self, record: dict[str, Any]) -> None:
        """Add one line and make it last; NaN and infinity are refused, JSON has none."""
        durable.append(self._file, self.path, (json.dumps(record, allow_nan=False) + "\n").encode())

    @property
    def size(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def read_history(path: Path) -> list[dict[str, Any]]:
    """All records; a torn last line, which a crash can leave, is passed over.

    Raises ``DataError`` with the line number where the file is damaged elsewhere.
    """
    if not path.exists():
        raise DataError(f"there is no history {path}.", "Train first: vidcvae train")
    *lines, _torn = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise DataError(f"{path}, line {number} is not JSON.", "Remove that line.") from None
    return records
