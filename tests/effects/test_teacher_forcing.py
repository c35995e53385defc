"""[teacher_forcing]: how often, and in what share, the model sees the truth in place of its own last frame."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from .conftest import Known, Train, Trained, config, dataset
from .test_loss import ERRORS, TRUTH, even


def masks(found: Trained) -> list[Tensor]:
    """Of every step (B, T - 2): each predicted frame's share of the truth, but for the first, which is always given."""
    assert all((step.draws.mask[:, 0] == 1).all() for step in found.steps)
    return [step.draws.mask[:, 1:] for step in found.steps]


@pytest.mark.setting("teacher_forcing.ratio")
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_the_ratio_is_the_probability_of_the_truth(train: Train, ratio: float) -> None:
    """Of 800 coins; and with the truth the errors are those of steps from true frames."""
    forcing = {"ratio": ratio, "draw": "frame", "decay_start": 1000}
    training = {"batch_size": 10, "clip_length": 10, "steps_per_epoch": 5, "log_every": 5}
    found = train(config(teacher_forcing=forcing, training=training), dataset(16), Known())
    told = found.curve("forced")
    assert np.mean([mask.mean() for mask in masks(found)]) == pytest.approx(ratio, abs=0.05)
    assert np.mean(told) == pytest.approx(ratio, abs=0.05)

    training = {"epochs": 1, "batch_size": 1, "clip_length": 4}
    (step,) = train(config(teacher_forcing=forcing, training=training, loss={"smoothing": 0}), even(), Known(0.5)).steps
    forced = 0.5 * TRUTH[:-1] - TRUTH[1:]
    if ratio in (0, 1):
        errors = forced if ratio else ERRORS
        assert float(step.terms["reconstruction"]) == pytest.approx((errors**2).sum(), rel=1e-5)


@pytest.mark.setting("teacher_forcing.decay_start", "teacher_forcing.decay_step", "teacher_forcing.floor")
@pytest.mark.parametrize(
    ("forcing", "ratios"),
    [
        ({"decay_start": 2, "decay_step": 0.3}, [0.9, 0.9, 0.6, 0.3, 0, 0]),
        ({"decay_start": 0, "decay_step": 0.3}, [0.6, 0.3, 0, 0, 0, 0]),
        ({"decay_start": 1, "decay_step": 0.2, "floor": 0.4}, [0.9, 0.7, 0.5, 0.4, 0.4, 0.4]),
    ],
)
def test_the_ratio_falls_each_epoch_down_to_its_floor(
    train: Train, forcing: dict[str, object], ratios: list[float]
) -> None:
    """The first epoch in which it falls is ``decay_start``, counted from 0; two steps an epoch."""
    found = train(config(teacher_forcing={"ratio": 0.9, **forcing}, training={"epochs": 6}), dataset(16), Known())
    assert found.curve("teacher_forcing") == pytest.approx([r for r in ratios for _ in range(2)])


@pytest.mark.setting("teacher_forcing.draw")
def test_a_coin_is_thrown_for_each_epoch_batch_clip_or_frame(train: Train) -> None:
    """12 epochs of 2 batches of 3 clips with 4 frames that may be forced."""

    def drawn(draw: str) -> np.ndarray:
        forcing = {"ratio": 0.5, "draw": draw, "decay_start": 1000}
        training = {"epochs": 12, "steps_per_epoch": 2, "batch_size": 3, "clip_length": 6, "log_every": 1000}
        found = train(config(teacher_forcing=forcing, training=training), dataset(16), Known())
        return np.stack(masks(found)).reshape(12, 2, 3, 4)

    throws = {"epoch": 12, "batch": 12 * 2, "clip": 12 * 2 * 3, "frame": 12 * 2 * 3 * 4}
    shared = {"epoch": (1, 2, 3), "batch": (2, 3), "clip": (3,), "frame": ()}  # the axes that one coin decides for
    found = {draw: drawn(draw) for draw in throws}
    for draw, mask in found.items():
        assert set(np.unique(mask)) == {0, 1}
        assert (mask.max(shared[draw]) == mask.min(shared[draw])).all()
        assert abs(mask.mean() - 0.5) < 2.5 * 0.5 / throws[draw] ** 0.5
    for draw, finer in (("epoch", "batch"), ("batch", "clip"), ("clip", "frame")):
        assert (found[finer].max(shared[draw]) != found[finer].min(shared[draw])).any()


@pytest.mark.setting("teacher_forcing.reference")
@pytest.mark.parametrize(("reference", "share"), [("truth", 1.0), ("mix", 0.75)])
def test_forced_is_the_truth_or_a_mix_with_the_prediction(train: Train, reference: str, share: float) -> None:
    """A coin of 0.75 that falls on forcing: share x truth + (1 - share) x own, from frame to frame."""
    forcing = {"ratio": 0.75, "reference": reference, "draw": "clip", "decay_start": 1000}
    training = {"epochs": 8, "batch_size": 1, "clip_length": 4}
    found = train(
        config(teacher_forcing=forcing, training=training, optimizer={"lr": 1e-12}, loss={"smoothing": 1.0}),
        even(),
        Known(0.5),
    )
    seen = set()
    for step in found.steps:
        forced = bool(step.draws.mask[0, 1] > 0)
        seen.add(forced)
        own, references, predictions = TRUTH[0], [], []
        for t in range(3):
            part = 1.0 if t == 0 else share if forced else 0.0
            references.append(part * TRUTH[t] + (1 - part) * own)
            own = 0.5 * references[-1]
            predictions.append(own)
        errors = np.array(predictions) - TRUTH[1:]
        steps = np.array(predictions) - np.array(references) - np.diff(TRUTH)
        assert float(step.terms["reconstruction"]) == pytest.approx((errors**2).sum(), rel=1e-4)
        assert float(step.terms["smoothing"]) == pytest.approx((steps**2).sum(), rel=1e-4)
    assert seen == {False, True}
