"""One writer in a run folder at a time.

The kernel holds the lock (flock; on Windows, of a byte far behind the text) and drops it when its process ends,
however it ends; so no process number has to be checked, and none can be mistaken for another's. The file's text only
tells people who holds it. Over NFS, Linux takes flock to the server, so that other hosts are refused as well; where a
file system has no locks, nobody is.
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
_FAR = 1 << 30  # the byte that is locked on Windows, where nobody else may read what is locked


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[str]:
    """Hold ``folder`` for a block; yields who died holding it before, or the empty string.

    Raises ``UsageError`` that tells who holds it, if somebody does.
    """
    path = folder / FILE
    fd = _take(path)
    try:
        died = _who(path)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
            os.ftruncate(fd, 0)
            os.write(fd, json.dumps(_me()).encode())
        yield died
    finally:
        if sys.platform == "win32":  # no file can be removed that is open, so nobody waits for one that is
            os.close(fd)
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: whoever waits for this file finds that it is no longer the one there
        if sys.platform != "win32":
            os.close(fd)


def holder(folder: Path) -> str:
    """Who holds ``folder``, in words, or the empty string."""
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
            time.sleep(0.01)  # perhaps it is only being let go, or looked at by ``holder``
    raise in_use(path.parent, _who(path))


def in_use(folder: Path, who: str = "") -> UsageError:
    """The error of a ``folder`` that another process, ``who``, writes into."""
    return UsageError(
        f"{folder} is in use by {who or 'another process'}; two writers would spoil it.",
        f"Wait until it ends, or stop it with everything saved: {_how_to_stop(folder / FILE)}",
    )


def _how_to_stop(path: Path) -> str:
    if sys.platform == "win32":
        return "Ctrl-C in its window."
    text = _told(path)
    if text.get("host") == socket.gethostname() and type(text.get("pid")) is int:
        return f"kill -TERM {text['pid']}"
    return "kill -TERM and its process number, on its host."


def _lock(fd: int, shared: bool = False) -> bool:
    """Whether nobody else holds it; if so, this process does from now on."""
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
    """Whether ``fd`` is still the file at ``path``, not one that its holder removed when it let go."""
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


def _told(path: Path) -> dict[str, object]:
    """What a lock's text tells; nothing where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        text = reading.parse_json(reading.read_bytes(path, 1 << 16))
        return text if isinstance(text, dict) else {}
    return {}


def _who(path: Path) -> str:
    try:
        text = _told(path)
        return f"process {text['pid']} on {text['host']}, since {text['since']} ({text['command']})"
    except KeyError:
        return ""
