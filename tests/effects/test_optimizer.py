"""[optimizer] and [lr_schedule]: every update against Adam written out in NumPy (Kingma & Ba 2015, algorithm 1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from .conftest import Known, Train, Trained, config, dataset

BASE = {"name": "adam", "lr": 0.02, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "gradient_clip": 0.0}


def model() -> Known:
    return Known(0.5, 0.1, 0.5, -1.0)


def trained(train: Train, epochs: int = 3, **sections: dict[str, Any]) -> Trained:
    """Two steps an epoch."""
    return train(config(training={"epochs": epochs}, **sections), dataset(16), model())


def adam(found: Trained, settings: dict[str, Any], rates: list[float]) -> None:
    """The parameters after every step follow from its gradients; AdamW as in Loshchilov & Hutter 2019, algorithm 2."""
    b1, b2, decay = settings["beta1"], settings["beta2"], settings["weight_decay"]
    names = [name for name, _ in model().named_parameters()]
    value = {name: p.item() for name, p in model().named_parameters()}
    m, v = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    assert len(found.steps) == len(rates)
    for t, (step, lr) in enumerate(zip(found.steps, rates, strict=True), start=1):
        for name in names:
            gradient = step.gradients[name].item()
            if settings["name"] == "adam":
                gradient += decay * value[name]
            else:
                value[name] -= lr * decay * value[name]
            m[name] = b1 * m[name] + (1 - b1) * gradient
            v[name] = b2 * v[name] + (1 - b2) * gradient**2
            value[name] -= lr * (m[name] / (1 - b1**t)) / (math.sqrt(v[name] / (1 - b2**t)) + 1e-8)
            assert step.after[name].item() == pytest.approx(value[name], abs=2e-6), (t, name)


@pytest.mark.setting("optimizer.name", "optimizer.lr", "optimizer.beta1", "optimizer.beta2", "optimizer.weight_decay")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"lr": 0.005},
        {"beta1": 0.5},
        {"beta2": 0.7},
        {"weight_decay": 0.4},
        {"name": "adamw"},
        {"name": "adamw", "weight_decay": 0.4},
    ],
)
def test_updates_are_adam_s(train: Train, change: dict[str, Any]) -> None:
    settings = BASE | change
    adam(trained(train, optimizer=settings), settings, [settings["lr"]] * 6)


@pytest.mark.setting("optimizer.gradient_clip")
@pytest.mark.parametrize("limit", [0.0, 1.0, 0.25])
def test_gradients_are_cut_to_their_largest_norm(train: Train, limit: float) -> None:
    """The same direction; what is told is the norm before."""
    free = trained(train, optimizer=BASE | {"gradient_clip": 0}).steps[0]
    cut = trained(train, optimizer=BASE | {"gradient_clip": limit}).steps[0]
    before = np.array([free.gradients[name].item() for name in free.gradients])
    after = np.array([cut.gradients[name].item() for name in free.gradients])
    norm = float(np.sqrt((before**2).sum()))
    assert norm > 2
    assert float(cut.terms["grad_norm"]) == pytest.approx(norm, rel=1e-5)
    assert after == pytest.approx(before * (limit / norm if limit else 1), rel=1e-4)


def rates(train: Train, epochs: int, lr: float = 0.1, **schedule: Any) -> list[float]:
    """The rate of every step, as it is told and as it moved the parameters."""
    settings = BASE | {"lr": lr}
    found = trained(train, epochs, optimizer=settings, lr_schedule=schedule)
    told = found.curve("lr")
    adam(found, settings, told)
    return told


@pytest.mark.setting("lr_schedule.type", "lr_schedule.milestones", "lr_schedule.factor", "lr_schedule.final")
def test_rates_stand_fall_in_steps_or_follow_a_cosine(train: Train) -> None:
    assert rates(train, 3, type="constant") == pytest.approx([0.1] * 6)
    stairs = rates(train, 4, type="multistep", milestones=[1, 3], factor=0.5)
    assert stairs == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025])
    assert rates(train, 2, type="multistep", milestones=[1], factor=0.1) == pytest.approx([0.1, 0.1, 0.01, 0.01])
    cosine = rates(train, 3, type="cosine", final=0.02)
    assert cosine == pytest.approx([0.02 + 0.08 * (1 + math.cos(math.pi * i / 5)) / 2 for i in range(6)])
    assert (cosine[0], cosine[-1]) == (pytest.approx(0.1), pytest.approx(0.02))


@pytest.mark.setting("lr_schedule.warmup")
def test_rates_climb_from_0_in_the_first_steps(train: Train) -> None:
    assert rates(train, 3, type="constant", warmup=4) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert rates(train, 2, type="constant", warmup=0) == pytest.approx([0.1] * 4)
