"""Run a command line and put what it says into words that are the same on every machine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.nets.in_process import Result, vidcvae

HERE = Path(__file__).parent
WIDTH = 100  # columns of help and of usage errors
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TITLE = "== "


def run(line: str, place: Path) -> Result:
    """``vidcvae LINE`` typed in the folder ``place``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(WIDTH))
        patch.setenv("XDG_CACHE_HOME", str(place / ".home"))  # where "auto" remembers how fast this machine is
        return vidcvae(*shlex.split(line), within=place)


def neutral(text: str, place: Path) -> str:
    """Without colours, spaces at line ends and the path of ``place``."""
    text = _COLOUR.sub("", text).replace(str(place), "PLACE")
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def write(name: str, found: dict[str, str]) -> None:
    (HERE / name).write_text("\n".join(f"{_TITLE}{title}\n{text}\n" for title, text in found.items()), "utf-8")


def read(name: str) -> dict[str, str]:
    """What ``write`` wrote: texts by their titles."""
    parts = f"\n{(HERE / name).read_text('utf-8')}".split(f"\n{_TITLE}")[1:]
    return {title: text.strip("\n") for title, _, text in (part.partition("\n") for part in parts)}
