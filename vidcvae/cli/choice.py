"""Options with choices: listed in --help, offered by completion, and refused with the nearest right one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import typer

from vidcvae.config.schema import choices
from vidcvae.errors import UsageError, did_you_mean

MOST_LETTERS = 20  # of choices that stand in the column of types; more are told in the help's text, which folds better


def option(kind: Any, name: str, help: str, **settings: Any) -> Any:
    """A Typer option ``name`` whose values are those of ``kind``, a ``Literal`` type or names."""
    known = choices(kind) or tuple(kind)
    short = "|".join(known)
    if len(short) > MOST_LETTERS:
        short, help = name.rpartition("-")[2].upper(), _with_list(help, known)
    common: dict[str, Any] = {"metavar": short, "parser": _parser(name, known), "autocompletion": lambda: list(known)}
    return typer.Option(name, help=help, **common | settings)


def argument(kind: Any, name: str, help: str) -> Any:
    """The same for an argument, which ``name`` stands for."""
    known = choices(kind)
    return typer.Argument(
        metavar=name, help=_with_list(help, known), parser=_parser(name, known), autocompletion=lambda: list(known)
    )


def _with_list(text: str, known: Sequence[str]) -> str:
    return f"{text.removesuffix('.')}: {', '.join(known[:-1])} or {known[-1]}."


def _parser(name: str, known: Sequence[str]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in known:
            problem = f"{name} is {value!r}.{did_you_mean(value, known)}"
            raise UsageError(problem, f"It must be one of {', '.join(known)}.")
        return value

    return parse
