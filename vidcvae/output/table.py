"""Tables of text and numbers, independent of how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """The rows have as many cells as there are columns: text, or numbers that are not formatted yet."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
