"""How a training ends: within an epoch, during its last validation, or because a value is not finite."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import vidcvae
from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import ClipBatch, VideoData
from vidcvae.errors import NonFiniteError, Stopped, UsageError
from vidcvae.storage import checkpoint
from vidcvae.storage.history import read_history
from vidcvae.training import failures, loop, pace
from vidcvae.training.distributed import ALONE
from vidcvae.training.engine import Engine
from vidcvae.training.loop import train
from vidcvae.training.step import Draws
from vidcvae.workflow import at_glance

from .conftest import tiny_config
from .test_loop import KillAt, last, new_run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the training; ``passes`` lets each step take 20 seconds."""
    clock = SimpleNamespace(now=0.0)

    def passes(event: dict[str, Any]) -> None:
        clock.now += 20 * (event["kind"] == "progress")

    clock.passes = passes
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


FOUR_STEPS = {"epochs": 9, "max_minutes": 1.2}  # an epoch of three, and one of the next


@pytest.mark.parametrize("by_signal", [False, True])
def test_a_checkpoint_at_the_step_at_which_the_time_runs_out_is_not_the_end(
    tmp_path: Path, squares: VideoData, clock: SimpleNamespace, by_signal: bool
) -> None:
    every = {} if by_signal else {"every_steps": 4}
    config = tiny_config(training=FOUR_STEPS, validation={"every": 9}, checkpoint={"every": 9, **every})
    run = new_run(tmp_path / "run", config)
    saved: list[int] = []

    def report(event: dict[str, Any]) -> None:
        clock.passes(event)
        if event["kind"] == "checkpoint":
            saved.append(event["step"])
        if by_signal and event["kind"] == "progress" and event["step"] == 4:
            os.kill(os.getpid(), signal.SIGUSR1)

    outcome = train(run, config, squares, report=report)
    assert outcome.steps == 4 and saved == [4, 4]
    assert [line["kind"] for line in read_history(run.history)] == ["step", "epoch", "step", "epoch", "validation"]
    assert outcome.scores and checkpoint.read(run.checkpoints / checkpoint.BEST).meta.step == 4
    assert at_glance.overview(run).state == "finished"


def test_a_last_validation_that_was_stopped_is_made_when_the_run_is_resumed(
    tmp_path: Path, squares: VideoData, clock: SimpleNamespace
) -> None:
    """The time is used up by then, and the validation takes nothing of it."""
    config = tiny_config(training=FOUR_STEPS, validation={"every": 9})
    run, stop = new_run(tmp_path / "run", config), KillAt("validating", 2)

    def report(event: dict[str, Any]) -> None:
        clock.passes(event)
        stop(event)

    with pytest.raises(Stopped) as stopped:
        train(run, config, squares, report=report)
    assert "vidcvae resume" in stopped.value.hint and last(run).meta.step == 4
    assert at_glance.overview(run).state == "resumable"
    with pytest.raises(UsageError, match=r"has used its 1\.2 minutes, so more epochs alone do not extend it"):
        vidcvae.resume(run.path, squares, more_epochs=1)
    assert vidcvae.resume(run.path, squares)
    assert [line["kind"] for line in read_history(run.history)] == ["step", "epoch", "step", "epoch", "validation"]
    assert checkpoint.read(run.checkpoints / checkpoint.BEST).meta.step == last(run).meta.step == 4
    assert at_glance.overview(run).state == "finished"
    assert vidcvae.resume(run.path, squares) is None, "which has nothing left to do"


# --- not finite ------------------------------------------------------------------------------------


class Deferred(Engine):
    """What an engine does on a GPU, with a NaN in the step ``broken_step``."""

    broken_step = 0
    batches: list[ClipBatch]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, deferred=True)
        self.batches.clear()

    def step(self, batch: ClipBatch, draws: Draws, *others: Any) -> tuple[dict[str, Tensor], Tensor]:
        self.batches.append(batch)
        if self.state.progress.step == self.broken_step:
            draws.eps[:] = torch.nan
        return super().step(batch, draws, *others)


@pytest.mark.parametrize("validated_every", [0, 1])
def test_a_nan_that_a_gpu_tells_of_late_is_told_before_the_epoch_is_logged(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch, validated_every: int
) -> None:
    engine = type("Late", (Deferred,), {"broken_step": 4, "batches": []})
    monkeypatch.setattr(loop, "Engine", engine)
    config = tiny_config(training={"log_every": 1000}, validation={"every": validated_every})
    run = new_run(tmp_path / "run", config)
    with pytest.raises(NonFiniteError, match="the reconstruction became nan at step 4; no weight was updated"):
        train(run, config, squares)
    kinds = ["epoch", "validation"][: 1 + validated_every]
    assert [line["kind"] for line in read_history(run.history)] == kinds, "of the epoch before"


def test_the_batch_that_is_described_began_where_the_step_did(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With replay, frame 0 of some clips is a frame that the model made."""
    engine = type("Late", (Deferred,), {"broken_step": 7, "batches": []})
    monkeypatch.setattr(loop, "Engine", engine)
    described: list[ClipBatch] = []
    monkeypatch.setattr(
        failures, "losses_of", lambda _, batch, *__: described.append(batch) or {"losses": {}, "alone": [{}, {}]}
    )
    config = tiny_config(
        training={"log_every": 9, "replay": 1.0, "steps_per_epoch": 9, "clip_length": 2}, validation={"every": 0}
    )
    with pytest.raises(NonFiniteError, match="at step 7"):
        train(new_run(tmp_path / "run", config), config, squares)
    wanted, (found,) = engine.batches[7], described
    assert wanted.start is not None and found.start is not None
    assert not torch.equal(wanted.start, wanted.frames[:, 0])
    assert torch.equal(found.start, wanted.start) and torch.equal(found.frames, wanted.frames)


BF16 = "--set training.precision=float32"
BETA = "a higher first beta (--set kl.start=0.01)"


@pytest.mark.parametrize(
    ("sections", "others"),
    [
        ({"kl": {"start": 0.0}}, [BETA]),
        ({"kl": {"start": 0.0}, "training": {"precision": "bf16"}}, [BETA, BF16]),
        ({"kl": {"start": 0.0, "stop": 1e-4}}, []),  # 0.01 is more than this beta may ever be
        ({"kl": {"type": "none", "stop": 1e-4}, "training": {"precision": "bf16"}}, [BF16]),
        ({}, []),
    ],
)
def test_the_remedies_for_a_nan_change_something(
    tmp_path: Path,
    squares: VideoData,
    monkeypatch: pytest.MonkeyPatch,
    sections: dict[str, dict[str, Any]],
    others: list[str],
) -> None:
    """In the first step of a warm-up, whose rate is 1/40 of the one that --lr sets."""

    def broken(*_: Any) -> None:
        raise NonFiniteError("the kl became nan")

    monkeypatch.setattr(Engine, "step", broken)
    config = settings.resolve(
        settings.to_table(tiny_config(optimizer={"lr": 0.003}, lr_schedule={"warmup": 40})), sections
    )
    with pytest.raises(NonFiniteError) as caught:
        train(new_run(tmp_path / "run", config), config, squares)
    remedies = ["a lower learning rate (--lr 0.001)", *others]
    assert caught.value.hint == f"Try {', or '.join(remedies)}."
    resolved = [settings.resolve(settings.to_table(config), settings.read_override(text.split()[-1].strip("()")))
                for text in others]  # fmt: skip
    assert all(changed != config for changed in resolved)


def test_weights_that_are_not_finite_are_not_called_those_of_another_process(
    tmp_path: Path, squares: VideoData
) -> None:
    ALONE.must_agree(weights=float("nan"), clips=[1, 2])
    config = tiny_config(validation={"every": 0})
    whole = new_run(tmp_path / "whole", config)
    train(whole, config, squares)
    weights = {name: t * torch.nan if t.is_floating_point() else t for name, t in last(whole).part("model").items()}
    with pytest.raises(NonFiniteError, match=r"became nan at step 0"):
        train(new_run(tmp_path / "run", config), config, squares, weights=weights)


# --- signals ---------------------------------------------------------------------------------------


class ArrivesLate:
    """Requests into which a SIGUSR1 comes just after ``save`` was read for the first time."""

    stop, late = None, False

    @property
    def save(self) -> bool:
        read, self.late = self.late, True
        return read

    @save.setter
    def save(self, value: bool) -> None:
        self.late = value


def test_a_request_to_save_that_comes_while_the_last_one_is_read_is_kept(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: Config = tiny_config()
    training = loop._Training(new_run(tmp_path / "run", config), config, squares, lambda event: None, None, None, ALONE)
    training.history.close()
    training.requests = ArrivesLate()  # type: ignore[assignment]
    training._agree()
    assert not training.pending.save
    training._agree()
    assert training.pending.save
