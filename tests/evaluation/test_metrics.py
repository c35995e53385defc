"""Metrics against closed forms and scikit-image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vidcvae.evaluation import metrics


def _pairs(dance: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Three real frames and three later ones: (3, 3, 32, 64) in 0..1."""

    def read(index: int) -> torch.Tensor:
        with Image.open(dance / "val" / "val_img" / f"{index}.png") as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255

    return torch.stack([read(i) for i in (0, 10, 20)]), torch.stack([read(i) for i in (1, 200, 600)])


def test_psnr_equals_scikit_image_for_each_frame(dance: Path) -> None:
    a, b = _pairs(dance)
    expected = [peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=1) for x, y in zip(a, b, strict=True)]
    assert metrics.psnr(a, b).tolist() == pytest.approx(expected, abs=1e-3)


def test_psnr_has_one_value_a_frame_and_its_mean_is_not_that_of_the_mean_error() -> None:
    truth = torch.zeros(2, 3, 3, 8, 8)
    guess = torch.zeros(2, 3, 3, 8, 8)
    guess[0] = 0.1  # 20 dB
    guess[1] = 0.001  # 60 dB
    assert metrics.psnr(guess, truth) == pytest.approx(torch.tensor([[20.0] * 3, [60.0] * 3]), abs=1e-3)
    assert metrics.psnr(guess, truth).mean().item() == pytest.approx(40, abs=1e-3)
    assert -10 * math.log10(metrics.mse(guess, truth).mean().item()) < 24


def test_identical_frames_score_100_decibels() -> None:
    frame = torch.rand(3, 8, 8)
    assert metrics.psnr(frame, frame).item() == pytest.approx(100)


def test_per_channel_psnr_is_the_mean_of_three(dance: Path) -> None:
    truth, guess = torch.zeros(3, 8, 8), torch.tensor([0.1, 0.01, 0.001])[:, None, None].expand(3, 8, 8)
    assert metrics.psnrs(guess, truth)[1].item() == pytest.approx((20 + 40 + 60) / 3, abs=1e-3)
    a, b = _pairs(dance)
    expected = [
        np.mean([peak_signal_noise_ratio(x[c].numpy(), y[c].numpy(), data_range=1) for c in range(3)])
        for x, y in zip(a, b, strict=True)
    ]
    assert metrics.psnrs(a, b)[1].tolist() == pytest.approx(expected, abs=1e-3)


def test_both_psnrs_are_of_each_frame_alone(dance: Path) -> None:
    a, b = _pairs(dance)
    per_frame, per_channel = metrics.psnrs(a, b)
    assert torch.allclose(per_frame, metrics.psnr(a, b)) and per_frame.shape == per_channel.shape == (3,)
    assert per_frame.std() > 1


def test_temporal_difference_error_by_hand() -> None:
    """Half of the first frame changes by 0.3 less and 0.3 more than the truth in two channels; the second freezes."""
    before, truth_before = torch.full((2, 3, 4, 4), 0.9), torch.full((2, 3, 4, 4), 0.2)
    truth = truth_before + 0.1
    guess = before + 0.1
    guess[0, 1, :2] -= 0.3
    guess[0, 2, 2:] += 0.3
    guess[1] = before[1]
    found = metrics.temporal_difference_error(guess, before, truth, truth_before)
    assert found.tolist() == pytest.approx([0.3 / 3, 0.1], abs=1e-6)


@pytest.mark.parametrize(("height", "width", "windows"), [(8, 16, (7, 11)), (9, 10, (9, 9)), (12, 11, (11, 11))])
def test_a_small_frame_takes_the_largest_odd_window_that_fits(
    height: int, width: int, windows: tuple[int, int]
) -> None:
    """Against the formula with SciPy's convolutions over full windows."""
    random = np.random.default_rng(0)
    a, b = random.random((2, height, width))
    rows, columns = (np.exp(-0.5 * ((np.arange(n) - n // 2) / 1.5) ** 2) for n in windows)
    window = np.outer(rows / rows.sum(), columns / columns.sum())

    def mean(x: np.ndarray) -> np.ndarray:
        return convolve2d(x, window, mode="valid")

    var_a, var_b, cov = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2, mean(a * b) - mean(a) * mean(b)
    luminance = (2 * mean(a) * mean(b) + 0.01**2) / (mean(a) ** 2 + mean(b) ** 2 + 0.01**2)
    want = (luminance * (2 * cov + 0.03**2) / (var_a + var_b + 0.03**2)).mean()
    found = metrics.ssim(*(torch.from_numpy(x).float().expand(3, -1, -1) for x in (a, b)))
    assert found.item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("flat", [False, True])
def test_ssim_equals_scikit_image(dance: Path, flat: bool) -> None:
    a, b = _pairs(dance)
    if flat:  # no variance at all, where rounding shows most
        a, b = torch.full_like(a, 0.7), torch.full_like(b, 0.7003)
    expected = [
        structural_similarity(
            x.double().numpy(),
            y.double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=0,
        )
        for x, y in zip(a, b, strict=True)
    ]
    assert metrics.ssim(a, b).tolist() == pytest.approx(expected, abs=1e-5)


def test_ssim_keeps_leading_axes_and_broadcasts_them() -> None:
    a, b = torch.rand(2, 5, 3, 16, 24), torch.rand(1, 5, 3, 16, 24)
    got = metrics.ssim(a, b)
    assert got.shape == (2, 5)
    assert got[1, 3].item() == pytest.approx(metrics.ssim(a[1, 3], b[0, 3]).item(), abs=1e-6)
    assert metrics.ssim(a, a).flatten().tolist() == pytest.approx([1.0] * 10)


def test_ssim_of_frames_smaller_than_the_window() -> None:
    assert metrics.ssim(torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.2)).item() == pytest.approx(1)
    # flat images have no variance, so only the luminance term is left
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert metrics.ssim(torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.6)).item() == pytest.approx(expected)


def test_temporal_difference_sees_flicker_but_not_a_constant_offset() -> None:
    before, after = torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.3)
    brighter = metrics.temporal_difference_error(after + 0.1, before + 0.1, after, before)
    assert brighter.item() == pytest.approx(0, abs=1e-6)
    assert metrics.temporal_difference_error(before, before, after, before).item() == pytest.approx(0.1)
