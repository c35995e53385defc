"""``vidcvae ablate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import command, configuration, sweep, trials, ui
from vidcvae.errors import DataError, UsageError

if TYPE_CHECKING:
    from vidcvae.config import Config

FULL = "full"
# What keeps a long free run from drifting, each with the settings that leave it out
REMEDIES = {
    "anchor": ("model.anchor=false",),
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
COLUMNS = {
    "psnr_mean": "PSNR (dB)",
    "psnr_first_50": "first 50",
    "psnr_last_50": "last 50",
    "lost_to_age": "lost to age (dB)",
    "minutes": "minutes",
    "steps": "steps",
}

DIGITS = {"psnr_mean": 2, "psnr_first_50": 2, "psnr_last_50": 2, "lost_to_age": 2, "minutes": 1, "steps": 0}


def ablate(
    dataset: command.Dataset,
    preset: configuration.Preset = "anchor-cpu",
    config: configuration.File = None,
    set_: configuration.Set = None,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", help="End each training after this many minutes in total."),
        command.Also("--minutes"),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Equal steps in place of equal minutes.")] = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="SECTION.KEY=VALUE", help="Train with this setting too; may be repeated."),
    ] = None,
    seeds: sweep.Seeds = 1,
    jobs: sweep.Jobs = 1,
    output: sweep.Output = None,
    device: sweep.Device = None,
    seed: sweep.Seed = None,
    dry_run: sweep.DryRun = False,
    json: command.Json = False,
) -> None:
    """Train with each remedy against drift left out in turn, and print what each is worth.

    The same command again goes on where it stopped. The table is of each run's last checkpoint, which nothing was
    chosen by, and is kept as ablation.json and ablation.md.

    Examples:
      vidcvae ablate my-dance --max-minutes 5
      vidcvae ablate my-dance --steps 800 --seeds 3 --jobs 2
    """
    if (max_minutes is None) == (steps is None):
        raise UsageError("an ablation compares equal budgets: --max-minutes or --steps.", "Give one of the two.")
    folder = output or Path("runs") / trials.folder_name(f"ablate-{preset or 'defaults'}")
    common = trials.Common(dataset, preset, config, (*(set_ or []), *sweep.computing(device, seed)))
    base = common.resolve()
    common = replace(common, settings=(*common.settings, *_budget(base, max_minutes, steps)))
    variants = [
        trials.Variant(FULL),
        *(trials.Variant(trials.folder_name(f"without {remedy}"), off) for remedy, off in _used(base).items()),
        *(trials.Variant(trials.folder_name(f"with {text}"), (text,)) for text in also or []),
    ]

    def tell(done: list[trials.Trial]) -> None:
        if done:
            _tell(folder, _rows(done, quiet=json), json)
        elif json:
            ui.emit({"output": str(folder), "rows": []})

    trials.carry_out(folder, common, variants, seeds=seeds, jobs=jobs, dry_run=dry_run, tell=tell, json=json)


def _budget(base: Config, minutes: float | None, steps: int | None) -> list[str]:
    """Settings that give every run the same time, or the same steps, all of it for training: the end is scored, and
    nothing before it. What counts in epochs keeps its share of the training."""
    if minutes is not None:
        return [f"training.max_minutes={minutes:g}", "validation.every=0"]
    assert steps
    epochs, each = _parts(steps, base.training.epochs)
    if epochs * each != steps:
        ui.note(f"{steps} steps do not divide well: {epochs * each} are trained, {epochs} epochs of {each}")
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


def _used(base: Config) -> dict[str, tuple[str, ...]]:
    """The remedies that ``base`` makes use of: those that can be left out."""
    from vidcvae import config as settings

    table = settings.to_table(base)
    found = {}
    for remedy, off in REMEDIES.items():
        changes = [settings.read_override(text) for text in off]
        known = all(key in table[section] for change in changes for section, keys in change.items() for key in keys)
        if known and settings.resolve(table, *changes) != base:
            found[remedy] = off
    return found


def _rows(done: list[trials.Trial], quiet: bool) -> list[dict[str, Any]]:
    """For each variant the means over its seeds, their spread, and the test against the full model."""
    from vidcvae.evaluation.compare import welch

    scores: dict[str, list[dict[str, Any]]] = {}
    for trial, (_, record) in zip(done, trials.score(done, "last", quiet=quiet), strict=True):
        age = _age_test(trial, quiet)
        own = {
            "psnr_mean": record["psnr_mean"],
            "psnr_first_50": record.get("psnr_first_50"),
            "psnr_last_50": record.get("psnr_last_50"),
            "lost_to_age": age and age["lost"],
            "minutes": record["model"]["minutes"],
            "steps": record["protocol"]["step"],
        }
        scores.setdefault(trial.variant.name, []).append({"run": trial.path.name, "age_test": age, **own})
    rows = []
    for name, runs in scores.items():
        row: dict[str, Any] = {
            "variant": name,
            "settings": next(t.variant.settings for t in done if t.variant.name == name),
        }
        for key in COLUMNS:
            values = [run[key] for run in runs if run[key] is not None]
            row[key] = fmean(values) if values else None
        psnrs = [run["psnr_mean"] for run in runs]
        row["spread"] = stdev(psnrs) if len(psnrs) > 1 else None
        if name != FULL and FULL in scores:
            full = [run["psnr_mean"] for run in scores[FULL]]
            row["against_full"] = fmean(psnrs) - fmean(full)
            row["p_value"] = welch(full, psnrs)
        rows.append(row | {"runs": runs})
    return rows


def _age_test(trial: trials.Trial, quiet: bool) -> dict[str, Any] | None:
    """What the last frames lose to the age of a run; kept beside the score. None for a video too short to tell."""
    from vidcvae.evaluation import drift
    from vidcvae.workflow import opening, scores

    loaded, data = opening.load_with_data(trial.path, "last", voice=ui.Speaker(bars=not quiet))

    def measure() -> dict[str, Any]:
        with ui.progress(f"age test of {trial.path.name}", quiet) as advance:
            return drift.age_test(loaded, data, device=loaded.device, progress=advance).to_json()

    try:
        return scores.measured(loaded, data, "val-age-last", measure)
    except DataError as error:
        ui.warn(error.message)
        return None


def _tell(folder: Path, rows: list[dict[str, Any]], json: bool) -> None:
    from vidcvae.storage import durable

    seeds = max(len(row["runs"]) for row in rows)
    shown = {name: title for name, title in COLUMNS.items() if any(row[name] is not None for row in rows)}
    head = ["variant", *shown.values(), "against full (dB)", *(["p"] if seeds > 1 else [])]
    body = []
    for row in rows:
        cells = [row["variant"], *(_cell(row[name], DIGITS[name]) for name in shown)]
        if row["spread"] is not None:
            cells[1] += f" ± {row['spread']:.2f}"
        p = [_cell(row.get("p_value"), 3)] if seeds > 1 else []
        body.append([*cells, f"{row['against_full']:+.2f}" if "against_full" in row else "", *p])
    note = (
        f"Free run of val from its first frame, z = 0, last checkpoint; {seeds} seed{'s' if seeds > 1 else ''}"
        + (": means, and the standard deviation of the PSNR" if seeds > 1 else "")
        + ". Lost to age: PSNR of the last frames from a restart not long before, less that from the start."
    )
    durable.write_text(folder / "ablation.md", f"{ui.markdown(head, body)}\n\n{note}\n")
    durable.write_json(folder / "ablation.json", {"command": ui.command(), "rows": rows})
    if json:
        ui.emit({"output": str(folder), "rows": rows})
        return
    ui.table("", head, body)
    ui.say(f"{note}\n{folder / 'ablation.md'}, {folder / 'ablation.json'}")


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
