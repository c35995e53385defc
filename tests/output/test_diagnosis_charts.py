"""Charts of drift and latents: the numbers of the reports, on axes that fit them."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from vidcvae.evaluation.drift import AgeTest, Drift
from vidcvae.output import figures, plots, terminal

AGE = AgeTest((4, 5), 3, 21.0, 22.5)


def _drift(lost: float = 1.0) -> Drift:
    """The gap grows by ``lost`` dB each frame."""
    frames = [1, 2, 3, 4, 5]
    return Drift(frames, [30.0 - lost * t for t in frames], [None, *[30.0] * 4], 1, AGE)


def test_the_drift_chart_draws_both_runs_and_the_line_of_their_gap() -> None:
    chart = plots.drift_chart([("a", _drift())])
    free, fresh = chart.panels[0].lines
    assert (list(free.x), list(free.y)) == ([1, 2, 3, 4, 5], [29.0, 28.0, 27.0, 26.0, 25.0])
    assert (list(fresh.x), list(fresh.y)) == ([2, 3, 4, 5], [30.0] * 4)
    gap, line = chart.panels[1].lines
    assert list(gap.y) == [2.0, 3.0, 4.0, 5.0]
    assert (list(line.x), list(line.y)) == ([2, 5], pytest.approx([2.0, 5.0]))
    assert line.label == "+100.00 dB per 100 frames"
    assert "frames 4-5 have 21.00 dB from frame 0, 22.50 dB from frame 3" in chart.title


def test_several_runs_are_told_apart() -> None:
    chart = plots.drift_chart([("a", _drift()), ("b", _drift(2.0))])
    labels = [line.label for panel in chart.panels for line in panel.lines]
    assert [label[:2] for label in labels] == ["a,", "a,", "b,", "b,"] * 2
    assert chart.title == "Drift"


def _record() -> dict[str, object]:
    return {
        "psnr_mean": 20.5,
        "psnr_per_frame": [21.0, 20.0],
        "by_latent": {"posterior": {"psnr_mean": 25.5, "psnr_per_frame": [26.0, 25.0]}},
        "protocol": {"latent": "zero", "past": 1},
        "latents": {
            **{"kl": 3.0, "active_units": 1, "dimensions": 3, "kl_ranks": [0, 1, 2]},
            "kl_per_dimension": [2.0, 0.9, 0.1],
            "variance_per_dimension": [0.5, 0.005, 0.0001],
        },
    }


def test_the_latents_chart_has_an_axis_for_frames_and_one_for_ranks() -> None:
    chart = plots.latents_chart(_record())
    zero, posterior = chart.panels[0].lines
    assert (list(zero.x), list(posterior.y)) == ([1, 2], [26.0, 25.0])
    assert posterior.label == "z posterior: mean 25.50 dB"
    assert [panel.xlabel for panel in chart.panels] == ["frame", *["dimension of z, of 3, by falling KL"] * 2]
    assert list(chart.panels[1].lines[0].x) == [1, 2, 3]
    assert chart.title == "Latent: KL 3 nats a frame, 1 of 3 units active"
    with Image.open(io.BytesIO(figures.render(chart, "png"))) as image:
        assert image.height > 600


def test_panels_with_their_own_axis_have_it_in_the_terminal_too() -> None:
    text = terminal.to_text(plots.latents_chart(_record()), 70)
    assert text.count("dimension of z, of 3, by falling KL") == 2
    floors = [line.split() for line in text.splitlines() if "dimension of z" in line or " frame " in line]
    assert [(line[0], line[-1]) for line in floors] == [("1", "2"), ("1", "3"), ("1", "3")]
