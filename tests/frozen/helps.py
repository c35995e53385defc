"""The help of every command."""

from __future__ import annotations

from pathlib import Path

from tests.frozen import texts
from tests.nets.commands import SURFACE

COMMANDS = tuple(SURFACE)  # "" is the program itself


def help_of(command: str) -> str:
    result = texts.run(f"{command} --help", Path())
    assert result.code == 0, result.err
    return texts.neutral(result.out, Path().absolute())
