"""Charts as inline SVG for a web page: colours and type come from the page's style sheet, so that they follow its mode.

Beside each drawing stand a text alternative, a legend that wraps, and a table of its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from markupsafe import Markup

from vidcvae.output import templates
from vidcvae.output.chart import Chart, Line, Panel

WIDTH, LEFT, RIGHT = 640, 62, 628  # of the drawing, in pixels; where its x axis begins and ends
HEAD, GAP, FOOT = 26, 16, 40  # over a panel for its title; between two; under the last one for the x axis
TALL, SHORT = 210, 64  # panels
COLOURS = 7  # classes c0 .. c6 of the style sheet; grey lines have the class "grey"
MOST_POINTS = 1000  # of a line; more are means of neighbours
TABLE_ROWS = 21


def figure(chart: Chart, name: str, caption: str, cursor: bool = False) -> Markup:
    """The chart as a ``<figure>`` whose ids begin with ``name``; ``caption`` is text.

    cursor: the page's script may mark an x in it (it finds the x axis in data attributes).
    """
    parts = _parts(chart)
    return templates.render(
        "figure.html.j2",
        name=name,
        caption=caption,
        cursor=cursor,
        legend=_legend(chart),
        drawings=[drawing(part, f"{name}-{i}") for i, part in enumerate(parts)],
        tables=[table for part in parts if (table := _table(part))],
    )


def _parts(chart: Chart) -> list[Chart]:
    """The panels that share an x axis; each one alone where they have axes of their own."""
    if not any(panel.xlabel for panel in chart.panels):
        return [chart]
    return [Chart(chart.title, panel.xlabel or chart.xlabel, (panel,)) for panel in chart.panels]


def drawing(chart: Chart, name: str) -> Markup:
    """The ``<svg>`` alone."""
    xs = [x for panel in chart.panels for line in panel.lines for x in line.x]
    low, high = _apart(min(xs, default=0.0), max(xs, default=1.0))

    def across(x: float) -> str:
        return f"{LEFT + (x - low) / (high - low) * (RIGHT - LEFT):.1f}"

    panels: list[dict[str, Any]] = []
    bottom = -GAP
    for panel in chart.panels:
        top = bottom + GAP + HEAD
        bottom = top + (TALL if panel.tall else SHORT)
        panels.append({"top": top, "bottom": bottom, **_panel(panel, across, top, bottom)})
    return templates.render(
        "drawing.svg.j2",
        chart=chart,
        name=name,
        text=_said(chart),
        panels=panels,
        ticks=[(across(tick), _number(tick)) for tick in ticks(low, high, 6)],
        low=f"{low:.9g}",
        high=f"{high:.9g}",
        left=LEFT,
        right=RIGHT,
        width=WIDTH,
        height=bottom + FOOT,
    )


def _panel(panel: Panel, across: Callable[[float], str], top: int, bottom: int) -> dict[str, Any]:
    """What is drawn in a panel between ``top`` and ``bottom``, in pixels."""
    log, scale = panel.log, math.log10 if panel.log else float
    values = [scale(y) for line in panel.lines for y in line.y if math.isfinite(y) and (y > 0 or not log)]
    if panel.zero_to_one:
        least, most = -0.05, 1.05
    elif panel.from_zero:
        least, most = 0.0, (max(values, default=0.0) or 1.0) * 1.08
    else:
        least, most = _apart(min(values, default=0.0), max(values, default=1.0))
        margin = 0.04 * (most - least)
        least, most = least - margin, most + margin

    def down(y: float) -> float:
        return bottom - (bottom - top) * (scale(y) - least) / (most - least)

    curves, marks = [], []
    for line in panel.lines:
        kept = [(x, y) for x, y in _thinned(line) if math.isfinite(y) and (y > 0 or not log)]
        spots = [(across(x), f"{down(y):.1f}") for x, y in kept]
        if line.style == "marks" or len(spots) == 1:
            marks.append((_colour(line), spots))
        elif spots:
            curves.append((f"{line.style} {_colour(line)}", " ".join(map(",".join, spots))))
    y_ticks = _log_ticks(least, most) if log else ticks(least, most, 5 if panel.tall else 2)
    return {
        "title": panel.ylabel.replace("\n", " ") + (" (log scale)" if log else ""),
        "ticks": [(down(tick), _number(tick)) for tick in y_ticks],
        "curves": curves,
        "marks": marks,
    }


def _legend(chart: Chart) -> list[dict[str, str]]:
    """One entry for each name, as panels repeat the runs' names and colours; none for a lone name."""
    entries: dict[tuple[str, str], dict[str, str]] = {}
    for line in (line for panel in chart.panels for line in panel.lines if line.label):
        key = line.label, _colour(line)
        entries.setdefault(key, {"label": line.label, "colour": key[1], "style": line.style})
    return [*entries.values()] if len({label for label, _ in entries}) > 1 else []


def _table(chart: Chart) -> tuple[list[str], list[list[str]]] | None:
    """Heads and rows: the numbers of every line at evenly spread x."""
    found = [(panel, line) for panel in chart.panels for line in panel.lines if line.x and line.style != "faint"]
    if not found:
        return None
    low, high = min(min(line.x) for _, line in found), max(max(line.x) for _, line in found)
    at = np.linspace(low, high, TABLE_ROWS) if high > low else np.array([low])
    if all(float(x).is_integer() for _, line in found for x in line.x):
        at = np.unique(at.round())
    heads, columns = [chart.xlabel], [at]
    for panel, line in found:
        name = panel.ylabel.replace("\n", " ")
        heads.append(f"{name}: {line.label}" if line.label else name)
        order = np.argsort(line.x)
        columns.append(np.interp(at, np.asarray(line.x)[order], np.asarray(line.y)[order], np.nan, np.nan))
    return heads, [[_number(float(value)) for value in row] for row in zip(*columns, strict=True)]


def _said(chart: Chart) -> str:
    """The chart in words: where each line begins, ends, and how far it goes."""
    told = []
    for panel in chart.panels:
        for line in panel.lines:
            points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
            if not points or line.style == "faint":
                continue
            (x0, y0), (x1, y1) = points[0], points[-1]
            name = panel.ylabel.replace("\n", " ") + (f", {line.label}" if line.label else "")
            least, most = min(y for _, y in points), max(y for _, y in points)
            told.append(
                f"{name}: {_number(y0)} at {chart.xlabel} {_number(x0)}, {_number(y1)} at {_number(x1)}, "
                f"between {_number(least)} and {_number(most)}."
            )
    return " ".join(told)


def _thinned(line: Line) -> Iterator[tuple[float, float]]:
    step = -(-len(line.x) // MOST_POINTS)
    for begin in range(0, len(line.x), step or 1):
        x, y = line.x[begin : begin + step], line.y[begin : begin + step]
        yield sum(x) / len(x), sum(y) / len(y)


def _colour(line: Line) -> str:
    return "grey" if line.run < 0 else f"c{line.run % COLOURS}"


def _apart(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about ``most`` round numbers (1, 2 or 5 times a power of ten apart) from low to high."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Decades between 10**low and 10**high, with 2 and 5 of each where there are few."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    step = max(1, -(-len(decades) // 6))
    factors = (1, 2, 5) if high - low < 2 else (1,)
    found = [f * 10.0**d for d in decades if d % step == 0 for f in factors if low <= math.log10(f * 10.0**d) <= high]
    return found if len(found) > 1 else ticks(10**low, 10**high, 3)


def _number(value: float) -> str:
    """Four digits at most; "-" for what is not there."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e5 else f"{value:.4g}"
