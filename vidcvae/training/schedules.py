"""Schedules as pure functions, shared by training, previews and plots.

With a time budget, ``step`` is the scheduled step: the later of the steps taken and the step that corresponds to the
time spent. Every schedule then ends with whichever budget runs out first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

from vidcvae.config import Config, KlConfig, TeacherForcingConfig, TrainingConfig
from vidcvae.errors import counted


@dataclass(frozen=True)
class Length:
    """The length of a run. The first ``short_epochs`` may have fewer steps (the course's --fast_train)."""

    epochs: int
    steps_per_epoch: int
    short_epochs: int = 0
    short_steps: int = 0

    @property
    def steps(self) -> int:
        return self.begin(self.epochs)

    def begin(self, epoch: int) -> int:
        """The first step of an epoch."""
        short = min(epoch, self.short_epochs)
        return short * self.short_steps + (epoch - short) * self.steps_per_epoch

    def end(self, epoch: int) -> int:
        return self.begin(epoch + 1)

    def epoch(self, step: int) -> int:
        """The epoch that contains a step; the last one for steps beyond the end."""
        beyond = step - self.short_epochs * self.short_steps
        epoch = step // self.short_steps if beyond < 0 else self.short_epochs + beyond // self.steps_per_epoch
        return min(epoch, self.epochs - 1)

    def done(self, steps: int) -> float:
        """The number of epochs in ``steps`` steps, with the fraction of an unfinished one."""
        epoch = self.epoch(steps)
        return epoch + (steps - self.begin(epoch)) / (self.end(epoch) - self.begin(epoch))


def scheduled_step(step: int, length: Length, minutes: float, budget: float) -> int:
    """The step for the schedules: ``step``, or a later one if the time ``budget`` runs out before the steps do."""
    if not budget:
        return step
    return max(step, min(length.steps - 1, int(length.steps * minutes / budget)))


def beta(kl: KlConfig, length: Length, step: int) -> float:
    """The KL weight (Fu et al. 2019, eq. 6): tau / R while tau <= R, then 1, in each of M cycles.

    tau = (i mod ceil(T / M)) / ceil(T / M), with i the epoch of T epochs, or the iteration of T iterations.
    "monotonic" is one cycle; "none" is constant at ``stop``. Nothing is divided by the length of the ramp, which
    in the course's formula is 0 for a ramp of one epoch.
    """
    match kl.type:
        case "none":
            return kl.stop
        case "monotonic":
            cycles = 1
        case "cyclical":
            cycles = kl.cycles
        case _:
            assert_never(kl.type)
    i, total = (length.epoch(step), length.epochs) if kl.per == "epoch" else (step, length.steps)
    period = math.ceil(total / cycles)
    tau = (i % period) / period
    return kl.start + (kl.stop - kl.start) * min(1.0, tau / kl.ratio)


def teacher_forcing_ratio(forcing: TeacherForcingConfig, epoch: int) -> float:
    """Constant before ``decay_start``, then lower by ``decay_step`` each epoch, down to ``floor``."""
    decayed = forcing.ratio - forcing.decay_step * max(0, epoch - forcing.decay_start + 1)
    return min(forcing.ratio, max(forcing.floor, decayed))


def learning_rate(config: Config, length: Length, step: int) -> float:
    """The learning rate of a step: warm-up, then constant, steps at the milestones, or a half cosine to ``final``."""
    schedule, lr = config.lr_schedule, config.optimizer.lr
    match schedule.type:
        case "constant":
            pass
        case "multistep":
            lr *= schedule.factor ** sum(length.epoch(step) >= milestone for milestone in schedule.milestones)
        case "cosine":
            progress = step / max(1, length.steps - 1)
            lr = schedule.final + (lr - schedule.final) * (1 + math.cos(math.pi * progress)) / 2
        case _:
            assert_never(schedule.type)
    return lr * min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else lr


def clip_length(training: TrainingConfig, length: Length, step: int) -> int:
    """Frames in a clip: grows from ``clip_length_start`` to ``clip_length`` over the first half of training."""
    if not training.clip_length_start:
        return training.clip_length
    grown = min(1.0, 2 * step / length.steps)
    return training.clip_length_start + round((training.clip_length - training.clip_length_start) * grown)


def warnings(config: Config, length: Length) -> list[str]:
    """Probable mistakes in the schedules, each with its remedy."""
    kl, texts = config.kl, []
    if kl.type != "none":
        steps = map(length.begin, range(length.epochs)) if kl.per == "epoch" else range(length.steps)
        peak = max(beta(kl, length, step) for step in steps)
        if peak < kl.stop - 1e-6:
            texts.append(
                f"beta never reaches its stop {kl.stop:g}: the {kl.type} schedule over "
                f"{counted(length.epochs, 'epoch')} peaks at {peak:.3g}. "
                f"Use fewer cycles (--set kl.cycles=N) or a smaller ratio (--set kl.ratio=R)."
            )
    if kl.reduction == "sum" and beta(kl, length, 0) == 0:
        texts.append(
            "beta starts at exactly 0, so nothing limits the posterior's logvar, which may diverge to NaN. "
            f"Use --set kl.{'stop' if kl.type == 'none' else 'start'}=0.01."
        )
    return texts


def fitted_to_time(config: Config, length: Length, possible: int) -> tuple[str, bool]:
    """A text about a time budget that only ``possible`` steps fit into, and whether it spoils a schedule.

    Milestones of the learning rate for a full run come after a few steps of a short one, which then learns nothing.
    """
    budget, schedule = config.training.max_minutes, config.lr_schedule
    text = (
        f"{budget:g} minutes allow about {possible:,} of {length.steps:,} steps; all schedules are fitted to the time"
    )
    milestones = [m for m in schedule.milestones if m < length.epochs] if schedule.type == "multistep" else []
    if not milestones:
        return f"{text}.", False
    steps = " and ".join(f"{max(1, possible * length.begin(m) // length.steps):,}" for m in milestones)
    return (
        f"{text}, so the learning rate falls by a factor of {schedule.factor:g} after {steps} steps. For a short run "
        f"use --preset anchor-cpu, or --set lr_schedule.type=cosine.",
        True,
    )
