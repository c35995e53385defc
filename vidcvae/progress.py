"""How long work reports its progress: it calls a function with the units done so far and their total."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # (done, total)


def unreported(done: int, total: int) -> None:
    """Report nothing."""
