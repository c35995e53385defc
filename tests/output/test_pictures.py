"""Panels and strips keep every pixel of the frames they show."""

from __future__ import annotations

import numpy as np
import pytest

from vidcvae.output import pictures


def _frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 32, 64), dtype=np.uint8)


def test_a_panel_shows_each_frame_enlarged_under_its_title() -> None:
    a, b = _frame(0), _frame(1)
    panel = pictures.panel([a, b], ["truth", "generated"])
    assert panel.shape == (3, pictures.BAR + 4 * 32, 2 * 4 * 64 + pictures.GAP)  # 32 high becomes 128
    body = panel[:, pictures.BAR :]
    assert np.array_equal(body[:, 1::4, 2:256:4], a)
    assert np.array_equal(body[:, ::4, 256 + pictures.GAP :: 4], b)
    bars = panel[:, : pictures.BAR, :256], panel[:, : pictures.BAR, 256 + pictures.GAP :]
    assert all(bar.min() < 100 for bar in bars)  # there is ink
    assert not np.array_equal(*bars)


def test_a_pose_is_laid_over_a_frame_by_its_lines_alone() -> None:
    pose = np.full((3, 32, 64), 255, np.uint8)
    pose[:, 4, 5] = (0, 255, 30)
    laid = pictures.laid_over(_frame(0), pose)
    assert laid[:, 4, 5].tolist() == [0, 255, 30]
    laid[:, 4, 5] = _frame(0)[:, 4, 5]
    np.testing.assert_array_equal(laid, _frame(0))


def test_a_long_title_is_cut_within_its_column() -> None:
    panel = pictures.panel([_frame(0)] * 2, ["x" * 200, ""], scale=1)
    assert panel[:, : pictures.BAR, 64:].min() == pictures.PAPER[0]


def test_columns_and_titles_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        pictures.panel([_frame(0)] * 2, ["only one"])


def test_a_strip_has_a_row_for_each_title_and_a_column_for_each_time() -> None:
    rows = [[_frame(i) for i in range(3)], [_frame(i) for i in range(3, 6)]]
    strip = pictures.strip(rows, ["truth", "pose"], [0, 10, 20], scale=2)
    gap = pictures.GAP
    assert strip.shape == (3, pictures.BAR + 2 * (64 + gap), pictures.MARGIN + 3 * (128 + gap))
    top, left = pictures.BAR + gap + 64 + gap, pictures.MARGIN + gap + 2 * (128 + gap)
    assert np.array_equal(strip[:, top : top + 64 : 2, left : left + 128 : 2], rows[1][2])
