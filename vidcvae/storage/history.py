"""The history of a run: a file to which each log step, epoch and validation appends one line of JSON.

Because disks write sectors in any order, a crash can leave garbage at the end, even with newlines in it. Readers
therefore skip lines at the end that are not records, and the next writer overwrites them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidcvae import reading
from vidcvae.errors import DataError
from vidcvae.storage import durable


class History:
    """A history open for appending. A resumed run cuts it back to its checkpoint, so that no line occurs twice."""

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Open ``path`` and cut it after its last record, or after the last one in its first ``size`` bytes."""
        lines = _records(path, size)[1] if path.exists() else []
        self._log = durable.Log(path, sum(len(line) + 1 for line in lines))

    def append(self, record: dict[str, Any]) -> None:
        """Append one line durably; raises ``ValueError`` for NaN and infinity, which JSON does not have."""
        self._log.append((json.dumps(record, allow_nan=False) + "\n").encode())

    @property
    def size(self) -> int:
        return self._log.size

    def close(self) -> None:
        self._log.close()


def read_history(path: Path) -> list[dict[str, Any]]:
    """All records, without what a crash left at the end.

    Raises ``DataError`` with the line number if the file is damaged elsewhere.
    """
    if not path.exists():
        raise DataError(f"there is no history {path}.", "Train first: vidcvae train DATASET")
    return _records(path, None)[0]


def epoch_of(record: dict[str, Any]) -> str:
    """The epoch of a record in words, counted from 1; a run may stop in the middle of an epoch."""
    number = record["epoch"] + 1
    whole = record.get("epochs_done", number) == number  # older histories lack epochs_done
    return f"epoch {number}" if whole else f"epoch {number}, unfinished (step {record['step']:,})"


def _records(path: Path, size: int | None) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The records in the first ``size`` bytes, and their lines."""
    try:
        *lines, _torn = reading.read_bytes(path)[:size].split(b"\n")
    except OSError as error:
        raise DataError(f"cannot read the history {path}: {error.strerror}.") from None
    parsed = [_record(line) for line in lines]
    while parsed and parsed[-1] is None:
        parsed.pop()
    records = [record for record in parsed if record is not None]
    if len(records) < len(parsed):
        raise DataError(f"{path}, line {parsed.index(None) + 1} is not JSON.", "Remove that line.")
    return records, lines[: len(records)]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = reading.parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
