"""[loss] and [kl]: what the objective is made of, on a model whose every number is known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from vidcvae.data.clips import Sequence, VideoData

from .conftest import SIZE, Known, Train, config, dataset

GREYS = np.array([204, 51, 102, 153])  # 0.8, 0.2, 0.4 and 0.6
TRUTH = GREYS / 255


def even(greys: np.ndarray = GREYS) -> VideoData:
    """One clip whose frames are of one grey each."""
    frames = np.broadcast_to(greys[:, None, None, None], (len(greys), 3, *SIZE)).astype(np.uint8)
    data = dataset(4)
    return VideoData(
        data.name, data.kind, data.fps, data.source, {"train": (Sequence("even", frames, {"pose": frames}),)}
    )


def first_step(train: Train, model: Known, data: VideoData | None = None, **sections: dict[str, object]):  # type: ignore[no-untyped-def]
    """The first step on the one clip, its predictions being the model's own from frame to frame."""
    training = {"epochs": 1, "batch_size": 1, "clip_length": 4}
    return train(config(training=training, **sections), data or even(), model).steps[0]


OWN = 0.8 * 0.5 ** np.arange(1, 4)  # what gain 0.5 makes of the first frame: 0.4, 0.2, 0.1
ERRORS = OWN - TRUTH[1:]  # 0.2, -0.2, -0.5


@pytest.mark.setting("loss.reconstruction")
@pytest.mark.parametrize(
    ("kind", "per_frame"),
    [
        ("mse", [0.04, 0.04, 0.25]),
        ("l1+mse", [(0.2 + 0.04) / 2, (0.2 + 0.04) / 2, (0.5 + 0.25) / 2]),
        ("log-mse", [math.log(0.0401), math.log(0.0401), math.log(0.2501)]),  # a floor of 0.0001: 40 dB
    ],
)
def test_reconstruction_by_hand(train: Train, kind: str, per_frame: list[float]) -> None:
    """Summed over the three predicted frames."""
    assert np.allclose(ERRORS, [0.2, -0.2, -0.5])
    step = first_step(train, Known(0.5), loss={"reconstruction": kind, "smoothing": 0})
    assert float(step.terms["reconstruction"]) == pytest.approx(sum(per_frame), rel=1e-5)


@pytest.mark.setting("loss.motion")
def test_pixels_that_move_weigh_more(train: Train) -> None:
    """Half of the picture is still; the other half changes by 0.6, by 0.2 and, which counts for nothing, by 0.04."""
    greys = np.array([204, 51, 102, 112])
    data = even(greys)
    frames = data.split("train")[0].frames.copy()
    frames[:, :, :, :8] = 204
    data = VideoData("half", "dance", 25, data.source, {"train": (Sequence("half", frames, {"pose": frames}),)})
    still = ((OWN - 0.8) ** 2).tolist()
    moving = ((OWN - greys[1:] / 255) ** 2).tolist()
    for motion, weights in ((0.0, (1, 1, 1)), (3.0, (4, 4, 1))):
        step = first_step(train, Known(0.5), data, loss={"motion": motion, "smoothing": 0})
        want = sum((a + weight * b) / 2 for a, b, weight in zip(still, moving, weights, strict=True))
        assert float(step.terms["reconstruction"]) == pytest.approx(want, rel=1e-5)


@pytest.mark.setting("loss.smoothing")
@pytest.mark.parametrize("rate", [0.0, 0.3, 2.0])
def test_the_smoothing_term_weighs_the_step_taken_against_the_true_one(train: Train, rate: float) -> None:
    """prediction - reference, the reference being the frame the model saw, against x_t - x_{t-1}."""
    step = first_step(train, Known(0.5), loss={"smoothing": rate}, kl={"type": "none", "stop": 0.25})
    taken = np.diff([0.8, *OWN])
    true = np.diff(TRUTH)
    smoothing = float(((taken - true) ** 2).sum())
    total = 0.33 + rate * smoothing  # the KL is 0
    assert float(step.terms["total"]) == pytest.approx(total, rel=1e-5)
    if rate:
        assert float(step.terms["smoothing"]) == pytest.approx(smoothing, rel=1e-5)


# --- [kl] ------------------------------------------------------------------------------------------

MU, LOGVAR = 0.5, math.log(0.25)
ONE = 0.5 * (0.25 + 0.25 - 1 - LOGVAR)  # nats of N(0.5, 0.25) from N(0, 1)
PIXELS = 8 * 16


@pytest.mark.setting("kl.reduction")
@pytest.mark.parametrize(("reduction", "per_frame"), [("sum", PIXELS * ONE), ("mean", ONE)])
def test_the_kl_is_summed_over_the_latent_or_averaged(train: Train, reduction: str, per_frame: float) -> None:
    kl = {"reduction": reduction, "type": "none", "stop": 0.25}
    step = first_step(train, Known(0.5, 0, MU, LOGVAR), kl=kl, loss={"smoothing": 0})
    assert float(step.terms["kl"]) == pytest.approx(3 * per_frame, rel=1e-5)
    assert float(step.terms["total"]) == pytest.approx(0.33 + 0.25 * 3 * per_frame, rel=1e-5)


@pytest.mark.setting("kl.free_bits")
@pytest.mark.parametrize(("free", "charged"), [(0.0, PIXELS * ONE), (20.0, PIXELS * ONE), (60.0, 60.0)])
def test_free_bits_cost_nothing_and_pull_at_nothing(train: Train, free: float, charged: float) -> None:
    assert abs(PIXELS * ONE - 56.7) < 0.1
    kl = {"free_bits": free, "type": "none", "stop": 0.25}
    step = first_step(train, Known(0.5, 0, MU, LOGVAR), kl=kl, loss={"smoothing": 0}, optimizer={"gradient_clip": 0})
    assert float(step.terms["kl"]) == pytest.approx(3 * PIXELS * ONE, rel=1e-5), "what is told is the KL itself"
    assert float(step.terms["total"]) == pytest.approx(0.33 + 0.25 * 3 * charged, rel=1e-5)
    pull = 0.25 * 3 * PIXELS * MU  # d KL / d mu = mu
    assert float(step.gradients["mu"]) == pytest.approx(0 if charged == 60 else pull, rel=1e-5)


def betas(train: Train, epochs: int, **kl: object) -> list[float]:
    """Of every step, two an epoch, as it was charged."""
    found = train(config(kl=kl, training={"epochs": epochs}), dataset(16), Known(0.5, 0, MU, LOGVAR))
    for step in found.steps:
        parts = step.terms["reconstruction"] + 0.3 * step.terms["smoothing"]
        assert float((step.terms["total"] - parts) / step.terms["kl"]) == pytest.approx(step.weights.beta, rel=1e-4)
    return found.curve("beta")


def twice(*values: float) -> list[float]:
    return [value for value in values for _ in range(2)]


@pytest.mark.setting("kl.type", "kl.start", "kl.stop")
def test_beta_climbs_in_every_cycle_once_or_not_at_all(train: Train) -> None:
    ends = {"start": 0.2, "stop": 0.6, "cycles": 2, "ratio": 0.5}
    cycle = twice(0.2, 0.4, 0.6, 0.6)  # an epoch is a quarter of a cycle, and half of its climb
    assert betas(train, 8, type="cyclical", **ends) == pytest.approx(cycle + cycle)
    once = twice(0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6)
    assert betas(train, 8, type="monotonic", **ends) == pytest.approx(once)
    assert betas(train, 8, type="none", **ends) == pytest.approx([0.6] * 16)


@pytest.mark.setting("kl.cycles", "kl.ratio")
def test_cycles_share_the_epochs_and_the_ratio_is_the_climb_s_share(train: Train) -> None:
    ends = {"type": "cyclical", "start": 0.0, "stop": 1.0}
    assert betas(train, 6, cycles=3, ratio=0.5, **ends) == pytest.approx(twice(0, 1, 0, 1, 0, 1))
    assert betas(train, 6, cycles=1, ratio=1.0, **ends) == pytest.approx(twice(*(i / 6 for i in range(6))))
    assert betas(train, 6, cycles=2, ratio=1 / 3, **ends) == pytest.approx(twice(0, 1, 1, 0, 1, 1))
    assert betas(train, 5, cycles=2, ratio=1.0, **ends) == pytest.approx(twice(0, 1 / 3, 2 / 3, 0, 1 / 3)), "ceil(5/2)"


@pytest.mark.setting("kl.per")
def test_beta_moves_once_an_epoch_or_every_iteration(train: Train) -> None:
    kl = {"type": "monotonic", "start": 0.0, "stop": 1.0, "ratio": 1.0}
    assert betas(train, 4, per="epoch", **kl) == pytest.approx(twice(0, 1 / 4, 2 / 4, 3 / 4))
    each = betas(train, 4, per="iteration", **kl)
    assert each == pytest.approx([i / 8 for i in range(8)])
    assert all(b > a for a, b in pairwise(each))
