"""The one writer of files that must survive a crash.

A write goes to a temporary file in the target's folder, which is fsynced and renamed over the target; then the
folder is fsynced. A reader sees the old file or the new one, and after the call has returned, the new one. Logs
grow in place, and a crash can lose no more than the last piece. tests/reliability tries every way to fail.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from vidcvae.errors import DataError, UsageError

# Named here so that the crash tests can replace them with operations that fail
_open, _write, _fsync, _close = os.open, os.write, os.fsync, os.close
_replace, _unlink, _link, _ftruncate, _mkdir = os.replace, os.unlink, os.link, os.ftruncate, os.mkdir

# On Windows, without O_BINARY, a written newline becomes two bytes, and Ctrl-Z ends a file that is read
_BINARY = getattr(os, "O_BINARY", 0)
_PAUSES = (0.01, 0.03, 0.1, 0.3, 1.0) if sys.platform == "win32" else ()  # seconds between attempts to replace a file
_PROC = Path("/proc")
_ALIVE = 1  # stands for the start time of a process that exists but whose start time is unknown

_WRITERS = 8  # threads, which spend their time waiting for the disk
_TEMPORARY = re.compile(r"^\.(?P<target>.+)\.vidcvae-(?P<pid>\d+)-(?P<started>\d+)\.tmp$")


class Writer:
    """A file being written under a temporary name; ``commit`` puts it in the target's place."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._temporary = _temporary(target)
        self._fd = self._create()
        self._position = 0

    def _create(self) -> int:
        # Never O_TRUNC: a leftover of a failed ``link`` may be another name of an intact file.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
        try:
            return _open(self._temporary, flags, 0o644)
        except FileExistsError:
            _unlink(self._temporary)
            return _open(self._temporary, flags, 0o644)

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data``."""
        written = _write_all(self._fd, data)
        self._position += written
        return written

    def tell(self) -> int:
        return self._position

    def commit(self) -> None:
        _fsync(self._fd)
        fd, self._fd = self._fd, -1  # it is closed even if closing reports an error
        _close(fd)
        _put_in_place(self._temporary, self.target)
        _fsync_folder(self.target.parent)

    def abandon(self) -> None:
        """Discard what was written; the target stays as it was."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                _close(fd)
        with contextlib.suppress(OSError):
            _unlink(self._temporary)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Writer]:
    """Write ``target`` piece by piece; it appears when the block ends, or not at all if the block raises.

    Raises ``DataError``, which names the file, if the system refuses (disk full, no permission).
    """
    writer: Writer | None = None
    try:
        _make_folder(target.parent)
        writer = Writer(target)
        yield writer
        writer.commit()
    except OSError as error:
        if writer:
            writer.abandon()
        raise _refused("write", target, error) from error
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


def write_many(files: Iterable[tuple[Path, Callable[[], bytes]]]) -> Iterator[Path]:
    """Write many small files, several at a time; yields each path, in order, once the file is durable.

    Each file waits twice for the disk, so writing them one by one would take ten times as long.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_WRITERS) as pool:

        def write(file: tuple[Path, Callable[[], bytes]]) -> Path:
            path, encode = file
            write_bytes(path, encode())
            return path

        yield from pool.map(write, files)


class Log:
    """A file that grows piece by piece; a piece is durable once ``append`` has returned."""

    def __init__(self, path: Path, size: int) -> None:
        """Open or create ``path`` and cut it back to its first ``size`` bytes."""
        self.path, self.size = path, size
        self._torn = False
        try:
            _make_folder(path.parent)
            self._fd = _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY, 0o644)
            try:
                self._cut()
                _fsync_folder(path.parent)
            except OSError:
                self.close()
                raise
        except OSError as error:
            raise _refused("write", path, error) from error

    def append(self, data: bytes) -> None:
        """Append ``data``; if the system refuses, append nothing and raise ``DataError``."""
        try:
            if self._torn:  # an append failed, and so did cutting off what it wrote
                self._cut()
            self._torn = True
            _write_all(self._fd, data)
            _fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut()
            raise _refused("write", self.path, error) from error
        self._torn = False
        self.size += len(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # every piece is durable already
            _close(self._fd)

    def _cut(self) -> None:
        _ftruncate(self._fd, self.size)
        _fsync(self._fd)
        self._torn = False


def link(source: Path, target: Path) -> None:
    """Make ``target`` another name of ``source``, atomically; a copy if the file system has no links."""
    temporary = _temporary(target)
    try:
        with contextlib.suppress(FileNotFoundError):
            _unlink(temporary)
        try:
            _link(source, temporary)
        except OSError:
            return write_bytes(target, source.read_bytes())
        try:
            _put_in_place(temporary, target)
        finally:
            # POSIX: renaming one name of a file to another name of it does nothing and leaves both
            with contextlib.suppress(FileNotFoundError):
                _unlink(temporary)
        _fsync_folder(target.parent)
    except OSError as error:
        raise _refused("write", target, error) from error


def remove(path: Path) -> None:
    """Remove a file durably; a missing file is no error."""
    try:
        _unlink(path)
        _fsync_folder(path.parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused("remove", path, error) from error


def make_folder(path: Path, *, new: bool = False) -> None:
    """Create a folder and its parents durably; with ``new``, raise ``FileExistsError`` if it exists."""
    try:
        _make_folder(path, new)
    except OSError as error:
        if new and isinstance(error, FileExistsError):
            raise
        raise _refused("create the folder", path, error) from error


def must_be_new(folder: Path, ours: Callable[[str], bool] = lambda name: False, otherwise: str = "") -> None:
    """Raise ``UsageError`` unless ``folder`` is missing, or is a folder that holds nothing but files that are ``ours``.

    ours: takes the final name of a file. otherwise: words for the message that say what the folder may hold instead.
    """
    if folder.exists() and not (folder.is_dir() and all(ours(target_name(path)) for path in folder.iterdir())):
        what = f"not an empty folder{otherwise}" if folder.is_dir() else "a file, not a folder"
        raise UsageError(f"{folder} is {what}.", "Choose a folder that is new or empty.")


def check_writable(path: Path) -> None:
    """Raise ``DataError`` if no file or folder can be created at ``path``. Nothing is created."""
    folder = path if path.is_dir() else path.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        number = errno.ENOTDIR
    elif not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EACCES
    else:
        return
    raise _refused("write", path, OSError(number, ""))


def must_not_be_input(targets: Iterable[Path | None], inputs: Iterable[object]) -> None:
    """Raise ``UsageError`` if a file to write is one of the ``inputs`` of a command; only paths count."""
    read = {path.resolve() for path in inputs if isinstance(path, Path)}
    for target in targets:
        if target and target.resolve() in read:
            raise UsageError(f"{target} is an input of this command, and would be replaced.", "Choose another name.")


def leftovers(folder: Path) -> list[Path]:
    """Temporary files whose writer has died."""
    matches = ((path, _TEMPORARY.match(path.name)) for path in folder.glob(".*.tmp"))
    known = ((path, int(match["pid"]), int(match["started"])) for path, match in matches if match)
    return [path for path, pid, started in known if _started(pid) not in (started, _ALIVE)]


def target_name(temporary: Path) -> str:
    """The final name of a temporary file; other names are returned as they are."""
    return _TEMPORARY.sub(r"\g<target>", temporary.name)


def clean_leftovers(folder: Path) -> list[Path]:
    """Remove the ``leftovers``, and return them."""
    removed = leftovers(folder)
    for path in removed:
        remove(path)
    return removed


def _temporary(target: Path) -> Path:
    """Where ``target`` is written first; the name identifies the process."""
    return target.with_name(f".{target.name}.vidcvae-{os.getpid()}-{_started(os.getpid())}.tmp")


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename. Windows refuses while a reader or virus scanner has the target open, which does not take long."""
    for pause in _PAUSES:
        try:
            return _replace(temporary, target)
        except PermissionError:
            time.sleep(pause)
    return _replace(temporary, target)


def _write_all(fd: int, data: bytes | memoryview) -> int:
    """Write all of ``data``; a short write is continued."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += _write(fd, view[done:])
    return done


def _make_folder(folder: Path, new: bool = False) -> None:
    if folder.is_dir() and not new:
        return
    if not folder.parent.is_dir():
        _make_folder(folder.parent)
    try:
        _mkdir(folder)
    except FileExistsError:  # another process may just have created it
        if not new and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "") from None
        if new:
            raise
    _fsync_folder(folder.parent)


_NO_ROOM = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_WRONG_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG)


def _refused(what: str, target: Path, error: OSError) -> DataError:
    remedy = "Free some space or choose another folder"
    if error.errno in _NO_ROOM:
        remedy = "Free some space"
    elif error.errno in _WRONG_PLACE:
        remedy = "Choose another place"
    reason: object = os.strerror(error.errno) if error.errno else error
    if error.errno == errno.ENOTDIR:
        in_the_way = next(path for path in (target, *target.parents) if os.path.lexists(path))
        reason = f"{in_the_way} is not a folder"
    return DataError(
        f"cannot {what} {target}: {reason}.",
        f"No file was left half-written. {remedy}, then run the command again.",
    )


def _started(pid: int) -> int:
    """When a process started, which distinguishes it from a later one with the same number; 0 if there is none.

    On Linux it is counted in the kernel's ticks, which do not change when the clock is set.
    """
    try:
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        if (_PROC / "self" / "stat").exists():
            return 0
    except (OSError, ValueError, IndexError):
        pass
    import psutil

    try:
        began: float = psutil.Process(pid).create_time()
        return round(began * 1000)
    except psutil.NoSuchProcess:
        return 0
    except psutil.Error:
        return _ALIVE


def _fsync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # it has no handles for folders; its journal makes renames durable
        return
    fd = _open(folder, os.O_RDONLY, 0)
    try:
        _fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # some file systems (CIFS, FUSE) do not support it
            raise
    finally:
        _close(fd)
