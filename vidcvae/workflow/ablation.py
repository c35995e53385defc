"""Ablation: trainings that each leave out one remedy against drift, compared with the full training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from vidcvae import config as settings
from vidcvae.errors import DataError, counted
from vidcvae.evaluation import columns
from vidcvae.evaluation.compare import welch
from vidcvae.workflow import trials
from vidcvae.workflow.trials import Trial, Variant, folder_name
from vidcvae.workflow.voice import SILENT, Voice

if TYPE_CHECKING:
    from vidcvae.config import Config

FULL = "full"
# The remedies against drift in a long free run, each with the settings that leave it out
REMEDIES = {
    "anchor": ("model.anchor=false", "model.scene=false"),
    "scene": ("model.scene=false",),
    "learned prior": ("model.prior=fixed",),
    "own roll-outs": ("teacher_forcing.ratio=1", "teacher_forcing.decay_step=0"),
    "growing clips": ("training.clip_length_start=0",),
    "replay": ("training.replay=0",),
    "noise": ("training.noise=0",),
    "latent dropout": ("training.latent_dropout=0",),
    "EMA": ("training.ema=0",),
    "motion weight": ("loss.motion=0",),
    "free bits": ("kl.free_bits=0",),
    "flips": ("data.flip=false",),
    "shifts": ("data.shift=0",),
}
# The columns of the table, by their names in a row
COLUMNS = {
    "psnr_mean": columns.COLUMNS["psnr"],
    "psnr_first_50": columns.COLUMNS["first_50"],
    "psnr_last_50": columns.COLUMNS["last_50"],
    "lost_to_age": columns.Column("lost to age (dB)", 2, ("age_test", "lost")),
    "minutes": columns.COLUMNS["minutes"],
    "steps": columns.STEPS,
}


def variants(base: Config, also: Sequence[str] = ()) -> list[Variant]:
    """The full model, the same without each remedy that it uses, and with each setting in ``also``."""
    return [
        Variant(FULL),
        *(Variant(folder_name(f"without {remedy}"), off) for remedy, off in _remedies_in(base).items()),
        *(Variant(folder_name(f"with {text}"), (text,)) for text in also),
    ]


def _remedies_in(base: Config) -> dict[str, tuple[str, ...]]:
    """The remedies that ``base`` uses and that can therefore be left out."""
    table = settings.to_table(base)
    used = {}
    for remedy, off in REMEDIES.items():
        keys = (text.partition("=")[0].split(".") for text in off)
        known = all(name in table[section] for section, name in keys)  # a model has only some of these settings
        if known and settings.resolve(table, *map(settings.read_override, off)) != base:
            used[remedy] = off
    return used


def budget(base: Config, minutes: float | None, steps: int | None, voice: Voice = SILENT) -> list[str]:
    """The settings that give every run the same minutes or the same steps, and switch validation off.

    Settings that count in epochs keep their share of the training.
    """
    if minutes is not None:
        return [f"training.max_minutes={minutes:g}", "validation.every=0"]
    assert steps
    epochs, each = _parts(steps, base.training.epochs)
    if epochs * each != steps:
        voice.note(f"{steps} steps do not divide evenly: training {epochs * each}, {epochs} epochs of {each}")
    whole, forcing = base.training.epochs, base.teacher_forcing

    def scaled(epoch: int) -> int:
        return -(-epoch * epochs // whole)

    return [
        "validation.every=0",
        f"checkpoint.every={epochs}",
        f"training.epochs={epochs}",
        f"training.steps_per_epoch={each}",
        "training.max_minutes=0",
        f"teacher_forcing.decay_start={scaled(forcing.decay_start)}",
        f"teacher_forcing.decay_step={min(1.0, forcing.decay_step * whole / epochs)}",
        f"lr_schedule.milestones={list(map(scaled, base.lr_schedule.milestones))}",
    ]


def _parts(steps: int, most: int) -> tuple[int, int]:
    """``steps`` as equal epochs: the number of epochs and the steps of each.

    There are ``most`` epochs, or down to half as many if their total is then closer to ``steps``.
    """
    most = min(most, steps)
    epochs = min(range(most, (most - 1) // 2, -1), key=lambda n: abs(round(steps / n) * n - steps))
    return epochs, round(steps / epochs)


def measure(done: Sequence[Trial], voice: Voice = SILENT) -> list[dict[str, Any]]:
    """For each variant its means over the seeds, the standard deviation, and the test against the full model.

    Scores and age tests are those of each trial's last checkpoint; they are kept with the runs.
    """
    runs: dict[Variant, list[dict[str, Any]]] = {}
    for trial, (_, record) in zip(done, trials.score(done, "last", voice), strict=True):
        age = _age_test(trial, voice)
        numbers = {name: column.value(record | {"age_test": age}) for name, column in COLUMNS.items()}
        runs.setdefault(trial.variant, []).append({"run": trial.path.name, "age_test": age, **numbers})
    psnrs = {variant.name: [run["psnr_mean"] for run in own] for variant, own in runs.items()}
    rows = []
    for variant, own in runs.items():
        psnr = psnrs[variant.name]
        row: dict[str, Any] = {"variant": variant.name, "settings": variant.settings}
        for name in COLUMNS:
            values = [run[name] for run in own if run[name] is not None]
            row[name] = fmean(values) if values else None
        row["spread"] = stdev(psnr) if len(own) > 1 else None
        if variant.name != FULL and FULL in psnrs:
            row["against_full"] = fmean(psnr) - fmean(psnrs[FULL])
            row["p_value"] = welch(psnrs[FULL], psnr)
        rows.append(row | {"runs": own})
    return rows


def _age_test(trial: Trial, voice: Voice) -> dict[str, Any] | None:
    """How much the last frames lose to the age of a free run, kept with the score; None if the video is too short."""
    from vidcvae.evaluation import drift
    from vidcvae.workflow import opening, scores

    loaded, data = opening.load_with_data(trial.path, "last", voice=voice)
    test = partial(drift.age_test, loaded, data)
    try:
        return scores.measured(loaded, data, "val", "val-age-last", f"age test of {trial.path.name}", test, voice)
    except DataError as error:
        voice.warn(error.message)
        return None


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]], str]:
    """The head and body of a table of ``measure``'s rows, and a note that explains its numbers."""
    seeds = max(len(row["runs"]) for row in rows)
    shown = {name: column for name, column in COLUMNS.items() if any(row[name] is not None for row in rows)}
    head = ["variant", *(column.title for column in shown.values()), "against full (dB)", *(["p"] if seeds > 1 else [])]
    body = []
    for row in rows:
        spread = {"psnr_mean": row["spread"]}
        cells = [column.cell(row[name], spread.get(name)) for name, column in shown.items()]
        against_full = f"{row['against_full']:+.2f}" if "against_full" in row else ""
        p = ["-" if row.get("p_value") is None else f"{row['p_value']:.3f}"] if seeds > 1 else []
        body.append([row["variant"], *cells, against_full, *p])
    note = (
        f"Free run of val from its first frame, z = 0, last checkpoint; {counted(seeds, 'seed')}"
        + (": means, and the standard deviation of the PSNR" if seeds > 1 else "")
        + ". Lost to age: PSNR of the last frames after a restart shortly before them, minus that without a restart."
    )
    return head, body, note
