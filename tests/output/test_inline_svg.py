"""Charts as inline SVG: the right points, ticks, words and numbers, and nothing from outside unescaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from vidcvae.output import inline_svg, templates
from vidcvae.output.plots import Chart, Line, Panel


def parsed(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html)


def points(drawn: ElementTree.Element, which: int = 0) -> list[tuple[float, float]]:
    text = drawn.findall("polyline")[which].get("points", "")
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def test_a_line_goes_through_its_points() -> None:
    panel = Panel("loss", (Line("a", [0, 5, 10], [0.0, 1.0, 0.5]),), zero_to_one=True)
    drawn = parsed(inline_svg.drawing(Chart("T", "epoch", (panel,)), "x"))
    spots = points(drawn)
    at = {key: float(drawn.get(f"data-{key}", "")) for key in ("left", "right", "low", "high")}
    assert (at["low"], at["high"]) == (0, 10)
    assert [x for x, _ in spots] == [at["left"], (at["left"] + at["right"]) / 2, at["right"]]
    (_, low), (_, high), (_, middle) = spots
    assert high < middle < low, "up is more"
    assert middle == pytest.approx((low + high) / 2, abs=0.1)
    ticks = {t.text: float(t.get("y", "")) for t in drawn.findall("text") if t.get("class") == "ytick"}
    assert ticks["0"] == pytest.approx(low + 4, abs=0.1), "labels stand at their values"


def test_a_log_scale_leaves_out_what_it_cannot_show() -> None:
    panel = Panel("KL", (Line("a", [0, 1, 2, 3], [0.0, 1.0, 10.0, 100.0]),), log=True)
    spots = points(parsed(inline_svg.drawing(Chart("T", "epoch", (panel,)), "x")))
    assert len(spots) == 3
    assert spots[0][1] - spots[1][1] == pytest.approx(spots[1][1] - spots[2][1], abs=0.11), "decades are alike"


def test_long_lines_are_thinned_to_means() -> None:
    panel = Panel("KL", (Line("a", range(10_000), [float(i % 2) for i in range(10_000)]),), zero_to_one=True)
    spots = points(parsed(inline_svg.drawing(Chart("T", "epoch", (panel,)), "x")))
    assert len(spots) == inline_svg.MOST_POINTS
    assert len({y for _, y in spots}) == 1, "each is the mean of ten"


def test_charts_are_told_in_words_and_numbers() -> None:
    panels = (Panel("PSNR (dB)", (Line("one", [1, 2, 3], [20.0, 26.0, 23.0]), Line("two", [1, 3], [19.0, 21.0]))),)
    html = inline_svg.figure(Chart("Quality", "frame", panels), "q", "What it shows")
    figure = parsed(html)
    drawn = figure.find("svg")
    assert drawn is not None and drawn.get("role") == "img"
    assert drawn.get("aria-labelledby", "").split() == [e.get("id") for e in drawn if e.tag in ("title", "desc")]
    assert "PSNR (dB), one: 20 at frame 1, 23 at 3, between 20 and 26." in (drawn.findtext("desc") or "")
    rows = [[cell.text for cell in row] for row in figure.iter("tr")]
    assert rows == [
        ["frame", "PSNR (dB): one", "PSNR (dB): two"],
        ["1", "20", "19"],
        ["2", "26", "20"],
        ["3", "23", "21"],
    ]
    assert [item.find("svg") is not None for item in figure.iter("li")] == [True, True]


def test_panels_with_axes_of_their_own_are_drawings_of_their_own() -> None:
    panels = (
        Panel("a", (Line("", [0, 1], [0, 1]),), xlabel="frame"),
        Panel("b", (Line("", [5, 9], [0, 1]),), xlabel="rank"),
    )
    figure = parsed(inline_svg.figure(Chart("T", "x", panels), "q", ""))
    assert [(d.get("data-low"), d.get("data-high")) for d in figure.findall("svg")] == [("0", "1"), ("5", "9")]
    assert len({e.get("id") for e in figure.iter() if e.get("id")}) == 5, "ids are unique"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.3, 629, [0, 200, 400, 600][1:]), (-3, 3, [-3, -2, -1, 0, 1, 2, 3])],
)
def test_ticks_are_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert inline_svg.ticks(low, high, 6 if high != 629 else 4) == pytest.approx(ticks)


def test_everything_is_escaped() -> None:
    bad = '<script>alert("x")</script>\'&'
    chart = Chart(bad, bad, (Panel(bad, (Line(bad, [0, 1], [0, 1]), Line(bad + "2", [0, 1], [0, 1]))),))
    table = templates._environment().get_template("table.html.j2").module.table
    html = inline_svg.figure(chart, "q", bad) + table([bad], [[bad, bad]], bad)
    assert "<script" not in html and not re.search(r"&(?!(lt|gt|amp|quot|#x27|#34|#39);)", html)
    parsed(f"<div>{html}</div>")
