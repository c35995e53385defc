"""What ``sweep`` and ``ablate`` share: their options, and how a study is planned, run and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidcvae.cli import command, ui
from vidcvae.cli.command import option
from vidcvae.cli.options import setting
from vidcvae.config import schema
from vidcvae.errors import VidcvaeError, counted

if TYPE_CHECKING:
    from vidcvae.workflow.trials import Common, Trial, Variant

Seeds = Annotated[int, option("Train each variant with this many seeds, for error bars.", min=1)]
Jobs = Annotated[int, option("How many runs train at the same time.", min=1)]
Output = Annotated[
    Path | None,
    option(
        "The folder for all runs: new, empty, or from the same command, which it then continues.",
        "-o",
        show_default="under runs",
    ),
    command.Also("--into"),
]
Device = Annotated[schema.Device | None, setting("training.device", "Where to compute.")]
Seed = Annotated[int | None, setting("training.seed", "Random seed; with --seeds, the first one.", min=0)]
DryRun = Annotated[bool, option("Show what would be trained, and do nothing.")]


def overrides(set_: list[str] | None, **training: str | float | None) -> tuple[str, ...]:
    """The values of --set, and those of options that stand for training settings, all as --set takes them."""
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
    show: Callable[[list[Trial]], None],
    json: bool,
) -> None:
    """Plan, check and run a study, and ``show`` its finished runs. A dry run ends after the checks.

    Raises ``VidcvaeError`` that lists the failed runs, after the others have been shown.
    """
    from vidcvae.workflow import trials

    study = trials.plan(folder, common, variants, seeds)
    command_line = ui.command()
    planned = trials.prepare(folder, study, command=command_line, dry_run=dry_run, voice=ui.Speaker(bars=not json))
    if dry_run and json:
        ui.emit({"output": str(folder), "planned": planned})
        return
    if dry_run:
        rows = [["-" if value is None else value for value in run.values()] for run in planned]
        ui.table("", ("run", "epochs", "steps", "minutes"), rows)
        ui.say(f"{len(study)} runs; nothing was written")
        return
    failed = trials.run_all(study, jobs, command=command_line, voice=ui.Speaker())
    show([trial for trial in study if trial not in failed])
    if failed:
        reasons = "".join(f"\n  - {trial.path}: {reason}" for trial, reason in failed.items())
        raise VidcvaeError(
            f"{counted(len(failed), 'run')} failed:{reasons}", f"To try them again, repeat: {command_line}"
        )
