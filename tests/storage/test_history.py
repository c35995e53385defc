"""The log of a run: whole lines, whatever a crash left behind the last one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vidcvae.errors import DataError
from vidcvae.storage import durable
from vidcvae.storage.history import History, read_history


def test_history_recovers_from_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    log = History(path)
    log.append({"step": 1})
    size = log.size
    log.append({"step": 2})
    log.close()
    with path.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    assert [r["step"] for r in read_history(path)] == [1, 2]
    History(path).append({"step": 4})
    assert [r["step"] for r in read_history(path)] == [1, 2, 4]
    rewound = History(path, size)
    rewound.append({"step": 9})
    assert [r["step"] for r in read_history(path)] == [1, 9]


def test_a_line_that_could_not_be_written_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real, room = tmp_path / "history.jsonl", os.write, [10, 30]
    log = History(path)

    def small(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[: room.pop()])

    monkeypatch.setattr(durable, "_write", small)
    log.append({"step": 1})
    with pytest.raises(DataError, match="No space left"):
        log.append({"step": 2})
    assert path.read_bytes() == b'{"step": 1}\n' and log.size == 12
    room.append(10)
    monkeypatch.setattr(durable, "_ftruncate", lambda fd, size: small(-1, b""))
    with pytest.raises(DataError, match="No space left"):
        log.append({"step": 3})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 3', "there was no way to cut it off then"
    monkeypatch.undo()
    log.append({"step": 4})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 4}\n'


def test_rubbish_at_the_end_of_a_history_is_passed_over(tmp_path: Path) -> None:
    """A crash may leave anything where the last line was being written, newlines too."""
    path = tmp_path / "history.jsonl"
    for rubbish in (b"\0" * 40, b"\0\0\n", b'{"step": 3, "lo\0\0\n', b"\xa5\n\xa5\n12\n"):
        path.write_bytes(b'{"step": 1}\n' + rubbish)
        assert read_history(path) == [{"step": 1}]
        History(path).append({"step": 2})
        assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_rewound_history_ends_with_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    for size, left in ((15, 1), (24, 2), (9999, 2)):  # 9999: somebody has taken lines out
        path.write_text('{"step": 1}\n{"step": 2}\n')
        History(path, size).append({"step": 9})
        assert [line["step"] for line in read_history(path)] == [*[1, 2][:left], 9]


def test_history_names_a_damaged_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"a": 1}\nnot json\n{"a": 2}\n')
    with pytest.raises(DataError, match="line 2"):
        read_history(path)


def test_history_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        History(tmp_path / "h").append({"loss": float("nan")})
