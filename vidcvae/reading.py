"""Read files from untrusted sources: only regular files, and only up to a size limit.

A downloaded folder may contain a pipe, on which a reader waits forever, or a link to a device, which never ends. All
problems are raised as ``OSError`` (with the file) or ``ValueError`` (with its text).
"""

from __future__ import annotations

import errno
import json
import os
import reprlib
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO

MAX_TOML_BYTES = 1 << 20
# Without O_NONBLOCK, opening a pipe waits for its other end; O_BINARY exists on Windows only
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MAX_DOTS = 100  # in a line: tomllib's time for a dotted key is quadratic in the number of its parts


def open_file(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading; raises ``OSError``."""
    try:
        fd = os.open(path, _FLAGS)
    except PermissionError:
        if path.is_dir():  # Windows does not open folders
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        raise
    except ValueError:  # a NUL or half of a surrogate pair in the name
        raise OSError(errno.EINVAL, "no file can have such a name") from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The content of a file of at most ``limit`` bytes; raises ``OSError``."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"it is too large ({size:,} bytes; at most {limit:,} are read)")
        try:
            return file.read(size)
        except (MemoryError, OverflowError):
            raise OSError(errno.ENOMEM, f"its {size:,} bytes do not fit into memory") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a TOML file; raises ``OSError`` or ``ValueError``."""
    return parse_toml(read_bytes(path, MAX_TOML_BYTES).decode("utf-8"))


def parse_toml(text: str) -> dict[str, Any]:
    """Like ``tomllib.loads``, but it raises only ``ValueError``, and in linear time."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MAX_DOTS:
            raise ValueError(f"line {number} has more than {_MAX_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_json(text: str | bytes) -> Any:
    """Like ``json.loads``, but it raises only ``ValueError``."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except MemoryError:
        raise ValueError("it does not fit into memory") from None


def is_name(text: Any) -> bool:
    """Whether ``text`` can be a name: a printable string on one line, at most 1000 characters long."""
    return isinstance(text, str) and 0 < len(text) <= 1000 and text.isprintable()


def label(name: str) -> str:
    """A name from a file for use in a message; quoted and shortened unless it ``is_name``."""
    return name if is_name(name) else shown(name)


def shown(value: Any) -> str:
    """A value from a file for use in a message, on one short line."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 2
