"""What ``sweep`` and ``ablate`` share: their options, and a study carried out before somebody's eyes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidcvae.cli import command, ui
from vidcvae.cli.options import setting
from vidcvae.config import schema
from vidcvae.errors import VidcvaeError

if TYPE_CHECKING:
    from vidcvae.workflow.trials import Common, Trial, Variant

Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Train each with so many seeds, for error bars.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="How many train at the same time.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="The folder of all runs: new, empty, or of the same command, which then goes on.",
        show_default="under runs",
    ),
    command.Also("--into"),
]
Device = Annotated[schema.Device | None, setting("training.device", "--device", "Where to compute.")]
Seed = Annotated[
    int | None, setting("training.seed", "--seed", "Seed of everything random; of the first of --seeds.", min=0)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and do nothing.")]


def overrides(set_: list[str] | None, **training: str | float | None) -> tuple[str, ...]:
    """--set, and the options that stand for settings of the training, as --set takes them."""
    given = {key: value for key, value in training.items() if value is not None}
    texts = {key: f"{value:g}" if isinstance(value, float) else value for key, value in given.items()}
    return (*(set_ or []), *(f"training.{key}={text}" for key, text in texts.items()))


def carry_out(
    folder: Path,
    common: Common,
    variants: Sequence[Variant],
    *,
    seeds: int,
    jobs: int,
    dry_run: bool,
    tell: Callable[[list[Trial]], None],
    json: bool,
) -> None:
    """Plan, check and run a study, and ``tell`` of the runs that are done. A dry run ends after the checks.

    Raises ``VidcvaeError`` that lists the runs that failed, once the others are told of.
    """
    from vidcvae.workflow import trials

    study = trials.plan(folder, common, variants, seeds)
    again = ui.command()
    planned = trials.prepare(folder, study, command=again, dry_run=dry_run, voice=ui.Speaker(bars=not json))
    if dry_run and json:
        ui.emit({"output": str(folder), "planned": planned})
        return
    if dry_run:
        rows = [["-" if value is None else value for value in run.values()] for run in planned]
        ui.table("", ("run", "epochs", "steps", "minutes"), rows)
        ui.say(f"{len(study)} runs; nothing was written")
        return
    problems = trials.run_all(study, jobs, command=again, voice=ui.Speaker())
    tell([trial for trial in study if trial not in problems])
    if problems:
        told = "".join(f"\n  - {trial.path}: {problem}" for trial, problem in problems.items())
        raise VidcvaeError(f"{len(problems)} of the runs failed:{told}", f"The same command tries them again: {again}")
