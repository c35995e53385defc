"""``vidcvae sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidcvae.cli import command, options, studies, ui
from vidcvae.cli.options import setting
from vidcvae.errors import UsageError

if TYPE_CHECKING:
    from vidcvae.workflow.trials import Trial


def sweep(
    dataset: command.Dataset,
    vary: Annotated[
        list[str], command.option("A setting and its values; may be repeated.", metavar="SECTION.KEY=V1,V2,..")
    ],
    preset: options.Preset = None,
    config: options.File = None,
    set_: options.Set = None,
    epochs: Annotated[int | None, setting("training.epochs", "Epochs of each run.")] = None,
    max_minutes: Annotated[
        float | None, setting("training.max_minutes", "Stop each training after this many minutes in total.")
    ] = None,
    seeds: studies.Seeds = 1,
    jobs: studies.Jobs = 1,
    output: studies.Output = None,
    device: studies.Device = None,
    seed: studies.Seed = None,
    dry_run: studies.DryRun = False,
    json: command.Json = False,
) -> None:
    """Train with every combination of the given values, and compare the runs.

    To continue after an interruption, repeat the command: it skips finished runs, resumes interrupted ones, and starts
    missing ones. A run that fails does not stop the others.

    Examples:
      vidcvae sweep my-dance --vary kl.type=none,cyclical
      vidcvae sweep my-dance --preset course --vary optimizer.lr=1e-3,1e-4 --seeds 3 -o runs/lr
    """
    from vidcvae import config as settings
    from vidcvae.workflow import trials

    grid = [settings.read_values(text) for text in vary]
    keys = [key for key, _ in grid]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"--vary {key} is given twice.", f"List all its values in one: --vary {key}=V1,V2")
    if (seeds > 1 or seed is not None) and "training.seed" in keys:
        raise UsageError(
            f"{'--seeds' if seeds > 1 else '--seed'} and --vary training.seed both choose seeds.",
            "Leave one of them out.",
        )
    overrides = studies.overrides(set_, device=device, seed=seed, epochs=epochs, max_minutes=max_minutes)
    name, variants = trials.every_combination(grid)
    folder = output or Path("runs") / name

    def show(done: list[Trial]) -> None:
        from vidcvae.evaluation.compare import table

        rows = table(trials.score(done, voice=ui.Speaker(bars=not json))) if done else []
        if json:
            counts = {"trained": len(done), "planned": len(variants) * seeds}
            ui.emit({"output": str(folder), **counts, "rows": [row.to_json() for row in rows]})
            return
        if rows:
            ui.score_table(rows)
        ui.say(f"{len(done)} of {len(variants) * seeds} runs are trained in {folder}")

    common = trials.Common(dataset, preset, config, overrides)
    studies.carry_out(folder, common, variants, seeds=seeds, jobs=jobs, dry_run=dry_run, show=show, json=json)
