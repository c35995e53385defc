"""Charts as text, for terminals that cannot show pictures. Plain ASCII, so that it survives logs and mail."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from vidcvae.output.chart import Chart, Line, Panel, limits

MARKS = "*o+x#@%&"
ROWS_TALL, ROWS_SHORT = 12, 5
AXIS = 11  # columns to the left of the plot


def to_text(chart: Chart, width: int = 78) -> str:
    """The chart in lines of at most ``width`` columns."""
    shared = _x_limits(chart.panels)
    parts = [chart.title]
    columns = max(20, width - AXIS)
    for panel in chart.panels:
        ends = _x_limits([panel]) if panel.xlabel else shared
        parts += _panel(panel, *ends, columns)
        if panel.xlabel:
            parts.append(_floor(panel.xlabel, *ends, columns))
    if not all(panel.xlabel for panel in chart.panels):
        parts.append(_floor(chart.xlabel, *shared, columns))
    return "\n".join(parts).replace("β", "beta").replace("½", "1/2")


def _x_limits(panels: Iterable[Panel]) -> tuple[float, float]:
    return limits([x for panel in panels for line in panel.lines for x in line.x])


def _floor(label: str, low: float, high: float, columns: int) -> str:
    left, right = f"{low:.3g}", f"{high:.3g}"
    return " " * AXIS + left + label.center(columns - len(left) - len(right)) + right


def _panel(panel: Panel, low: float, high: float, columns: int) -> list[str]:
    rows = ROWS_TALL if panel.tall else ROWS_SHORT
    scale = math.log10 if panel.log else float
    # Faint lines are the scatter behind a mean; as text they would hide it
    drawn = [line for line in panel.lines if line.style != "faint"]
    values = [y for line in drawn for y in line.y if math.isfinite(y) and (y > 0 or not panel.log)]
    fixed = [0.0, 1.0] if panel.zero_to_one else [0.0] if panel.from_zero else []
    bottom, top = limits([*fixed, *(scale(y) for y in values)])
    grid = [[" "] * columns for _ in range(rows)]
    legend = []
    for index, line in enumerate(drawn):
        mark = MARKS[index % len(MARKS)]
        points = _resampled(line, low, high, columns, panel.log)
        if line.style == "over":  # leave room for the marks of the curves beneath it
            turn, turns = line.turns
            points = points[turn + 1 :: turns + 1]
        for x, y in points:
            if math.isfinite(y):
                row = round((scale(y) - bottom) / (top - bottom) * (rows - 1))
                grid[rows - 1 - row][x] = mark
        if line.label:
            legend.append(f"{mark} {line.label}")
    title = panel.title + (" (log)" if panel.log else "")
    heads = [title, *legend] if len(legend) > 1 else [title]
    one_line = "   ".join(heads)
    body = []
    for row, cells in enumerate(grid):
        height = top - (top - bottom) * row / (rows - 1)
        tick = f"{10**height if panel.log else height:.3g}" if row in (0, rows // 2, rows - 1) else ""
        body.append(f"{tick:>{AXIS - 2}} |{''.join(cells)}".rstrip())
    floor = " " * (AXIS - 1) + "+" + "-" * columns
    return ["", *([one_line] if len(one_line) <= columns + AXIS else heads), *body, floor]


def _resampled(line: Line, low: float, high: float, columns: int, log: bool) -> list[tuple[int, float]]:
    """(column, y) pairs: the mean of the points in each column, and a straight line across empty columns.

    y is NaN where it cannot be drawn: on a logarithmic scale, at 0 and below, and between such a point and the next."""
    buckets: dict[int, list[float]] = {}
    for x, y in zip(line.x, line.y, strict=True):
        height = math.nan if log and y <= 0 else y
        buckets.setdefault(round((x - low) / (high - low) * (columns - 1)), []).append(height)
    means = sorted((column, sum(ys) / len(ys)) for column, ys in buckets.items())
    if line.style == "marks":
        return means
    filled = means[:1]
    for (left, a), (right, b) in itertools.pairwise(means):
        filled += [(c, a + (b - a) * (c - left) / (right - left)) for c in range(left + 1, right + 1)]
    return filled
