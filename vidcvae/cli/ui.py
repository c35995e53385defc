"""How the program speaks: a live display on a terminal, plain lines elsewhere, JSON for machines.

Results go to standard output; progress, warnings and errors to standard error, so that pipes stay clean.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Advance = Callable[[int, int], None]  # (done, total)


def say(text: str) -> None:
    """One line of result for a person. Square brackets are text, not markup."""
    out.print(text, markup=False)


def note(text: str) -> None:
    """What is going on, for a person; kept out of standard output."""
    err.print(text, markup=False, style="dim" if err.is_terminal else None)


def warn(text: str) -> None:
    err.print(f"warning: {text}", markup=False, style="yellow")


def fail(message: str, hint: str = "") -> None:
    err.print(f"error: {message}", markup=False, style="bold red")
    if hint:
        err.print(f"  {hint}", markup=False)


def emit(value: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, allow_nan=False, default=str) + "\n")
    sys.stdout.flush()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; numbers stand on the right."""
    grid = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    out.print(grid, markup=False)


@contextlib.contextmanager
def progress(title: str, quiet: bool = False) -> Iterator[Advance]:
    """A bar on a terminal, a line every five seconds elsewhere; yields ``advance(done, total)``."""
    if quiet:
        yield lambda done, total: None
    elif err.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        last = time.monotonic()

        def advance(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 5:
                last = time.monotonic()
                note(f"{title}: {done}/{total}")

        yield advance
