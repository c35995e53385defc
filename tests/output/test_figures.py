"""How the figures are drawn: ticks that can be read, legends off the curves, curves that cover each other."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vidcvae.output import figures, inline_svg, terminal
from vidcvae.output.chart import Chart, Line, Panel, log_ticks


def drawn(chart: Chart, monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The axes as they go into the file."""
    found: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: found.append(figure))
    figures.render(chart, "png")
    return found[0].axes


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (133, 350, [150, 200, 300]),
        (110, 130, [110, 115, 120, 125, 130]),
        (0.018, 1.05, [0.02, 0.05, 0.1, 0.2, 0.5, 1]),
        (1, 1000, [1, 10, 100, 1000]),
        (2e-6, 8, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]),  # not 2 and 5 of every other decade
        (1e-9, 0.1, [1e-9, 1e-7, 1e-5, 1e-3, 1e-1]),
        (1e-6, 0.1, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
    ],
)
def test_a_logarithmic_axis_has_ticks_from_end_to_end(
    low: float, high: float, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log_ticks(math.log10(low), math.log10(high)) == pytest.approx(ticks)
    chart = Chart("T", "epoch", (Panel("KL", (Line("a", [0, 1], [low, high]),), log=True),))
    (axes,) = drawn(chart, monkeypatch)
    axes.figure.draw_without_rendering()
    bottom, top = axes.get_ylim()
    texts = [*axes.yaxis.get_majorticklabels(), *axes.yaxis.get_minorticklabels()]
    told = sorted(text.get_position()[1] for text in texts if text.get_text())
    shown = [tick for tick in told if bottom <= tick <= top]
    assert len(shown) >= 3 and math.log(shown[0] / bottom) < math.log(top / bottom) / 4
    assert math.log(top / shown[-1]) < math.log(top / bottom) / 4


def test_a_legend_that_would_lie_on_a_curve_stands_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(100.0)
    everywhere = [Line(f"z {i}", x.tolist(), (25 + 3 * np.sin(x * (1 + i))).tolist(), i, "fine") for i in range(4)]
    for log in (False, True):
        (axes,) = drawn(Chart("T", "frame", (Panel("PSNR", tuple(everywhere), log=log),)), monkeypatch)
        axes.figure.draw_without_rendering()
        legend = axes.get_legend()
        assert [text.get_text() for text in legend.get_texts()] == ["z 0", "z 1", "z 2", "z 3"]
        bottom = legend.get_window_extent().y0
        assert all(axes.transData.transform((0, max(line.y)))[1] < bottom for line in everywhere)
    free = Panel("PSNR", (Line("a", [0, 1], [1.0, 0.0]), Line("b", [0, 1], [1.0, 0.5], 1)))
    (axes,) = drawn(Chart("T", "frame", (free,)), monkeypatch)
    assert axes.get_ylim()[1] == pytest.approx(1.05), "no room is made where there is some"


def test_the_same_names_stand_once(monkeypatch: pytest.MonkeyPatch) -> None:
    panels = tuple(Panel(name, (Line("run", [0, 1], [0.0, 1.0]),)) for name in ("beta", "ratio", "rate"))
    other = Panel("KL", (Line("run", [0, 1], [0.0, 1.0]), Line("other", [0, 1], [1.0, 0.0], 1)))
    legends = [axes.get_legend() for axes in drawn(Chart("T", "epoch", (*panels, other)), monkeypatch)]
    assert [legend is not None for legend in legends] == [True, False, False, True]


def test_all_of_several_curves_that_cover_each_other_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    x = [float(i) for i in range(400)]
    chart = Chart("T", "frame", (Panel("PSNR", tuple(Line(f"z {i}", x, x, i) for i in range(4))),))
    assert [line.turns for line in chart.panels[0].lines] == [(0, 1), (0, 3), (1, 3), (2, 3)]
    marks = terminal.to_text(chart)
    assert all(marks.count(mark) > 10 for mark in "*o+x")

    (axes,) = drawn(chart, monkeypatch)
    on = [dashes(line) for line in axes.lines]
    assert on[0] == {*range(16)} and on[1:] == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}]

    html = inline_svg.drawing(chart, "x")
    found = re.findall(r'stroke-dasharray="(\d+) (\d+)" stroke-dashoffset="(-?\d+)"', html)
    assert found == [("6", "18", "0"), ("6", "18", "-6"), ("6", "18", "-12")]


def dashes(line: Line2D) -> set[int]:
    """Where a line is drawn, of the first 16 of its widths."""
    offset, pattern = line._unscaled_dash_pattern  # type: ignore[attr-defined]
    if pattern is None:
        return {*range(16)}
    on, off = pattern
    return {at for at in range(16) if (at + offset) % (on + off) < on}
