"""Charts, which know nothing of how they are drawn.

``figures`` makes a file of them, ``terminal`` a text, ``inline_svg`` a drawing for a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

COINCIDE = 0.01  # of a panel's height: curves that are closer than that, at half of their points, cover each other

Style = Literal["main", "fine", "faint", "dashed", "marks", "over"]


@dataclass(frozen=True)
class Line:
    """A curve. ``run`` gives its colour (-1: grey). ``style`` "over": dashes that let the curve beneath be seen."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    run: int = 0
    style: Style = "main"


@dataclass(frozen=True)
class Panel:
    """Axes: what is on y, with its unit; ``tall`` panels get most of the height. ``xlabel``: an x axis of its own.

    log: a logarithmic axis, where any value is positive. A curve that covers an earlier one is drawn as dashes over it.
    """

    ylabel: str
    lines: tuple[Line, ...]
    log: bool = False
    tall: bool = True
    from_zero: bool = False
    zero_to_one: bool = False
    xlabel: str = ""

    def __post_init__(self) -> None:
        positive = any(y > 0 for line in self.lines for y in line.y)
        object.__setattr__(self, "log", self.log and positive)
        object.__setattr__(self, "lines", tuple(_told_apart(self.lines, self.log)))


@dataclass(frozen=True)
class Chart:
    """Panels one below another over one x axis, but for those that have their own."""

    title: str
    xlabel: str
    panels: tuple[Panel, ...]

    def to_json(self) -> dict[str, Any]:
        """What is drawn, in numbers; one that is not finite is null."""

        def numbers(values: Sequence[float]) -> list[float | None]:
            return [float(value) if np.isfinite(value) else None for value in values]

        panels = [
            {
                "ylabel": panel.ylabel,
                "xlabel": panel.xlabel or self.xlabel,
                "lines": [{"label": line.label, "x": numbers(line.x), "y": numbers(line.y)} for line in panel.lines],
            }
            for panel in self.panels
        ]
        return {"title": self.title, "panels": panels}


def _told_apart(lines: tuple[Line, ...], log: bool) -> Iterator[Line]:
    """The lines, those that cover an earlier one as dashes over it."""

    def heights(line: Line) -> np.ndarray:
        values = np.asarray(line.y, dtype=float)
        return np.log10(np.where(values > 0, values, np.nan)) if log else values

    every = np.concatenate([heights(line) for line in lines] or [np.zeros(0)])
    reach = float(np.nanmax(every) - np.nanmin(every)) if np.isfinite(every).any() else 0.0

    def covers(line: Line, other: Line) -> bool:
        apart = np.abs(heights(line) - np.interp(line.x, other.x, heights(other), np.nan, np.nan))
        return bool(np.isfinite(apart).any() and np.nanmedian(apart) <= COINCIDE * reach)

    solid: list[Line] = []
    for line in lines:
        if line.style not in ("main", "fine") or len(line.x) < 2:
            yield line
        elif any(covers(line, other) for other in solid):
            yield replace(line, style="over")
        else:
            solid.append(line)
            yield line
