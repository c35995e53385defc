"""Schedules against the papers' formulas, written out independently."""

from __future__ import annotations

import math

import pytest

from vidcvae import config as settings
from vidcvae.config import KlConfig, TeacherForcingConfig, TrainingConfig
from vidcvae.training import schedules
from vidcvae.training.schedules import Length


def betas(kl: KlConfig, epochs: int, steps_per_epoch: int = 3) -> list[float]:
    length = Length(epochs, steps_per_epoch)
    return [schedules.beta(kl, length, step) for step in range(length.steps)]


@pytest.mark.parametrize(("epochs", "cycles", "ratio"), [(70, 4, 0.5), (70, 10, 1.0), (13, 3, 0.25), (8, 4, 0.5)])
def test_cyclical_is_fu_et_al(epochs: int, cycles: int, ratio: float) -> None:
    """beta = f(tau) with tau = mod(t - 1, ceil(T / M)) / (T / M), t from 1; f(tau) = tau / R up to R, then 1."""
    period = math.ceil(epochs / cycles)
    expected = []
    for t in range(1, epochs + 1):
        tau = ((t - 1) % period) / period
        expected.append(tau / ratio if tau <= ratio else 1.0)
    kl = KlConfig(type="cyclical", cycles=cycles, ratio=ratio, start=0.0, stop=1.0)
    assert betas(kl, epochs)[::3] == pytest.approx(expected)


def test_beta_moves_once_an_epoch_or_every_iteration() -> None:
    per_epoch = betas(KlConfig(start=0.0, cycles=1), epochs=4)
    assert [len(set(per_epoch[i : i + 3])) for i in range(0, 12, 3)] == [1, 1, 1, 1]
    per_iteration = betas(KlConfig(start=0.0, cycles=1, per="iteration"), epochs=4)
    assert per_iteration == pytest.approx([min(1.0, i / 6) for i in range(12)])


def test_start_and_stop_bound_the_climb() -> None:
    values = betas(KlConfig(type="monotonic", start=0.1, stop=0.3, ratio=0.5), epochs=10)[::3]
    assert values[0] == pytest.approx(0.1)
    assert values[5:] == pytest.approx([0.3] * 5)
    assert values == sorted(values)


def test_monotonic_climbs_once_and_none_stands_still() -> None:
    assert betas(KlConfig(type="monotonic", start=0.0), 10)[::3] == pytest.approx(
        [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1]
    )
    assert set(betas(KlConfig(type="none", start=0.0, stop=0.7), 10)) == {0.7}


def test_a_climb_of_one_epoch_is_finite() -> None:
    """The course's formula divides by zero here: 8 epochs, 4 cycles, ratio 0.5."""
    assert betas(KlConfig(cycles=4, ratio=0.5, start=0.0), 8)[::3] == pytest.approx([0, 1] * 4)


def test_a_beta_that_never_arrives_is_warned_of() -> None:
    config = settings.resolve({"kl": {"cycles": 10, "ratio": 1.0, "start": 0.0}})
    (text, zero) = schedules.warnings(config, Length(70, 3))
    assert "peaks at 0.857" in text
    assert "starts at exactly 0" in zero
    assert schedules.warnings(settings.resolve(), Length(70, 3)) == []
    config = settings.resolve({"kl": {"per": "iteration", "start": 0.0}})
    assert ["starts at exactly 0" in text for text in schedules.warnings(config, Length(70, 3))] == [True]


@pytest.mark.parametrize(("kl", "key"), [({"type": "none", "stop": 0.0}, "kl.stop"), ({"start": 0.0}, "kl.start")])
def test_the_remedy_for_a_beta_of_zero_changes_it(kl: dict[str, object], key: str) -> None:
    """A constant beta is ``kl.stop``; ``kl.start`` has no effect on it."""
    config = settings.resolve({"kl": kl})
    (text,) = [text for text in schedules.warnings(config, Length(70, 3)) if "starts at exactly 0" in text]
    assert text.endswith(f"Use --set {key}=0.01.")
    changed = settings.resolve({"kl": kl}, settings.read_override(f"{key}=0.01"))
    assert schedules.beta(changed.kl, Length(70, 3), 0) == 0.01


def test_a_beta_that_arrives_is_not_warned_of() -> None:
    """Within an epoch too, where it moves every iteration; and 1 is not 0, nor is a mean KL too weak to hold."""
    for kl in (
        {"per": "iteration", "type": "monotonic", "ratio": 0.9},
        {"type": "none", "stop": 1.0},
        {"type": "monotonic", "start": 0.0, "reduction": "mean"},
    ):
        assert schedules.warnings(settings.resolve({"kl": kl}), Length(2, 50)) == []


def test_teacher_forcing_falls_from_its_first_epoch_to_its_floor() -> None:
    forcing = TeacherForcingConfig(ratio=1.0, decay_start=10, decay_step=0.1, floor=0.25)
    ratios = [schedules.teacher_forcing_ratio(forcing, epoch) for epoch in range(30)]
    assert ratios[:10] == [1.0] * 10
    assert ratios[10:14] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert ratios[-1] == 0.25


def test_learning_rate_stairs_cosine_and_warmup() -> None:
    length = Length(8, 10)
    stairs = settings.resolve({"lr_schedule": {"type": "multistep", "milestones": [2, 5], "factor": 0.1}})
    rates = [schedules.learning_rate(stairs, length, length.begin(e)) for e in range(8)]
    assert rates == pytest.approx([1e-3] * 2 + [1e-4] * 3 + [1e-5] * 3)
    cosine = settings.resolve({"lr_schedule": {"type": "cosine", "final": 1e-6, "warmup": 4}})
    first = [schedules.learning_rate(cosine, length, step) for step in range(4)]
    assert first == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3], rel=1e-2)
    assert schedules.learning_rate(cosine, length, length.steps - 1) == pytest.approx(1e-6)
    middle = schedules.learning_rate(cosine, Length(1, 81), 40)
    assert middle == pytest.approx((1e-3 + 1e-6) / 2)


def test_a_cosine_of_one_and_of_two_steps() -> None:
    cosine = settings.resolve({"lr_schedule": {"type": "cosine", "final": 1e-6}})
    rates = [schedules.learning_rate(cosine, Length(1, steps), steps - 1) for steps in (1, 2)]
    assert rates == pytest.approx([1e-3, 1e-6])


def test_short_first_epochs_are_counted() -> None:
    length = Length(epochs=7, steps_per_epoch=10, short_epochs=5, short_steps=4)
    assert length.steps == 5 * 4 + 2 * 10
    assert [length.epoch(step) for step in (0, 3, 4, 19, 20, 29, 30, 39, 99)] == [0, 0, 1, 4, 5, 5, 6, 6, 6]
    assert [length.begin(e) for e in (0, 1, 5, 6, 7)] == [0, 4, 20, 30, 40]
    assert [length.end(e) for e in (0, 4, 5)] == [4, 20, 30]
    assert [length.done(step) for step in (0, 1, 4, 18, 20, 25, 40)] == [0, 0.25, 1, 4.5, 5, 5.5, 7]


def test_a_time_budget_moves_the_schedule_on() -> None:
    length = Length(10, 100)
    assert schedules.scheduled_step(50, length, minutes=5, budget=0) == 50
    assert schedules.scheduled_step(50, length, minutes=5, budget=10) == 500
    assert schedules.scheduled_step(700, length, minutes=5, budget=10) == 700
    assert schedules.scheduled_step(50, length, minutes=99, budget=10) == 999


def test_a_time_budget_that_squeezes_milestones_is_told_in_steps() -> None:
    course = settings.resolve(settings.read_preset("course"), {"training": {"max_minutes": 3.0}})
    text, spoilt = schedules.fitted_to_time(course, Length(70, 50), 50)  # 3,500 steps, of which 50: 0.71 an epoch
    assert spoilt and "3 minutes allow about 50 of 3,500 steps" in text
    assert "falls by a factor of 0.1 after 1 and 3 steps" in text and "--preset anchor-cpu" in text
    stairs = {"lr_schedule": {"type": "multistep", "milestones": [8, 9]}, "training": {"max_minutes": 1.5}}
    assert schedules.fitted_to_time(settings.resolve(stairs), Length(8, 500), 1500) == (
        "1.5 minutes allow about 1,500 of 4,000 steps; all schedules are fitted to the time.", False
    ), "which ends before any stair"  # fmt: skip
    smooth = settings.resolve(settings.read_preset("anchor-cpu"))
    assert schedules.fitted_to_time(smooth, Length(400, 300), 3000)[1] is False


def test_clips_grow_over_the_first_half_of_training() -> None:
    training = TrainingConfig(clip_length=16, clip_length_start=4)
    lengths = [schedules.clip_length(training, Length(4, 10), step) for step in (0, 1, 5, 10, 15, 20, 30, 39)]
    assert lengths == [4, 5, 7, 10, 13, 16, 16, 16]  # 4.6 is nearer to 5
    assert schedules.clip_length(TrainingConfig(clip_length=16), Length(4, 10), 0) == 16
