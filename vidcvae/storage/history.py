"""The history of a run: one JSON line for each log step, epoch and validation, only ever appended.

A crash can leave rubbish where the last line was being written, even with a newline in it: sectors arrive in any
order. So lines at the end that are no records are passed over, and written over by whoever goes on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidcvae import reading
from vidcvae.errors import DataError
from vidcvae.storage import durable


class History:
    """An open history. On resume it is rewound to where the checkpoint was taken, so no line is there twice."""

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Open ``path`` for appending after its last whole line, or the last within its first ``size`` bytes."""
        lines = _records(path, size)[1] if path.exists() else []
        self._log = durable.Log(path, sum(len(line) + 1 for line in lines))

    def append(self, record: dict[str, Any]) -> None:
        """Add one line and make it last; NaN and infinity are refused, JSON has none."""
        self._log.append((json.dumps(record, allow_nan=False) + "\n").encode())

    @property
    def size(self) -> int:
        return self._log.size

    def close(self) -> None:
        self._log.close()


def read_history(path: Path) -> list[dict[str, Any]]:
    """All records; a torn end, which a crash can leave, is passed over.

    Raises ``DataError`` with the line number where the file is damaged elsewhere.
    """
    if not path.exists():
        raise DataError(f"there is no history {path}.", "Train first: vidcvae train")
    return _records(path, None)[0]


def epoch_of(record: dict[str, Any]) -> str:
    """The epoch that a record was taken in, counted from 1, in words: the end of a run may be in the middle of one."""
    number = record["epoch"] + 1
    whole = record.get("epochs_done", number) == number  # older histories do not say
    return f"epoch {number}" if whole else f"epoch {number}, unfinished (step {record['step']:,})"


def _records(path: Path, size: int | None) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The records in the first ``size`` bytes, and their lines."""
    try:
        *lines, _torn = reading.read_bytes(path)[:size].split(b"\n")
    except OSError as error:
        raise DataError(f"cannot read the history {path}: {error.strerror}.") from None
    found = [_record(line) for line in lines]
    while found and found[-1] is None:
        found.pop()
    records = [record for record in found if record is not None]
    if len(records) < len(found):
        raise DataError(f"{path}, line {found.index(None) + 1} is not JSON.", "Remove that line.")
    return records, lines[: len(records)]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = reading.parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
