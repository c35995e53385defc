"""Charts, which know nothing of how they are drawn.

``figures`` makes a file of them, ``terminal`` a text, ``inline_svg`` a drawing for a page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

BARE = 0.25  # of a logarithmic axis: so much may lie beyond its first tick, and beyond its last
COINCIDE = 0.01  # of a panel's height: curves that are closer than that, at half of their points, cover each other

Style = Literal["main", "fine", "faint", "dashed", "marks", "over"]


@dataclass(frozen=True)
class Line:
    """A curve. ``run`` gives its colour (-1: grey). ``style`` "over": dashes that let the curves beneath be seen; they
    take ``turns``: of its panel's lines of that style this is the first (0), the second, and of how many."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    run: int = 0
    style: Style = "main"
    turns: tuple[int, int] = (0, 1)


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


def _told_apart(lines: tuple[Line, ...], log: bool) -> list[Line]:
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
    over: list[int] = []
    for index, line in enumerate(lines):
        if line.style not in ("main", "fine") or len(line.x) < 2:
            continue
        if any(covers(line, other) for other in solid):
            over.append(index)
        else:
            solid.append(line)
    found = list(lines)
    for turn, index in enumerate(over):
        found[index] = replace(found[index], style="over", turns=(turn, len(over)))
    return found


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about ``most`` round numbers (1, 2 or 5 times a power of ten apart) from low to high."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Three round numbers or more between 10**low and 10**high, the first and the last near the ends: decades, or
    with 2 and 5 of each where they are too few, or with more."""
    inside = range(math.ceil(low), math.floor(high) + 1)
    if len(inside) > 6:
        return [10.0**decade for decade in inside[:: -(-len(inside) // 6)]]
    decades = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [tick for d in decades for f in factors if low <= math.log10(tick := f * 10.0**d) <= high]
        bare = [math.log10(found[0]) - low, high - math.log10(found[-1])] if found else []
        if len(found) > 2 and max(bare) <= BARE * (high - low):
            return found
    return ticks(10**low, 10**high, 5)


def number(value: float) -> str:
    """Four digits at most; "-" for what is not there."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e5 else f"{value:.4g}"
