"""Files that somebody else wrote: opened only if they are files, and read and parsed only up to a bound.

In a folder that was downloaded may stand a pipe, which is waited for without end, or a link to a device, which has
no end. Whatever is wrong comes as ``OSError`` (of the file) or ``ValueError`` (of its text), and as nothing else.
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
# Without O_NONBLOCK, opening a pipe waits for its other end; O_BINARY is Windows'
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MAX_DOTS = 100  # in a line: tomllib's time for a dotted key grows with the square of its parts


def open_file(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading; raises ``OSError``."""
    try:
        fd = os.open(path, _FLAGS)
    except PermissionError:
        if path.is_dir():  # which Windows does not open
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        raise
    except ValueError:  # a NUL, or half of a surrogate pair
        raise OSError(errno.EINVAL, "no file can have such a name") from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """All of a file of at most ``limit`` bytes; raises ``OSError``."""
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
    """As ``tomllib.loads``, but it raises nothing but ``ValueError``, and soon."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MAX_DOTS:
            raise ValueError(f"line {number} has more than {_MAX_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_json(text: str | bytes) -> Any:
    """As ``json.loads``, but it raises nothing but ``ValueError``."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except MemoryError:
        raise ValueError("it does not fit into memory") from None


def is_name(text: Any) -> bool:
    """Whether a text can be the name of something: printed on one line, and of a length that can be read."""
    return isinstance(text, str) and 0 < len(text) <= 1000 and text.isprintable()


def label(name: str) -> str:
    """A name from a file as a message can tell it: quoted and shortened if it could not be read otherwise."""
    return name if is_name(name) else shown(name)


def shown(value: Any) -> str:
    """A value from a file as a message can quote it: in one short line, whatever it is."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 2
