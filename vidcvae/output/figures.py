"""Charts as figures for papers and slides: PNG, SVG or PDF, chosen by the suffix. All share one style."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcvae.errors import UsageError
from vidcvae.output.chart import Chart, Line, Panel, Style, log_ticks, number
from vidcvae.storage import durable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 150
WIDTH, TALL, SHORT = 7.0, 3.1, 1.15  # inches
# Okabe & Ito: distinguishable with every kind of colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#777777"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "vidcvae",  # the same figure gives the same file
    "svg.fonttype": "path",
}
MARKS: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3.5}
LINES: dict[Style, dict[str, Any]] = {
    "main": {},
    "fine": {"linewidth": 1.0},
    "faint": {"linewidth": 0.8, "alpha": 0.3},
    "dashed": {"linestyle": "--", "linewidth": 1.2},
    "marks": MARKS,
    "over": {},  # see ``_dashes``
}
DASH = 4  # in line widths


def check_target(target: Path) -> None:
    """Raise ``VidcvaeError`` unless ``target`` can become a figure."""
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{target} is not a PNG, SVG or PDF.", f"Name a file that ends in {', '.join(SUFFIXES)}.")
    durable.check_writable(target)


def save(chart: Chart, target: Path) -> None:
    """Draw ``chart`` into ``target``. Raises ``UsageError`` unless its suffix is .png, .svg or .pdf."""
    check_target(target)
    durable.write_bytes(target, render(chart, target.suffix.lower().removeprefix(".")))


def render(chart: Chart, kind: str) -> bytes:
    """The figure as the bytes of a "png", "svg" or "pdf" file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        heights = [TALL if panel.tall else SHORT for panel in chart.panels]
        if sum(panel.tall for panel in chart.panels) > 1:
            heights = [height * 0.65 if height == TALL else height for height in heights]
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.6), layout="constrained")
        own = any(panel.xlabel for panel in chart.panels)
        grid = figure.subplots(len(heights), 1, sharex=not own, squeeze=False, gridspec_kw={"height_ratios": heights})
        labels = [line.label for panel in chart.panels for line in panel.lines if line.label]
        legends: set[tuple[tuple[str, int], ...]] = set()
        for axes, panel in zip(grid[:, 0], chart.panels, strict=True):
            _draw(axes, panel, shared=len(set(labels)) < len(labels))
            axes.set_xlabel(panel.xlabel)
            named = tuple((line.label, line.run) for line in panel.lines if line.label)
            if named in legends and (legend := axes.get_legend()):
                legend.remove()  # a panel above has the same names and colours
            legends.add(named)
        grid[0, 0].set_title(_plain(chart.title), loc="left")
        if not own:
            grid[-1, 0].set_xlabel(chart.xlabel)
        figure.align_ylabels()
        figure.draw_without_rendering()  # computes where everything is
        for axes in grid[:, 0]:
            _make_room(axes)
        buffer = io.BytesIO()
        # No date in the file, so that the same figure gives the same bytes
        metadata: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def _draw(axes: Axes, panel: Panel, shared: bool = False) -> None:
    """Draw one panel. ``shared``: panels have names in common, so that even a single curve needs a legend."""
    from matplotlib.lines import Line2D

    for line in panel.lines:
        style = {"color": _colour(line), **_dashes(line), **(MARKS if len(line.x) == 1 else LINES[line.style])}
        axes.plot(line.x, line.y, label=_plain(line.label) or None, **style)
    axes.set_ylabel(panel.ylabel)
    if panel.log:
        axes.set_yscale("log")
        ticks = log_ticks(*(math.log10(end) for end in axes.get_ylim()))
        if not all(math.log10(tick).is_integer() for tick in ticks):  # Matplotlib would label the decades alone
            axes.set_yticks(ticks, [number(tick) for tick in ticks])
            axes.yaxis.set_minor_formatter("")
    if panel.from_zero:
        top = max((value for line in panel.lines for value in line.y), default=1.0) or 1.0
        axes.set_ylim(-0.05 * top, 1.08 * top)
    if panel.zero_to_one:
        axes.set_ylim(-0.05, 1.05)
    named = [line for line in panel.lines if line.label]
    if (panel.tall and len(named) > (0 if shared else 1)) or any(line.style == "marks" for line in named):
        legend = axes.legend(loc="best")
        for line, handle in zip(named, legend.legend_handles, strict=True):
            if line.style == "over" and isinstance(handle, Line2D):
                handle.set_linestyle((0, (DASH, DASH)))


def _make_room(axes: Axes) -> None:
    """Move a legend that overlaps a curve above the curves, in columns, and raise the top of the axis for it."""
    legend = axes.get_legend()
    if legend is None:
        return
    box = legend.get_window_extent()
    if not any(line.get_path().transformed(line.get_transform()).intersects_bbox(box, False) for line in axes.lines):
        return
    names = [text.get_text() for text in legend.get_texts()]
    columns = max(1, int(axes.bbox.width // box.width))
    axes.legend(handles=[*filter(None, legend.legend_handles)], labels=names, loc="upper left", ncols=columns)
    share = box.height / axes.bbox.height * -(-len(names) // columns) / len(names) + 0.04
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    axes.set_ylim(top=float(scale.inverted().transform(low + (high - low) / (1 - share))))


def _plain(text: str) -> str:
    """Escape dollar signs, between which Matplotlib would read a formula: a run's name may contain them."""
    return text.replace("$", r"\$")


def _colour(line: Line) -> str:
    return GREY if line.run < 0 else COLOURS[line.run % len(COLOURS)]


def _dashes(line: Line) -> dict[str, Any]:
    """Dashes that differ each time the colours repeat."""
    if line.style == "over":  # one dash for each line, and then a gap for the curve beneath
        turn, turns = line.turns
        return {"linestyle": (-DASH * turn, (DASH, DASH * turns))}
    turn = max(0, line.run) // len(COLOURS)
    return {"dashes": (6, 1 + turn)} if turn and line.style == "main" else {}
