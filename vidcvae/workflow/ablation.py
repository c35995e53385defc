"""What each remedy against drift is worth: trainings with one of them left out, against the full one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from vidcvae import config as settings
from vidcvae.errors import DataError
from vidcvae.evaluation import columns
from vidcvae.workflow import trials
from vidcvae.workflow.trials import Trial, Variant, folder_name
from vidcvae.workflow.voice import SILENT, Voice

if TYPE_CHECKING:
    from vidcvae.config import Config

FULL = "full"
# What keeps a long free run from drifting, each with the settings that leave it out
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
# What is told of each variant
COLUMNS = {
    "psnr_mean": columns.COLUMNS["psnr"],
    "psnr_first_50": columns.COLUMNS["first_50"],
    "psnr_last_50": columns.COLUMNS["last_50"],
    "lost_to_age": columns.Column("lost to age (dB)", 2, ()),
    "minutes": columns.COLUMNS["minutes"],
    "steps": columns.STEPS,
}


def variants(base: Config, also: Sequence[str] = ()) -> list[Variant]:
    """The full model, the same without each remedy that it uses, and with each setting in ``also``."""
    return [
        Variant(FULL),
        *(Variant(folder_name(f"without {remedy}"), off) for remedy, off in _used(base).items()),
        *(Variant(folder_name(f"with {text}"), (text,)) for text in also),
    ]


def _used(base: Config) -> dict[str, tuple[str, ...]]:
    """The remedies that ``base`` makes use of: those that can be left out."""
    table = settings.to_table(base)
    found = {}
    for remedy, off in REMEDIES.items():
        changes = [settings.read_override(text) for text in off]
        known = all(key in table[section] for change in changes for section, keys in change.items() for key in keys)
        if known and settings.resolve(table, *changes) != base:
            found[remedy] = off
    return found


def budget(base: Config, minutes: float | None, steps: int | None, voice: Voice = SILENT) -> list[str]:
    """Settings that give every run the same time, or the same steps, all of it for training: the end is scored, and
    nothing before it. What counts in epochs keeps its share of the training."""
    if minutes is not None:
        return [f"training.max_minutes={minutes:g}", "validation.every=0"]
    assert steps
    epochs, each = _parts(steps, base.training.epochs)
    if epochs * each != steps:
        voice.note(f"{steps} steps do not divide well: {epochs * each} are trained, {epochs} epochs of {each}")
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
    """So many steps as equal epochs, their number and steps: ``most``, or down to half as many where that comes closer
    to ``steps``."""
    most = min(most, steps)
    epochs = min(range(most, (most - 1) // 2, -1), key=lambda n: abs(round(steps / n) * n - steps))
    return epochs, round(steps / epochs)


def measure(done: Sequence[Trial], voice: Voice = SILENT) -> list[dict[str, Any]]:
    """For each variant the means over its seeds, their spread, and the test against the full model.

    Each trial is scored by its last checkpoint, and its age test taken; both are kept with it.
    """
    from vidcvae.evaluation.compare import welch

    runs: dict[str, list[dict[str, Any]]] = {}
    for trial, (_, record) in zip(done, trials.score(done, "last", voice), strict=True):
        age = _age_test(trial, voice)
        numbers = {
            "psnr_mean": record["psnr_mean"],
            "psnr_first_50": record.get("psnr_first_50"),
            "psnr_last_50": record.get("psnr_last_50"),
            "lost_to_age": age and age["lost"],
            "minutes": record["model"]["minutes"],
            "steps": record["protocol"]["step"],
        }
        runs.setdefault(trial.variant.name, []).append({"run": trial.path.name, "age_test": age, **numbers})
    psnrs = {name: [run["psnr_mean"] for run in own] for name, own in runs.items()}
    settings_of = {trial.variant.name: trial.variant.settings for trial in done}
    rows = []
    for name, own in runs.items():
        row: dict[str, Any] = {"variant": name, "settings": settings_of[name]}
        for key in COLUMNS:
            values = [run[key] for run in own if run[key] is not None]
            row[key] = fmean(values) if values else None
        row["spread"] = stdev(psnrs[name]) if len(own) > 1 else None
        if name != FULL and FULL in runs:
            row["against_full"] = fmean(psnrs[name]) - fmean(psnrs[FULL])
            row["p_value"] = welch(psnrs[FULL], psnrs[name])
        rows.append(row | {"runs": own})
    return rows


def _age_test(trial: Trial, voice: Voice) -> dict[str, Any] | None:
    """What the last frames lose to the age of a run; kept beside the score. None for a video too short to tell."""
    from vidcvae.evaluation import drift
    from vidcvae.workflow import opening, scores

    loaded, data = opening.load_with_data(trial.path, "last", voice=voice)

    def test() -> dict[str, Any]:
        with voice.progress(f"age test of {trial.path.name}") as advance:
            return drift.age_test(loaded, data, device=loaded.device, progress=advance).to_json()

    try:
        return scores.measured(loaded, data, "val-age-last", test)
    except DataError as error:
        voice.warn(error.message)
        return None


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]], str]:
    """Head and body of a table of ``measure``'s rows, and the sentences that say what its numbers are."""
    seeds = max(len(row["runs"]) for row in rows)
    shown = {name: column for name, column in COLUMNS.items() if any(row[name] is not None for row in rows)}
    head = ["variant", *(column.title for column in shown.values()), "against full (dB)", *(["p"] if seeds > 1 else [])]
    body = []
    for row in rows:
        cells = [row["variant"], *(column.cell(row[name]) for name, column in shown.items())]
        if row["spread"] is not None:
            cells[1] += f" ± {row['spread']:.2f}"
        p = ["-" if row.get("p_value") is None else f"{row['p_value']:.3f}"] if seeds > 1 else []
        body.append([*cells, f"{row['against_full']:+.2f}" if "against_full" in row else "", *p])
    note = (
        f"Free run of val from its first frame, z = 0, last checkpoint; {seeds} seed{'s' if seeds > 1 else ''}"
        + (": means, and the standard deviation of the PSNR" if seeds > 1 else "")
        + ". Lost to age: PSNR of the last frames from a restart not long before, less that from the start."
    )
    return head, body, note
