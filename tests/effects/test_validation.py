"""[validation] and [checkpoint]: when a model is scored and saved, by what it is chosen, and what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from vidcvae.storage import checkpoint
from vidcvae.training import loop

from .conftest import Known, Train, config, dataset, video


@pytest.mark.setting("validation.every")
@pytest.mark.parametrize(("every", "scored"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (3, [2, 4]), (9, [4])])
def test_the_model_is_scored_after_so_many_epochs_and_at_the_end(train: Train, every: int, scored: list[int]) -> None:
    found = train(config(validation={"every": every}, training={"epochs": 5}), dataset(16), Known())
    assert [event["epoch"] for event in found.of_kind("validation")] == scored


@pytest.mark.setting("validation.frames")
@pytest.mark.parametrize(("frames", "length"), [(0, 7), (4, 4), (9, 7)])
def test_the_free_run_has_so_many_frames(train: Train, frames: int, length: int) -> None:
    """Against a run written out: with gain 0.5 each frame is half of the one before."""
    chosen = config(validation={"every": 1, "frames": frames}, training={"epochs": 1}, optimizer={"lr": 1e-12})
    (event,) = train(chosen, dataset(16, val=7), Known(0.5)).of_kind("validation")
    truth = video("v", 7, 9).frames / 255
    run = [truth[0] * 0.5**t for t in range(7)]
    psnrs = [peak_signal_noise_ratio(truth[t], run[t], data_range=1) for t in range(1, length)]
    assert event["psnr_zero_per_frame"] == pytest.approx(psnrs, abs=1e-3)
    assert event["psnr_zero"] == pytest.approx(np.mean(psnrs), abs=1e-3)


@pytest.mark.setting("validation.metric")
@pytest.mark.parametrize(("metric", "best"), [("psnr_zero", 2), ("psnr_prior", 4), ("ssim_zero", 6), ("ssim_prior", 8)])
def test_the_best_is_the_highest_by_the_metric(
    train: Train, monkeypatch: pytest.MonkeyPatch, metric: str, best: int
) -> None:
    """Scores that each have their peak in another epoch of two steps."""
    planned = {
        "psnr_zero": [9.0, 8.0, 7.0, 6.0],
        "psnr_prior": [5.0, 6.0, 5.5, 5.9],
        "ssim_zero": [0.1, 0.2, 0.4, 0.3],
        "ssim_prior": [0.1, 0.2, 0.3, 0.4],
    }
    epochs = iter(range(4))

    scored = loop.validation.scores

    def scores(*given: Any) -> dict[str, Any]:
        epoch = next(epochs)
        return scored(*given) | {name: values[epoch] for name, values in planned.items()}

    monkeypatch.setattr(loop.validation, "scores", scores)
    chosen = config(validation={"every": 1, "metric": metric, "frames": 2}, training={"epochs": 4})
    found = train(chosen, dataset(16), Known())
    saved = checkpoint.read(found.run.checkpoints / checkpoint.BEST).meta
    assert saved.step == best
    assert {name: saved.scores[name] for name in planned} == {
        name: values[best // 2 - 1] for name, values in planned.items()
    }


def saved(train: Train, epochs: int, **settings: int) -> tuple[list[int], list[str]]:
    """The steps after which something was saved, of two an epoch, and the files that are there at the end."""
    found = train(config(checkpoint=settings, training={"epochs": epochs}), dataset(16), Known())
    return [event["step"] for event in found.of_kind("checkpoint")], sorted(
        path.name for path in found.run.checkpoints.iterdir()
    )


@pytest.mark.setting("checkpoint.every", "checkpoint.every_steps")
def test_checkpoints_come_after_so_many_epochs_or_steps_and_at_the_end(train: Train) -> None:
    assert saved(train, 4, every=1)[0] == [2, 4, 6, 8]
    assert saved(train, 5, every=2)[0] == [4, 8, 10]
    assert saved(train, 4, every=9, every_steps=3)[0] == [3, 6, 8]
    assert saved(train, 3, every=1, every_steps=2)[0] == [2, 4, 6], "once where both are due"


@pytest.mark.setting("checkpoint.keep")
@pytest.mark.parametrize(("keep", "kept"), [(0, []), (1, [8]), (3, [4, 6, 8]), (9, [2, 4, 6, 8])])
def test_so_many_of_the_newest_stay_beside_the_last(train: Train, keep: int, kept: list[int]) -> None:
    files = saved(train, 4, every=1, keep=keep)[1]
    assert files == ["last.safetensors", *(f"step-{step:08d}.safetensors" for step in kept)]
