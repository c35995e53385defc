"""A lock that allows one writer in a run folder at a time.

The kernel holds the lock (flock; on Windows, the lock of a byte far behind the text) and releases it however the
process ends, so there is no process number to check or to confuse with another. The text of the file only tells
people who holds it. Over NFS, Linux passes flock to the server, which refuses other hosts too. On a file system
without locks, nothing is refused.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from vidcvae import reading
from vidcvae.errors import DataError, UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FILE = ".lock"
_FAR = 1 << 30  # offset of the byte locked on Windows, where others cannot read locked bytes


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[str]:
    """Hold the lock of ``folder`` for a block; yields who died holding it, or the empty string.

    Raises ``UsageError``, which names the holder, if another process holds it.
    """
    path = folder / FILE
    fd = _take(path)
    try:
        dead_holder = _who(path)
        with contextlib.suppress(OSError):  # on a full disk, the lock works without its text
            os.ftruncate(fd, 0)
            os.write(fd, json.dumps(_me()).encode())
        yield dead_holder
    finally:
        if sys.platform == "win32":  # an open file cannot be removed, so no process waits for a removed one
            os.close(fd)
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held, so that a waiting process notices that its file is gone
        if sys.platform != "win32":
            os.close(fd)


def holder(folder: Path) -> str:
    """Who holds the lock of ``folder``, in words, or the empty string."""
    path = folder / FILE
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return "" if _lock(fd, shared=True) else _who(path) or "another process"
    finally:
        os.close(fd)


def _take(path: Path) -> int:
    for attempt in range(20):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}.", "Choose another folder.") from error
        if _lock(fd) and _is_there(fd, path):
            return fd
        os.close(fd)
        if attempt:
            time.sleep(0.01)  # it may be about to be released, or ``holder`` may be looking at it
    raise in_use(path.parent, _who(path))


def in_use(folder: Path, who: str = "") -> UsageError:
    """The error for a ``folder`` that another process, ``who``, writes to."""
    return UsageError(
        f"{folder} is in use by {who or 'another process'}; two writers would corrupt it.",
        f"Wait until it ends, or stop it with everything saved: {_how_to_stop(folder / FILE)}",
    )


def _how_to_stop(path: Path) -> str:
    if sys.platform == "win32":
        return "Ctrl-C in its window."
    text = _read(path)
    if text.get("host") == socket.gethostname() and type(text.get("pid")) is int:
        return f"kill -TERM {text['pid']}"
    return "kill -TERM PID, on its host."


def _lock(fd: int, shared: bool = False) -> bool:
    """Take the lock; returns whether this process now holds it."""
    try:
        if sys.platform == "win32":
            os.lseek(fd, _FAR, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            os.lseek(fd, 0, os.SEEK_SET)
        else:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _is_there(fd: int, path: Path) -> bool:
    """Whether ``fd`` is still the file at ``path``, not one that its holder has removed."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _me() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": shlex.join(sys.argv),
    }


def _read(path: Path) -> dict[str, object]:
    """The text of a lock file; empty if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        text = reading.parse_json(reading.read_bytes(path, 1 << 16))
        return text if isinstance(text, dict) else {}
    return {}


def _who(path: Path) -> str:
    try:
        text = _read(path)
        return f"process {text['pid']} on {text['host']}, since {text['since']} ({text['command']})"
    except KeyError:
        return ""
