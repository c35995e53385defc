"""How a workflow reports its work: to a person at a terminal, or to nobody if it is called as a library."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

from vidcvae.progress import Progress, unreported


class Voice:
    """A silent voice; that of the command line is ``cli.ui.Speaker``."""

    def note(self, text: str) -> None:
        """Report a step of the work."""

    def detail(self, text: str) -> None:
        """Report a decision and its reason."""

    def warn(self, text: str) -> None:
        """Report something that needs the user's attention."""

    def progress(self, title: str) -> AbstractContextManager[Progress]:
        """Show the progress of a block, which passes (done, total) to the function that this yields."""
        return contextlib.nullcontext(unreported)


SILENT = Voice()
