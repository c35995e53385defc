"""Whole trainings: exact resume at every kind of interruption, what is recorded, and how failures end."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vidcvae import config as settings
from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.errors import NonFiniteError, Stopped
from vidcvae.evaluation.free_run import COLUMNS, RunVariant
from vidcvae.models import arithmetic
from vidcvae.models.arithmetic import Arithmetic
from vidcvae.models.loading import load_model
from vidcvae.output import figures, inline_svg, plots, terminal
from vidcvae.scenes import pushing
from vidcvae.storage import checkpoint
from vidcvae.storage.history import read_history
from vidcvae.storage.run import RunFolder
from vidcvae.training import pace, timing, validation
from vidcvae.training.loop import train

from .conftest import tiny_config

TIMES = ("minutes", "clips_per_second")


def new_run(path: Path, config: Config) -> RunFolder:
    path.mkdir()
    run = RunFolder(path)
    run.config.write_text(settings.to_toml(config))
    return run


def last(run: RunFolder) -> checkpoint.Checkpoint:
    return checkpoint.read(run.checkpoints / checkpoint.LAST)


def fingerprint(run: RunFolder) -> dict[str, str]:
    """Hashes of weights, averages, optimizer and history (without its times)."""
    found = {
        n: hashlib.sha256(t.contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()
        for n, t in last(run).tensors.items()
    }
    lines = [{k: v for k, v in line.items() if k not in TIMES} for line in read_history(run.history)]
    return found | {"history": hashlib.sha256(json.dumps(lines).encode()).hexdigest()}


class KillAt:
    """Sends this process a real signal when training reports a certain event."""

    def __init__(self, kind: str, count: int, number: int = signal.SIGTERM) -> None:
        self.kind, self.left, self.number = kind, count, number

    def __call__(self, event: dict[str, Any]) -> None:
        if event["kind"] == self.kind:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("kind", "count"),
    [("epoch", 3), ("step", 2), ("step", 5), ("validating", 7), ("checkpoint", 2), ("validation", 3)],
)
def test_resume_is_exact(tmp_path: Path, squares: VideoData, kind: str, count: int) -> None:
    """6 epochs equal n + a signal + the rest: weights, averages, optimizer and history, by hash."""
    config = tiny_config(
        training={"epochs": 6, "ema": 0.9, "log_every": 2},
        teacher_forcing={"ratio": 0.6, "draw": "frame", "decay_start": 2},
        optimizer={"name": "adamw", "weight_decay": 0.01},
        lr_schedule={"type": "cosine"},
        kl={"per": "iteration"},
    )
    whole = new_run(tmp_path / "whole", config)
    train(whole, config, squares)
    broken = new_run(tmp_path / "broken", config)
    with pytest.raises(Stopped) as stopped:
        train(broken, config, squares, report=KillAt(kind, count))
    assert stopped.value.exit_code == 143
    assert f"vidcvae resume {broken.path}" in stopped.value.hint
    assert last(broken).meta.step < last(whole).meta.step
    train(broken, config, squares, resume=last(broken))
    assert fingerprint(broken) == fingerprint(whole)


@pytest.mark.parametrize("name", ["svg-fp", "svg-lp"])
def test_resume_is_exact_for_svg_too(tmp_path: Path, name: str) -> None:
    data = pushing.push(6, 2, 0, 5, 0)
    config = settings.resolve_with_preset(
        None,
        [
            {
                "model": {"name": name, "backbone": "dcgan64", "frame_dim": 16, "latent_dim": 4, "hidden_dim": 16},
                "training": {"epochs": 3, "steps_per_epoch": 2, "batch_size": 2, "clip_length": 5, "device": "cpu"},
                "teacher_forcing": {"ratio": 0.5, "decay_start": 1},
                "validation": {"frames": 4},
            }
        ],
    )
    whole, broken = new_run(tmp_path / "whole", config), new_run(tmp_path / "broken", config)
    train(whole, config, data)
    with pytest.raises(Stopped):
        train(broken, config, data, report=KillAt("checkpoint", 2))
    train(broken, config, data, resume=last(broken))
    assert fingerprint(broken) == fingerprint(whole)
    assert last(whole).meta.step == 6


def test_fast_train_resumes_exactly_over_its_boundary(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(training={"epochs": 4, "log_every": 1}, data={"fast_train": True, "fast_train_epochs": 2})
    whole = new_run(tmp_path / "whole", config)
    assert train(whole, config, squares).steps == 2 * 1 + 2 * 3  # windows: 5 in all, 2 while fast
    broken = new_run(tmp_path / "broken", config)
    with pytest.raises(Stopped):
        train(broken, config, squares, report=KillAt("step", 3, signal.SIGINT))
    train(broken, config, squares, resume=last(broken))
    assert fingerprint(broken) == fingerprint(whole)


def test_history_has_every_number(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config()
    run = new_run(tmp_path / "run", config)
    train(run, config, squares)
    lines = read_history(run.history)
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [2, 4, 6, 8]
    wanted = {"reconstruction", "kl", "smoothing", "total", "beta", "teacher_forcing", "forced", "lr", "grad_norm"}
    assert wanted | {"clips_per_second", "epoch"} <= set(steps[0])
    for line in steps:
        parts = line["reconstruction"] + line["beta"] * line["kl"] + 0.3 * line["smoothing"]
        if line["step"] != 4:  # over two epochs the mean of beta x KL is not the product of the means
            assert line["total"] == pytest.approx(parts, rel=1e-5)
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [0, 1, 2]
    (score, *_) = [line for line in lines if line["kind"] == "validation"]
    assert len(score["psnr_zero_per_frame"]) == 5
    assert score["psnr_zero"] == pytest.approx(sum(score["psnr_zero_per_frame"]) / 5, rel=1e-4)


def test_a_step_whose_clips_all_lost_their_z_has_no_kl(tmp_path: Path, squares: VideoData) -> None:
    """The 0 that its loss has for it would read as a collapsed posterior; means are over the other steps."""
    dropout = {"latent_dropout": 0.5, "log_every": 1}
    config = tiny_config(training=dropout, kl={"free_bits": 0.1}, validation={"every": 0})
    draws = [rng.uniform((2,), config.training.seed, "latent-dropout", step) >= 0.5 for step in range(9)]
    without = [step + 1 for step, kept in enumerate(draws) if not kept.any()]
    run = new_run(tmp_path / "run", config)
    with pytest.raises(Stopped):  # what a mean counts is saved in the middle of an epoch too
        train(run, config, squares, report=KillAt("step", without[0] + 1))
    assert 0 < len(without) < 9 and last(run).meta.step % 3
    train(run, config, squares, resume=last(run))
    steps, epochs = ([r for r in read_history(run.history) if r["kind"] == kind] for kind in ("step", "epoch"))
    assert [r["step"] for r in steps if "kl" not in r] == [r["step"] for r in steps if "kl_charged" not in r] == without
    kls = [[r["kl"] for r in steps if r["epoch"] == epoch and "kl" in r] for epoch in range(3)]
    assert [r["kl"] for r in epochs] == pytest.approx([sum(part) / len(part) for part in kls])
    for r in (r for r in steps if r["step"] in without):  # the loss is as it was: three frames' free bits are charged
        assert r["total"] == pytest.approx(r["reconstruction"] + 0.3 * r["smoothing"] + r["beta"] * 0.3)

    never = tiny_config(training=dropout | {"latent_dropout": 1.0}, validation={"every": 0})
    bare = new_run(tmp_path / "bare", never)
    train(bare, never, squares)
    assert not any("kl" in r for r in read_history(bare.history))
    chart = plots.kl_chart([plots.read_run(bare)])
    assert list(chart.panels[0].lines[0].x) == []
    assert figures.render(chart, "png") and terminal.to_text(chart) and inline_svg.figure(chart, "kl", "")


def test_best_is_the_highest_of_its_metric(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(training={"epochs": 6}, optimizer={"lr": 0.01}, validation={"metric": "ssim_prior"})
    run = new_run(tmp_path / "run", config)
    train(run, config, squares)
    scores = [line["ssim_prior"] for line in read_history(run.history) if line["kind"] == "validation"]
    best = checkpoint.read(run.checkpoints / checkpoint.BEST)
    assert best.meta.scores["ssim_prior"] == max(scores)
    assert best.meta.epoch == scores.index(max(scores)) + 1


def test_only_the_newest_steps_are_kept(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(training={"epochs": 5}, checkpoint={"keep": 2})
    run = new_run(tmp_path / "run", config)
    train(run, config, squares)
    assert [p.name for p in checkpoint.steps(run.checkpoints)] == [
        "step-00000012.safetensors",
        "step-00000015.safetensors",
    ]
    assert {"last.safetensors", "best.safetensors"} <= {p.name for p in run.checkpoints.iterdir()}


def test_training_learns_the_squares(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(
        training={"epochs": 60}, optimizer={"lr": 0.01}, validation={"every": 0}, kl={"stop": 1e-4, "start": 1e-4}
    )
    run = new_run(tmp_path / "run", config)
    train(run, config, squares)
    losses = [line["reconstruction"] for line in read_history(run.history) if line["kind"] == "epoch"]
    assert losses[-1] < 0.2 * losses[0]


def test_a_nan_stops_before_it_does_harm(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(training={"epochs": 3}, optimizer={"lr": 1e-3})
    run = new_run(tmp_path / "run", config)
    train(run, config, squares)
    before = last(run)
    huge = settings.resolve(settings.to_table(config), {"optimizer": {"lr": 1e30}, "training": {"epochs": 9}})
    with pytest.raises(NonFiniteError) as caught:
        train(run, huge, squares, resume=before)
    assert caught.value.exit_code == 3
    assert "became" in caught.value.message and "last.safetensors is intact" in caught.value.message
    assert "lower learning rate" in caught.value.hint
    batch = json.loads((run.path / "non-finite.json").read_text())["clips"]
    assert len(batch) == 2 and batch[0]["sequence"].startswith("square-")
    for name, tensor in last(run).tensors.items():
        assert torch.isfinite(tensor.float()).all(), name


def test_a_time_budget_ends_the_run_with_everything_saved(tmp_path: Path, squares: VideoData) -> None:
    budget = {"epochs": 100000, "max_minutes": 0.03, "log_every": 1}
    config = tiny_config(training=budget, lr_schedule={"type": "cosine"}, validation={"every": 0})
    run = new_run(tmp_path / "run", config)
    outcome = train(run, config, squares)
    assert outcome.minutes >= 0.03 and outcome.steps < 10_000, "of 300,000 planned ones"
    assert last(run).meta.step == outcome.steps
    rates = [line["lr"] for line in read_history(run.history) if line["kind"] == "step"]
    assert rates[-1] < 0.5 * rates[0], "the learning rate follows the time"


def test_the_validation_that_ends_a_run_takes_nothing_from_its_time_budget(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of our own: a step takes 20 seconds, the validation two minutes, and the budget is one minute."""
    clock, measured = SimpleNamespace(now=0.0), validation.measured

    def slow(*args: Any) -> Any:
        clock.now += 120
        return measured(*args)

    def report(event: dict[str, Any]) -> None:
        clock.now += 20 * (event["kind"] == "progress")

    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(validation, "measured", slow)
    config = tiny_config(training={"epochs": 100000, "max_minutes": 1.0}, validation={"every": 100000})
    run = new_run(tmp_path / "run", config)
    outcome = train(run, config, squares, report=report)
    assert outcome.steps == 3
    assert (outcome.minutes, outcome.validation_minutes) == (pytest.approx(1.0), pytest.approx(2.0))
    assert last(run).meta.minutes == pytest.approx(1.0)


def test_records_tell_how_many_epochs_are_over_to_the_step(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of our own, 4 steps of 20 seconds before the time is over: an epoch and a third of the next."""
    clock = SimpleNamespace(now=0.0)

    def report(event: dict[str, Any]) -> None:
        clock.now += 20 * (event["kind"] == "progress")

    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: clock.now))
    config = tiny_config(training={"epochs": 9, "max_minutes": 1.2}, validation={"every": 9})
    run = new_run(tmp_path / "run", config)
    train(run, config, squares, report=report)
    told = [(line["kind"], line["epochs_done"]) for line in read_history(run.history)]
    third = pytest.approx(1 + 1 / 3)
    ended = [(kind, third) for kind in ("step", "epoch", "validation")]
    assert told == [("step", pytest.approx(2 / 3)), ("epoch", 1.0), *ended]
    assert last(run).meta.epoch == 1, "of those that are over"
    assert plots.read_run(run).epochs_of(plots.read_run(run).history) == [done for _, done in told]


def test_every_step_is_told_and_losses_within_seconds(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(training={"epochs": 2, "log_every": 1000}, validation={"every": 0})
    events: list[dict[str, Any]] = []
    outcome = train(new_run(tmp_path / "run", config), config, squares, report=events.append)
    told = [event for event in events if event["kind"] == "progress"]
    assert [event["step"] for event in told] == list(range(1, outcome.steps + 1))
    assert {"total", "reconstruction", "kl", "grad_norm", "clips_per_second"} <= told[0].keys()
    (start,) = [event for event in events if event["kind"] == "start"]
    assert (start["minutes"], start["max_minutes"], start["best"]) == (0.0, 0.0, None)


@pytest.mark.parametrize(("steps", "batch", "clips"), [(0, 2, 5), (4, 2, 8), (7, 3, 21)])
def test_the_start_tells_how_many_clips_an_epoch_has(
    tmp_path: Path, squares: VideoData, steps: int, batch: int, clips: int
) -> None:
    """The split has 5 windows; so many steps an epoch have a batch each."""
    config = tiny_config(training={"epochs": 1, "steps_per_epoch": steps, "batch_size": batch}, validation={"every": 0})
    events: list[dict[str, Any]] = []
    train(new_run(tmp_path / "run", config), config, squares, report=events.append)
    assert [event["clips"] for event in events if event["kind"] == "start"] == [clips]


def test_a_budget_that_allows_only_part_of_the_steps_is_told_once(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(
        training={"epochs": 1000, "max_minutes": 0.01},
        validation={"every": 0},
        lr_schedule={"type": "multistep", "milestones": [2, 5]},
    )
    events: list[dict[str, Any]] = []
    train(new_run(tmp_path / "run", config), config, squares, report=events.append)
    (told,) = [e["text"] for e in events if e["kind"] == "warning" and "allow about" in e["text"]]
    assert "0.01 minutes allow about" in told and "learning rate falls" in told


def test_a_trained_run_loads_with_either_weights(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(training={"ema": 0.9})
    run = new_run(tmp_path / "run", config)
    train(run, config, squares)
    raw, ema = load_model(run.path, weights="raw"), load_model(run.path)
    assert (raw.weights, ema.weights) == ("raw", "ema")
    assert any(not torch.equal(a, b) for a, b in zip(raw.model.parameters(), ema.model.parameters(), strict=True))


def test_a_resumed_run_has_what_is_left_of_its_minutes(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(training={"epochs": 100000, "max_minutes": 0.01}, validation={"every": 0})
    run = new_run(tmp_path / "run", config)
    first = train(run, config, squares)
    spent = last(run).meta.minutes
    again = train(run, config, squares, resume=last(run))
    assert again.steps == first.steps and again.minutes >= spent >= 0.01


def test_the_end_is_scored_whatever_the_interval(tmp_path: Path, squares: VideoData) -> None:
    config = tiny_config(training={"epochs": 3}, validation={"every": 2})
    run = new_run(tmp_path / "run", config)
    steps = train(run, config, squares).steps
    scored = [line["step"] for line in read_history(run.history) if line["kind"] == "validation"]
    assert scored == [steps * 2 // 3, steps]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_resumed_run_keeps_what_auto_chose(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Whatever the machine would choose by then: the run goes on exactly."""
    found = Arithmetic(precision, 1, "measured now", {"float32, 1 thread": 0.5})
    monkeypatch.setattr(timing, "training_arithmetic", lambda *_: found)
    config = tiny_config(training={"precision": "auto", "epochs": 2})
    whole, broken = new_run(tmp_path / "whole", config), new_run(tmp_path / "broken", config)
    train(whole, config, squares)
    assert json.loads((whole.path / "precision.json").read_text())["seconds"] == {"float32, 1 thread": 0.5}
    assert last(whole).meta.arithmetic == {"precision": precision, "threads": 1}
    with pytest.raises(Stopped):
        train(broken, config, squares, report=KillAt("checkpoint", 1))
    other = Arithmetic("bf16" if precision == "float32" else "float32", 1, "measured now")
    monkeypatch.setattr(timing, "training_arithmetic", lambda *_: other)
    train(broken, config, squares, resume=last(broken))
    assert fingerprint(broken) == fingerprint(whole)


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_an_older_run_with_auto_goes_on_in_what_auto_was_then(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch, has_bf16: bool, precision: str
) -> None:
    """Its checkpoints do not say: it was bfloat16 where the hardware has it, however fast that is."""
    other = Arithmetic("float32" if has_bf16 else "bf16", 1, "measured now")
    monkeypatch.setattr(timing, "training_arithmetic", lambda *_: other)
    monkeypatch.setattr(arithmetic, "has_bf16", lambda: has_bf16)
    config = tiny_config(training={"precision": "auto", "epochs": 2}, validation={"every": 0})
    run = new_run(tmp_path / "run", config)
    with pytest.raises(Stopped):
        train(run, config, squares, report=KillAt("checkpoint", 1))
    saved = replace(last(run), meta=replace(last(run).meta, arithmetic=None))
    events: list[dict[str, Any]] = []
    train(run, config, squares, resume=saved, report=events.append)
    assert [event["precision"] for event in events if event["kind"] == "start"] == [precision]


def test_a_validation_of_which_any_score_is_not_finite_ends_the_training_in_words() -> None:
    """Not the one alone by which the best is chosen: the history has no place for a NaN."""
    config = tiny_config()
    tables = {way: [torch.ones(3, len(COLUMNS))] for way in (RunVariant("zero"), RunVariant("prior"))}
    sequence = Sequence("v", np.zeros((4, 3, 16, 16), np.uint8), {})
    assert validation.scores(tables, [sequence], config, 5)["ssim_prior"] == 1
    tables[RunVariant("prior")][0][1, COLUMNS.index("ssim")] = torch.nan
    with pytest.raises(NonFiniteError, match="the validation's ssim_prior became nan at step 5"):
        validation.scores(tables, [sequence], config, 5)


def test_a_time_that_is_over_before_the_first_step_leaves_a_run_that_can_go_on(
    tmp_path: Path, squares: VideoData
) -> None:
    config = tiny_config(training={"epochs": 1, "max_minutes": 1e-9})
    run = new_run(tmp_path / "run", config)
    assert train(run, config, squares).steps == 0
    (score,) = [line for line in read_history(run.history) if line["kind"] == "validation"]
    assert (score["step"], score["epoch"]) == (0, 0)
    longer = settings.with_values(config, {"training": {"max_minutes": 0.0}})
    assert train(run, longer, squares, resume=last(run)).steps > 0
