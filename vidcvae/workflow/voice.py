"""How a workflow reports its work: to a person at a terminal, or to nobody if it is called as a library."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

Advance = Callable[[int, int], None]  # (done, total)


class Voice:
    """A silent voice; that of the command line is ``cli.ui.Speaker``."""

    def note(self, text: str) -> None:
        """Report a step of the work."""

    def detail(self, text: str) -> None:
        """Report a decision and its reason."""

    def warn(self, text: str) -> None:
        """Report something that needs the user's attention."""

    def progress(self, title: str) -> AbstractContextManager[Advance]:
        """Show the progress of a block, which passes (done, total) to the function that this yields."""
        return contextlib.nullcontext(lambda done, total: None)


SILENT = Voice()
