"""Charts as text, for a terminal without pictures. Plain ASCII, so that it survives logs and mail."""

from __future__ import annotations

import itertools
import math

from vidcvae.output.chart import Chart, Line, Panel

MARKS = "*o+x#@%&"
ROWS_TALL, ROWS_SHORT = 12, 5
AXIS = 11  # columns left of the plot


def to_text(chart: Chart, width: int = 78) -> str:
    """The chart in lines of at most ``width`` columns."""
    lines = [line for panel in chart.panels for line in panel.lines if line.x]
    low, high = _range([x for line in lines for x in line.x])
    parts = [chart.title]
    columns = max(20, width - AXIS)
    for panel in chart.panels:
        if panel.xlabel:
            own = _range([x for line in panel.lines for x in line.x])
            parts += [*_panel(panel, *own, columns), _floor(panel.xlabel, *own, columns)]
        else:
            parts += _panel(panel, low, high, columns)
    if not all(panel.xlabel for panel in chart.panels):
        parts.append(_floor(chart.xlabel, low, high, columns))
    text = "\n".join(parts)
    return text.replace("β", "beta").replace("½", "1/2")


def _floor(label: str, low: float, high: float, columns: int) -> str:
    left, right = f"{low:.3g}", f"{high:.3g}"
    return " " * AXIS + left + label.center(columns - len(left) - len(right)) + right


def _panel(panel: Panel, low: float, high: float, columns: int) -> list[str]:
    rows = ROWS_TALL if panel.tall else ROWS_SHORT
    scale = math.log10 if panel.log else float
    # Faint lines are the scatter behind a mean: in a text they would hide it
    drawn = [line for line in panel.lines if line.style != "faint"]
    values = [y for line in drawn for y in line.y if math.isfinite(y) and (y > 0 or not panel.log)]
    fixed = [0.0, 1.0] if panel.zero_to_one else [0.0] if panel.from_zero else []
    bottom, top = _range([*fixed, *(scale(y) for y in values)])
    grid = [[" "] * columns for _ in range(rows)]
    legend = []
    for index, line in enumerate(drawn):
        mark = MARKS[index % len(MARKS)]
        points = _resampled(line, low, high, columns, panel.log)
        if line.style == "over":  # the marks of the curves beneath it stand between
            turn, turns = line.turns
            points = points[turn + 1 :: turns + 1]
        for x, y in points:
            if math.isfinite(y):
                row = round((scale(y) - bottom) / (top - bottom) * (rows - 1))
                grid[rows - 1 - row][x] = mark
        if line.label:
            legend.append(f"{mark} {line.label}")
    undo = (lambda v: 10**v) if panel.log else float
    ticks = {0: undo(top), rows - 1: undo(bottom), rows // 2: undo(top - (top - bottom) * (rows // 2) / (rows - 1))}
    title = panel.ylabel.replace("\n", " ") + (" (log)" if panel.log else "")
    heads = [title, *legend] if len(legend) > 1 else [title]
    one_line = "   ".join(heads)
    body = []
    for row, cells in enumerate(grid):
        tick = f"{ticks[row]:.3g}" if row in ticks else ""
        body.append(f"{tick:>{AXIS - 2}} |{''.join(cells)}".rstrip())
    floor = " " * (AXIS - 1) + "+" + "-" * columns
    return ["", *([one_line] if len(one_line) <= columns + AXIS else heads), *body, floor]


def _resampled(line: Line, low: float, high: float, columns: int, log: bool) -> list[tuple[int, float]]:
    """For each column the mean of the points in it, and a straight line across columns without any.

    NaN where there is no height: on a logarithmic scale at 0 and below too, and on the way there."""
    buckets: dict[int, list[float]] = {}
    for x, y in zip(line.x, line.y, strict=True):
        height = math.nan if log and y <= 0 else y
        buckets.setdefault(round((x - low) / (high - low) * (columns - 1)), []).append(height)
    found = sorted((column, sum(ys) / len(ys)) for column, ys in buckets.items())
    if line.style == "marks":
        return found
    filled = found[:1]
    for (left, a), (right, b) in itertools.pairwise(found):
        filled += [(c, a + (b - a) * (c - left) / (right - left)) for c in range(left + 1, right + 1)]
    return filled


def _range(values: list[float]) -> tuple[float, float]:
    """The least and the greatest value, moved apart where they are the same."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
