"""The errors that users see: what is wrong, where, and the next command to type."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Iterable

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_NON_FINITE = 3
EXIT_BAD_DATA = 4
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class VidcvaeError(Exception):
    """A failure that one sentence explains.

    ``message`` says what is wrong and where; ``hint`` is the command or edit that fixes it.
    """

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(VidcvaeError):
    """A wrong option, argument or configuration value."""

    exit_code = EXIT_USAGE


class NonFiniteError(VidcvaeError):
    """Training produced a NaN or an infinity, which was not used for an update."""

    exit_code = EXIT_NON_FINITE


class DataError(VidcvaeError):
    """A dataset, checkpoint or file that is missing, damaged or of another kind."""

    exit_code = EXIT_BAD_DATA


class Stopped(VidcvaeError):
    """A signal stopped training, which has saved its state."""

    def __init__(self, message: str, hint: str, exit_code: int) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


def an(name: str) -> str:
    """A name with its article: "a pose-cvae", "an anchor-cvae", "an svg-fp"."""
    return f"{'an' if name.startswith(('a', 'svg')) else 'a'} {name}"


def counted(number: int, thing: str) -> str:
    """ "1 epoch", "2 epochs", "1,200 epochs"."""
    return f"{number:,} {thing}{'s'[: number != 1]}"


OTHER_WORDS = {"gpu": "cuda"}  # spoken name: name here; by its letters, gpu would match cpu


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the nearest known name, or the empty string."""
    if len(wrong) > 200:  # difflib would take too long
        return ""
    names = list(known)
    meant = OTHER_WORDS.get(wrong.lower())
    near = [meant] if meant in names else difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def typed(*words: object) -> str:
    """The command ``vidcvae WORDS``, quoted for this system's shell."""
    texts = ["vidcvae", *map(str, words)]
    if sys.platform == "win32":  # cmd does not support single quotes
        import subprocess

        return subprocess.list2cmdline(texts)
    return shlex.join(texts)
