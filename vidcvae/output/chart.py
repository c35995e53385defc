"""Charts, independent of how they are drawn.

``figures`` draws them into files, ``terminal`` as text, and ``inline_svg`` for a web page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

BARE = 0.25  # the largest share of a logarithmic axis below its first tick, or above its last
COINCIDE = 0.01  # two curves overlap if half of their points are closer than this share of the panel's height

Style = Literal["main", "fine", "faint", "dashed", "marks", "over"]


@dataclass(frozen=True)
class Line:
    """A curve. ``run`` selects its colour (-1: grey). The style "over" draws dashes, so that the curve beneath shows;
    ``turns`` is then the line's index among the panel's lines of that style, and their number."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    run: int = 0
    style: Style = "main"
    turns: tuple[int, int] = (0, 1)


@dataclass(frozen=True)
class Panel:
    """One pair of axes. ``ylabel`` includes the unit. ``tall`` panels get most of the height.

    xlabel: set if the panel has its own x axis. log: a logarithmic y axis, ignored if no value is positive.
    A curve that covers an earlier one is drawn as dashes over it.
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
        object.__setattr__(self, "lines", tuple(_separated(self.lines, self.log)))

    @property
    def title(self) -> str:
        """``ylabel`` on one line."""
        return self.ylabel.replace("\n", " ")


@dataclass(frozen=True)
class Chart:
    """Panels, one below another, over one x axis, except for panels that have their own."""

    title: str
    xlabel: str
    panels: tuple[Panel, ...]

    def to_json(self) -> dict[str, Any]:
        """The curves as numbers; a number that is not finite becomes null."""

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


def _separated(lines: tuple[Line, ...], log: bool) -> list[Line]:
    """The lines; each one that covers an earlier one gets the style "over"."""

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
    separated = list(lines)
    for turn, index in enumerate(over):
        separated[index] = replace(lines[index], style="over", turns=(turn, len(over)))
    return separated


def limits(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest value, moved apart if they are equal; 0 and 1 if there are none."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about ``most`` round numbers (1, 2 or 5 times a power of ten apart) from low to high."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """At least three round numbers between 10**low and 10**high, the first and the last near the ends.

    They are decades if these suffice; otherwise 2 and 5 of each decade are added, and then more."""
    inside = range(math.ceil(low), math.floor(high) + 1)
    if len(inside) > 6:
        return [10.0**decade for decade in inside[:: -(-len(inside) // 6)]]
    decades = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        candidates = [factor * 10.0**decade for decade in decades for factor in factors]
        chosen = [tick for tick in candidates if low <= math.log10(tick) <= high]
        bare = [math.log10(chosen[0]) - low, high - math.log10(chosen[-1])] if chosen else []
        if len(chosen) > 2 and max(bare) <= BARE * (high - low):
            return chosen
    return ticks(10**low, 10**high, 5)


def number(value: float) -> str:
    """The value with at most four digits; "-" if it is not finite."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e5 else f"{value:.4g}"
