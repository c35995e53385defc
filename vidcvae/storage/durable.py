"""The one writer of files that must survive a crash.

Every write goes to a temporary file in the target's folder, is fsynced, renamed over the target, and the
folder is fsynced: a reader sees the old file or the new one, and once a call has returned, the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vidcvae.errors import DataError

# The file operations stand here by name, so that the crash tests can put a failing layer under them.
_open, _write, _fsync, _close = os.open, os.write, os.fsync, os.close
_replace, _unlink, _link, _ftruncate = os.replace, os.unlink, os.link, os.ftruncate

_TEMPORARY = re.compile(r"^\..+\.vidcvae-(\d+)-(\d+)\.tmp$")


class Writer:
    """A file being written under a temporary name; ``commit`` puts it in the target's place."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._temporary = target.with_name(f".{target.name}.vidcvae-{os.getpid()}-{_started(os.getpid())}.tmp")
        self._fd = _open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._position = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data``; a short write is continued."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += _write(self._fd, view[done:])
        self._position += done
        return done

    def tell(self) -> int:
        return self._position

    def commit(self) -> None:
        _fsync(self._fd)
        _close(self._fd)
        self._fd = -1
        _replace(self._temporary, self.target)
        _fsync_folder(self.target.parent)

    def abandon(self) -> None:
        """Drop what was written; the target stays as it was."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                _close(self._fd)
            self._fd = -1
        with contextlib.suppress(OSError):
            _unlink(self._temporary)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Writer]:
    """Write ``target`` piece by piece; it appears when the block ends, and not at all if it raises.

    Raises ``DataError`` naming the file when the system refuses (disk full, no permission).
    """
    writer: Writer | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = Writer(target)
        yield writer
        writer.commit()
    except OSError as error:
        if writer:
            writer.abandon()
        raise _refused(target, error) from error
    except BaseException:
        if writer:
            writer.abandon()
        raise


def write_bytes(target: Path, data: bytes) -> None:
    with writing(target) as file:
        file.write(data)


def write_text(target: Path, text: str) -> None:
    write_bytes(target, text.encode("utf-8"))


def write_json(target: Path, value: Any) -> None:
    write_text(target, json.dumps(value, indent=2) + "\n")


def link(source: Path, target: Path) -> None:
    """Make ``target`` another name of ``source`` (a copy where the file system has no links), atomically."""
    temporary = target.with_name(f".{target.name}.vidcvae-{os.getpid()}-{_started(os.getpid())}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            _unlink(temporary)
        _link(source, temporary)
        _replace(temporary, target)
        # POSIX: renaming a name onto another name of the same file does nothing, and leaves both
        with contextlib.suppress(FileNotFoundError):
            _unlink(temporary)
        _fsync_folder(target.parent)
    except OSError:
        write_bytes(target, source.read_bytes())


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        _unlink(path)


def append(file: BinaryIO, path: Path, data: bytes) -> None:
    """Append to the open log ``path`` and make it last; raises ``DataError`` when the system refuses."""
    try:
        file.write(data)
        file.flush()
        _fsync(file.fileno())
    except OSError as error:
        raise _refused(path, error) from error


def truncate(path: Path, size: int) -> None:
    """Cut a log back to its first ``size`` bytes."""
    fd = _open(path, os.O_WRONLY, 0)
    try:
        _ftruncate(fd, size)
        _fsync(fd)
    finally:
        _close(fd)


def clean_leftovers(folder: Path) -> list[Path]:
    """Remove temporary files whose writer is dead; those of a living process stay."""
    removed = []
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.match(path.name)
        if match and _started(int(match[1])) != int(match[2]):
            remove(path)
            removed.append(path)
    return removed


def _refused(target: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {target}: {os.strerror(error.errno) if error.errno else error}.",
        "What was there before is intact. Free some space or choose another folder, then run the command again.",
    )


def _started(pid: int) -> int:
    """When a process began, in the kernel's ticks, so that a reused process number is told apart.

    0 for a process that does not exist; 1 where the system has no /proc and the process exists.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return 0
    except (OSError, ValueError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 0
    except OSError:
        pass
    return 1


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle for a folder; its rename is made durable by the journal
        return
    fd = _open(folder, os.O_RDONLY, 0)
    try:
        _fsync(fd)
    finally:
        _close(fd)
