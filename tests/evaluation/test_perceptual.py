"""Frechet distance against closed forms and SciPy; LPIPS and FVD through TorchScript files of known networks."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn

from vidcvae import config as settings
from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError, UsageError
from vidcvae.evaluation.perceptual import frechet_distance, load_network, measure_perceptual
from vidcvae.models import build_model
from vidcvae.models.rollout import rollout

CONFIG = settings.resolve(
    {"model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 1}, "data": {"size": [8, 16]}}
)


def _with_moments(mean: np.ndarray, root: np.ndarray, count: int = 50) -> np.ndarray:
    """Features whose sample mean is ``mean`` and whose sample covariance is root root^T, exactly."""
    x = np.random.default_rng(0).normal(size=(count, len(mean)))
    x = x - x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    return x @ root.T + mean


def test_the_frechet_distance_of_gaussians_of_known_moments() -> None:
    one, eye = np.zeros(3), np.eye(3)
    moved = _with_moments(np.array([3.0, 0.0, 4.0]), eye)
    assert frechet_distance(_with_moments(one, eye), moved) == pytest.approx(25)
    # commuting covariances: sum of (sigma_a - sigma_b)^2
    a, b = np.diag([1.0, 2.0, 3.0]), np.diag([2.0, 2.0, 0.5])
    assert frechet_distance(_with_moments(one, a), _with_moments(one, b)) == pytest.approx(1 + 0 + 6.25)
    features = _with_moments(one, a)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_is_that_of_a_matrix_square_root() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(40, 6)) @ random.normal(size=(6, 6)), random.normal(size=(30, 6)) + 1
    cov = [np.cov(x, rowvar=False) for x in (a, b)]
    root = sqrtm(cov[0] @ cov[1]).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov[0] + cov[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    fewer = random.normal(size=(4, 9))  # fewer clips than features: covariances without an inverse
    assert np.isfinite(frechet_distance(fewer, fewer + 2)) and frechet_distance(fewer, fewer + 2) == pytest.approx(36)


class Distance(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean([1, 2, 3], keepdim=True)


class Moments(nn.Module):
    def forward(self, clip: Tensor) -> Tensor:
        assert clip.shape[1] == 3 and clip.shape[2] == 16
        return torch.stack([clip.mean([1, 2, 3, 4]), clip[:, 0].std([1, 2, 3])], dim=1)


class One(nn.Module):
    def forward(self, a: Tensor) -> Tensor:
        return a.mean()


def _script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return path


def test_lpips_and_fvd_are_those_of_the_frames_of_the_run(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    videos = [random.integers(0, 256, (n, 3, 8, 16), dtype=np.uint8) for n in (40, 20)]  # 2 clips and 1, with rests
    sequences = [Sequence(str(i), v, {"pose": v.copy()}) for i, v in enumerate(videos)]
    torch.manual_seed(0)
    model = build_model(CONFIG).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure_perceptual(
            model,
            sequences,
            CONFIG,
            [40, 20],
            lpips=_script(Distance(), tmp_path / "lpips.pt"),
            fvd=_script(Moments(), tmp_path / "fvd.pt"),
        )
    distances, features = [], ([], [])  # type: ignore[var-annotated]
    for video in videos:
        made = torch.cat(list(rollout(model, torch.from_numpy(video[None, :1]), torch.from_numpy(video)[None])))
        pair = [torch.from_numpy(video[1:]).float() / 255 * 2 - 1, made * 2 - 1]
        distances.append((pair[0] - pair[1]).abs().mean((1, 2, 3)))
        for kept, frames in zip(features, pair, strict=True):
            for begin in range(0, len(frames) - 15, 16):
                clip = frames[begin : begin + 16]
                kept.append([clip.mean().item(), clip[:, 0].std().item()])
    assert found["lpips_mean"] == pytest.approx(torch.cat(distances).mean().item(), rel=1e-5)
    assert found["fvd_clips"] == 3 == len(features[0])
    assert found["fvd"] == pytest.approx(frechet_distance(*map(np.array, features)), rel=1e-3)


def test_wrong_files_are_refused_with_what_is_wanted(tmp_path: Path) -> None:
    video = np.zeros((40, 3, 8, 16), np.uint8)
    sequence = Sequence("a", video, {"pose": video})
    model = build_model(CONFIG).eval()
    with pytest.raises(DataError, match="there is no file"):
        load_network(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    for name in ("text.pt", "state.pt"):
        with pytest.raises(DataError, match=f"{name} is not a TorchScript file"):
            load_network(tmp_path / name)
    one = _script(One(), tmp_path / "one.pt")
    with pytest.raises(DataError, match=r"one.pt fails on two batches"):
        measure_perceptual(model, [sequence], CONFIG, [40], lpips=one)
    with pytest.raises(DataError, match=r"one.pt returns \[\] for one clip, not features"):
        measure_perceptual(model, [sequence], CONFIG, [40], fvd=one)
    with pytest.raises(UsageError, match="two clips of 16 predicted frames"):
        measure_perceptual(model, [sequence], CONFIG, [30], fvd=one)


class NotFinite(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).mean([1, 2, 3]) / 0


def test_a_network_that_returns_no_numbers_is_named(tmp_path: Path) -> None:
    """JSON could not hold its score."""
    frames = np.zeros((4, 3, 8, 16), np.uint8)
    sequence, network = Sequence("0", frames, {"pose": frames}), _script(NotFinite(), tmp_path / "nan.pt")
    with pytest.raises(DataError, match=r"nan\.pt returns numbers that are not finite"):
        measure_perceptual(build_model(CONFIG).eval(), [sequence], CONFIG, [4], lpips=network)
