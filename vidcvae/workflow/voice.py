"""How a workflow says what it does while it works: to a person in a terminal, or to nobody, as a library."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

Advance = Callable[[int, int], None]  # (done, total)


class Voice:
    """A silent one. The command line has its own, ``cli.ui.Speaker``."""

    def note(self, text: str) -> None:
        """What is going on."""

    def detail(self, text: str) -> None:
        """What was decided, and why."""

    def warn(self, text: str) -> None:
        """What the user should look at."""

    def progress(self, title: str) -> AbstractContextManager[Advance]:
        """A block of work that tells how far it is."""
        return contextlib.nullcontext(lambda done, total: None)


SILENT = Voice()
