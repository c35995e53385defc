"""``vidcvae ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidcvae.cli import command, options, studies, ui
from vidcvae.cli.command import option
from vidcvae.errors import UsageError

if TYPE_CHECKING:
    from vidcvae.workflow.trials import Trial


def ablate(
    dataset: command.Dataset,
    preset: options.Preset = "anchor-cpu",
    config: options.File = None,
    set_: options.Set = None,
    max_minutes: Annotated[
        float | None, option("Stop each training after this many minutes in total."), command.Also("--minutes")
    ] = None,
    steps: Annotated[int | None, option("Train each for this many steps instead of minutes.", min=1)] = None,
    also: Annotated[
        list[str] | None,
        option("Also train with this setting changed; may be repeated.", metavar="SECTION.KEY=VALUE"),
    ] = None,
    seeds: studies.Seeds = 1,
    jobs: studies.Jobs = 1,
    output: studies.Output = None,
    device: studies.Device = None,
    seed: studies.Seed = None,
    dry_run: studies.DryRun = False,
    json: command.Json = False,
) -> None:
    """Train the full model, and once without each of its remedies against drift; print how much each one is worth.

    To continue after an interruption, repeat the command. Scores are those of each run's last checkpoint, so that no
    choice by score favours a run. The table is saved as ablation.json and ablation.md.

    Examples:
      vidcvae ablate my-dance --max-minutes 5
      vidcvae ablate my-dance --steps 800 --seeds 3 --jobs 2
    """
    from vidcvae.output.table import markdown
    from vidcvae.storage import durable
    from vidcvae.workflow import ablation, trials

    if (max_minutes is None) == (steps is None):
        raise UsageError("an ablation compares equal budgets: --max-minutes or --steps.", "Give one of the two.")
    folder = output or Path("runs") / trials.folder_name(f"ablate-{preset or 'defaults'}")
    overrides = studies.overrides(set_, device=device, seed=seed)
    base = trials.Common(dataset, preset, config, overrides).resolve()
    budget = ablation.budget(base, max_minutes, steps, ui.Speaker())
    variants = ablation.variants(base, also or ())

    def show(done: list[Trial]) -> None:
        rows = ablation.measure(done, ui.Speaker(bars=not json))
        if done:
            head, body, note = ablation.table(rows)
            durable.write_text(folder / "ablation.md", f"{markdown(head, body)}\n\n{note}\n")
            durable.write_json(folder / "ablation.json", {"command": ui.command(), "rows": rows})
        if json:
            ui.emit({"output": str(folder), "rows": rows})
        elif done:
            ui.table("", head, body)
            ui.say(f"{note}\n{folder / 'ablation.md'}, {folder / 'ablation.json'}")

    common = trials.Common(dataset, preset, config, (*overrides, *budget))
    studies.carry_out(folder, common, variants, seeds=seeds, jobs=jobs, dry_run=dry_run, show=show, json=json)
