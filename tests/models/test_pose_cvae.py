"""``pose-cvae`` against the tensors that the course's own modules made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vidcvae.config import PoseCvaeConfig
from vidcvae.models import objectives
from vidcvae.models.interface import at, reparameterize
from vidcvae.models.layers import use_image_statistics
from vidcvae.models.pose_cvae import PoseCvae
from vidcvae.models.rollout import rollout
from vidcvae.storage.course_import import from_course_names

pytestmark = pytest.mark.golden


@pytest.fixture
def model(shared: Path) -> PoseCvae:
    model = PoseCvae(PoseCvaeConfig())
    model.load_state_dict(from_course_names(load_file(shared / "golden" / "pose_weights.safetensors")))
    return model.eval()


def test_parameter_count_is_the_course_s() -> None:
    assert sum(p.numel() for p in PoseCvae(PoseCvaeConfig()).parameters()) == 1_585_620


@pytest.mark.parametrize(
    ("golden", "latent", "batch_stats"),
    [
        ("frames_running_stats", "prior", False),
        ("frames_batch_stats", "prior", True),
        ("frames_zero_z_running_stats", "zero", False),
    ],
)
def test_rollout_equals_the_course(model: PoseCvae, shared: Path, golden: str, latent: str, batch_stats: bool) -> None:
    data = load_file(shared / "golden" / "pose_rollout.safetensors")
    if batch_stats:
        use_image_statistics(model)
    frames = rollout(
        model,
        data["first_frame"][None, None],
        data["poses"][None],
        lambda t: data["eps"][t - 1][None],
        latent=latent,
    )
    made = torch.cat([data["first_frame"][None], *frames])
    assert made.shape == data[golden].shape
    assert (made - data[golden]).abs().max() < 1e-4


def plain_loop(model: PoseCvae, data: dict[str, Tensor], ratio: float) -> tuple[dict[str, Tensor], Tensor]:
    """The course's step, one frame after the other, with reference = ratio x truth + (1 - ratio) x prediction."""
    truth, poses = data["frames"], data["poses"]
    mu, logvar, predictions, references = [], [], [], []
    last = truth[:, 0]
    for t in range(1, truth.shape[1]):
        reference = ratio * truth[:, t - 1] + (1 - ratio) * last
        pose = model.pose_encoder(poses[:, t])
        m, v = model.gaussian_predictor(torch.cat([model.frame_encoder(truth[:, t]), pose], 1)).chunk(2, 1)
        z = reparameterize(m, v, data["eps"][:, t - 1])
        last, _ = model.step((), model.frame_encoder(reference), pose, z)
        mu, logvar = [*mu, m], [*logvar, v]
        predictions, references = [*predictions, last], [*references, reference]
    prediction = torch.stack(predictions, 1)
    terms = {
        "reconstruction": objectives.reconstruction(prediction, truth[:, 1:], "mse"),
        "kl": objectives.kl_per_frame((torch.stack(mu, 1), torch.stack(logvar, 1)), None, "sum").sum(),
        "smoothing": objectives.smoothing(prediction, torch.stack(references, 1), truth[:, 1:], truth[:, :-1]),
    }
    return terms, prediction


@pytest.mark.parametrize("name", ["none", "full", "mix"])
def test_objective_and_gradient_equal_the_course(model: PoseCvae, shared: Path, name: str) -> None:
    data = load_file(shared / "golden" / "pose_clip.safetensors")
    want = json.loads((shared / "golden" / "pose_clip.json").read_text())[name]
    terms, prediction = plain_loop(model, data, want["reference_ratio"])
    assert (prediction - data[f"{name}_prediction"]).abs().max() < 1e-4
    assert terms["reconstruction"].item() == pytest.approx(want["mse_sum_over_steps"], rel=1e-4)
    assert terms["kl"].item() == pytest.approx(want["kl_sum_over_steps"], rel=1e-4)
    assert terms["smoothing"].item() == pytest.approx(want["smoothing_sum_over_steps"], rel=1e-4)
    total = objectives.total(terms, want["beta"], want["smoothing_rate"])
    assert total.item() == pytest.approx(want["total"], rel=1e-4)
    total.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert norm.item() == pytest.approx(want["grad_norm"], rel=1e-3)


def test_posterior_of_a_whole_clip_equals_the_course(model: PoseCvae, shared: Path) -> None:
    data = load_file(shared / "golden" / "pose_clip.safetensors")
    frames = model.encode_frames(data["frames"])
    condition = model.encode_condition(data["poses"][:, 1:], data["frames"])
    mu, logvar = model.posterior(at(frames, slice(1, None)), condition)
    assert (mu - data["mu"]).abs().max() < 1e-4
    assert (logvar - data["logvar"]).abs().max() < 1e-4


def test_forced_equals_the_loop(model: PoseCvae, shared: Path) -> None:
    data = load_file(shared / "golden" / "pose_clip.safetensors")
    frames = model.encode_frames(data["frames"])
    condition = model.encode_condition(data["poses"][:, 1:], data["frames"])
    z = reparameterize(data["mu"], data["logvar"], data["eps"])
    made, (p_mu, p_logvar) = model.forced((), at(frames, slice(0, -1)), condition, z)
    assert (made - data["full_prediction"]).abs().max() < 1e-4
    assert p_mu.shape == p_logvar.shape == data["mu"].shape
