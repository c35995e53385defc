"""Charts as inline SVG for a web page. Colours and fonts come from the page's style sheet, and follow its dark mode.

Each drawing has a text alternative, a legend that wraps, and a table of its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from markupsafe import Markup

from vidcvae.output import templates
from vidcvae.output.chart import Chart, Line, Panel, limits, log_ticks, number, ticks

WIDTH, LEFT, RIGHT = 640, 62, 628  # width of the drawing, and the ends of its x axis, in pixels
HEAD, GAP, FOOT = 26, 16, 40  # room for a panel's title, between panels, and for the x axis
TALL, SHORT = 210, 64  # heights of panels
COLOURS = 7  # classes c0 to c6 of the style sheet; grey lines have the class "grey"
MOST_POINTS = 1000  # points of a line; longer lines are drawn as means of neighbours
TABLE_ROWS = 21
DASH = 6


def figure(chart: Chart, name: str, caption: str, cursor: bool = False) -> Markup:
    """The chart as a ``<figure>``. Its ids begin with ``name``.

    cursor: let the page's script mark an x in it (it reads the x axis from data attributes).
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
    """The chart itself if its panels share an x axis, otherwise one chart for each panel."""
    if not any(panel.xlabel for panel in chart.panels):
        return [chart]
    return [Chart(chart.title, panel.xlabel or chart.xlabel, (panel,)) for panel in chart.panels]


def drawing(chart: Chart, name: str) -> Markup:
    """The ``<svg>`` alone."""
    low, high = limits([x for panel in chart.panels for line in panel.lines for x in line.x])

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
        text=_in_words(chart),
        panels=panels,
        ticks=[(across(tick), number(tick)) for tick in ticks(low, high, 6)],
        low=f"{low:.9g}",
        high=f"{high:.9g}",
        left=LEFT,
        right=RIGHT,
        width=WIDTH,
        height=bottom + FOOT,
    )


def _panel(panel: Panel, across: Callable[[float], str], top: int, bottom: int) -> dict[str, Any]:
    """The template's values for a panel between ``top`` and ``bottom``, in pixels."""
    log, scale = panel.log, math.log10 if panel.log else float
    values = [scale(y) for line in panel.lines for y in line.y if math.isfinite(y) and (y > 0 or not log)]
    if panel.zero_to_one:
        least, most = -0.05, 1.05
    elif panel.from_zero:
        least, most = 0.0, (max(values, default=0.0) or 1.0) * 1.08
    else:
        least, most = limits(values)
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
            curves.append((f"{line.style} {_colour(line)}", " ".join(map(",".join, spots)), _dashes(line)))
    y_ticks = log_ticks(least, most) if log else ticks(least, most, 5 if panel.tall else 2)
    return {
        "title": panel.title + (" (log scale)" if log else ""),
        "ticks": [(down(tick), number(tick)) for tick in y_ticks],
        "curves": curves,
        "marks": marks,
    }


def _legend(chart: Chart) -> list[dict[str, str]]:
    """One entry for each name and colour, even if several panels have it; none if there is only one name."""
    entries: dict[tuple[str, str], dict[str, str]] = {}
    for line in (line for panel in chart.panels for line in panel.lines if line.label):
        key = line.label, _colour(line)
        entries.setdefault(key, {"label": line.label, "colour": key[1], "style": line.style})
    return [*entries.values()] if len({label for label, _ in entries}) > 1 else []


def _table(chart: Chart) -> tuple[list[str], list[list[str]]] | None:
    """Heads and rows: every line's numbers at evenly spaced x."""
    drawn = [(panel, line) for panel in chart.panels for line in panel.lines if line.x and line.style != "faint"]
    if not drawn:
        return None
    xs = [x for _, line in drawn for x in line.x]
    at = np.unique(np.linspace(min(xs), max(xs), TABLE_ROWS))
    if all(float(x).is_integer() for x in xs):
        at = np.unique(at.round())
    heads, columns = [chart.xlabel], [at]
    for panel, line in drawn:
        heads.append(f"{panel.title}: {line.label}" if line.label else panel.title)
        order = np.argsort(line.x)
        columns.append(np.interp(at, np.asarray(line.x)[order], np.asarray(line.y)[order], np.nan, np.nan))
    return heads, [[number(float(value)) for value in row] for row in zip(*columns, strict=True)]


def _in_words(chart: Chart) -> str:
    """The chart in words: each line's first, last, least and greatest value."""
    sentences = []
    for panel in chart.panels:
        for line in panel.lines:
            points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
            if not points or line.style == "faint":
                continue
            (x0, y0), (x1, y1) = points[0], points[-1]
            name = panel.title + (f", {line.label}" if line.label else "")
            least, most = min(y for _, y in points), max(y for _, y in points)
            sentences.append(
                f"{name}: {number(y0)} at {chart.xlabel} {number(x0)}, {number(y1)} at {number(x1)}, "
                f"between {number(least)} and {number(most)}."
            )
    return " ".join(sentences)


def _thinned(line: Line) -> Iterator[tuple[float, float]]:
    step = -(-len(line.x) // MOST_POINTS)
    for begin in range(0, len(line.x), step or 1):
        x, y = line.x[begin : begin + step], line.y[begin : begin + step]
        yield sum(x) / len(x), sum(y) / len(y)


def _dashes(line: Line) -> str:
    """SVG attributes for a line of the style "over": dashes with room for those of the others."""
    turn, turns = line.turns
    if line.style != "over":
        return ""
    return Markup(f'stroke-dasharray="{DASH} {DASH * turns}" stroke-dashoffset="{-DASH * turn}"')


def _colour(line: Line) -> str:
    return "grey" if line.run < 0 else f"c{line.run % COLOURS}"
