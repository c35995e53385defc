"""Printing: live displays on a terminal, plain lines elsewhere, JSON for programs.

Results go to standard output; progress, warnings and errors to standard error, so that pipes stay clean.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from vidcvae.errors import UsageError, typed
from vidcvae.progress import Progress, unreported
from vidcvae.workflow.voice import Voice

if TYPE_CHECKING:
    from vidcvae.evaluation.compare import Row
    from vidcvae.output import table as tables

# Under torchrun every rank runs the same command, and only rank 0 prints
_other_rank = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"
_tells_failures = not _other_rank


def plain(text: str) -> str:
    """Text with control characters escaped: a name in a file may hold some, which would command the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class _Console(Console):
    """A console that prints text as it is: no markup, no :emoji:, no control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def on_broken_pipe(self) -> None:
        """Go on without messages if nobody reads them any more (``train 2>&1 | head``); results end the command."""
        if not self.stderr:
            super().on_broken_pipe()
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

    def print(self, *objects: Any, **settings: Any) -> None:
        super().print(*(plain(it) if isinstance(it, str) else it for it in objects), **settings)


out = _Console(soft_wrap=True, quiet=_other_rank)
err = _Console(stderr=True, soft_wrap=True, quiet=_other_rank)

_loudness = "normal"


def speak(loudness: str) -> None:
    """Set how much is printed: "quiet", "normal" or "verbose". Results, warnings and errors always are."""
    global _loudness  # noqa: PLW0603 - one setting for the whole program
    _loudness = loudness


def choose_loudness(*, quiet: bool, verbose: bool) -> None:
    """Apply --quiet and --verbose, before the command or after it. Raises ``UsageError`` if both are given."""
    if (quiet or _loudness == "quiet") and (verbose or _loudness == "verbose"):
        raise UsageError("--quiet and --verbose exclude each other.", "Choose one of them.")
    if quiet or verbose:
        speak("quiet" if quiet else "verbose")


def is_quiet() -> bool:
    return _loudness == "quiet"


def say(text: str, folded: bool = False) -> None:
    """Print one line of the result; ``folded``: wrap it between words."""
    out.print(_folded(text, out) if folded else text)


def _folded(text: str, console: Console) -> str:
    """Text wrapped between words on a terminal, for sentences with nothing to paste; in a pipe, lines stay whole."""
    if not console.is_terminal:
        return text
    lines = textwrap.TextWrapper(console.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return lines.fill(text)


def note(text: str) -> None:
    """Print what is going on, to standard error."""
    if not is_quiet():
        err.print(text, style="dim" if err.is_terminal else None)


def detail(text: str) -> None:
    """Print what was decided, with --verbose."""
    if _loudness == "verbose":
        note(text)


def warn(text: str, folded: bool = False) -> None:
    text = f"warning: {_indented(text)}"
    err.print(_folded(text, err) if folded else text, style="yellow")


def tell_failures() -> None:
    """From here on, print failures of this process even if another rank prints everything else."""
    global _tells_failures  # noqa: PLW0603
    _tells_failures = True


def fail(message: str, hint: str = "") -> None:
    err.quiet = not _tells_failures
    err.print(f"error: {_indented(message)}", style="bold red")
    if hint:
        err.print(f"  {_indented(hint)}")


def end(message: str, hint: str) -> None:
    """Print the last message of a command that was stopped on purpose."""
    err.print(_indented(message))
    err.print(f"  {_indented(hint)}")


def _indented(text: str) -> str:
    """Text with further lines indented, so that a name with a line break cannot look like a message of its own."""
    return re.sub(r"\n(?! )", "\n  ", text)


def emit(value: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output."""
    if not out.quiet:
        sys.stdout.write(json.dumps(value, allow_nan=False, default=str) + "\n")
        sys.stdout.flush()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, its numbers right-aligned. If it is too wide, each row becomes a block of lines.

    In a pipe nothing is wrapped: one line is one row.
    """
    columns = [plain(name) for name in columns]
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else plain(str(cell)) for cell in row] for row in rows]
    natural = sum(max(len(text) for text in column) + 2 for column in zip(columns, *cells, strict=True))
    width = out.width if out.is_terminal or "COLUMNS" in os.environ else max(out.width, natural)
    if natural > width and len(columns) > 2:
        if title:
            say(title)
        names = max(map(len, columns))
        for row in cells:
            say("\n".join(f"{name:<{names}}  {cell}" for name, cell in zip(columns, row, strict=True)) + "\n")
        return
    grid = Table(title=plain(title) or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        grid.add_row(*row)
    (_Console(width=width) if width > out.width else out).print(grid)


def show(parts: Iterable[str | tables.Table]) -> None:
    """Print lines and tables of the result."""
    for part in parts:
        if isinstance(part, str):
            say(part)
        else:
            table(*part)


def score_table(rows: Sequence[Row]) -> None:
    """Print compared scores as a table, and how many settings did not fit into it."""
    from vidcvae.output import score_table

    table("", *score_table.cells(rows))
    if text := score_table.hidden(rows):
        note(text)


def next_step(*commands: str) -> None:
    """Print the commands to type next, one per line, so that they can be pasted."""
    for text in commands:
        note(f"Next: {text}")


def command() -> str:
    """The command as it was typed."""
    return typed(*sys.argv[1:])


@contextlib.contextmanager
def progress(title: str, quiet: bool = False) -> Iterator[Progress]:
    """A bar on a terminal, a line every five seconds elsewhere, with the rate; yields ``advance(done, total)``."""
    begun = time.monotonic()
    if quiet or is_quiet():
        yield unreported
    elif err.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        rate = TextColumn("{task.fields[rate]}")
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        with Bar(*columns, console=err, transient=True) as bar:
            task = bar.add_task(title, total=None, rate="")
            yield lambda done, total: bar.update(task, completed=done, total=total, rate=_rate(done, begun))
    else:
        last = begun

        def advance(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 5:
                last = time.monotonic()
                note(f"{title}: {done}/{total}, {_rate(done, begun)}")

        yield advance


def _rate(done: int, begun: float) -> str:
    """The rate so far; ``begun`` is a time of ``time.monotonic``."""
    return f"{done / max(time.monotonic() - begun, 1e-3):.3g}/s"


class Speaker(Voice):
    """Prints the messages of a workflow; ``bars``: also the progress of long work."""

    def __init__(self, bars: bool = True) -> None:
        self.bars = bars

    def note(self, text: str) -> None:
        note(text)

    def detail(self, text: str) -> None:
        detail(text)

    def warn(self, text: str) -> None:
        warn(text)

    def progress(self, title: str) -> AbstractContextManager[Progress]:
        return progress(title, quiet=not self.bars)
