"""``vidcvae runs list | show | prune | rm``."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import command, trained, ui
from vidcvae.errors import UsageError, counted

app = command.App(help="List, show and remove runs, and free disk space.", no_args_is_help=True)

Runs = Annotated[
    list[Path] | None, trained.runs_argument("Run folders, or folders of runs; the folder named runs if left out.")
]


@app.command("list")
def list_(runs: Runs = None, json: command.Json = False) -> None:
    """List runs, the newest last: what they train, their progress, their best score, and their size on disk.

    Examples:
      vidcvae runs list
      vidcvae runs list runs/kl --json
    """
    from vidcvae.workflow import at_glance

    overviews = [at_glance.overview(folder) for folder in at_glance.find(runs)]
    if json:
        ui.emit({"runs": [asdict(run) for run in overviews]})
        return
    rows = [
        (
            run.path,
            run.state,
            run.model,
            run.data,
            f"{run.epoch}/{run.epochs}",
            run.step,
            "-" if run.best_psnr is None else f"{run.best_psnr:.2f}",
            f"{run.minutes:.1f}",
            _size(run.size),
        )
        for run in overviews
    ]
    ui.table("", ("run", "state", "model", "data", "epochs", "steps", "best PSNR", "minutes", "size"), rows)
    for run in overviews:
        if run.problem:
            ui.warn(f"{run.path}: {run.problem}")


@app.command()
def show(
    run: Annotated[Path | None, trained.runs_argument("Run folder; the newest if left out.")] = None,
    json: command.Json = False,
) -> None:
    """Show one run: its progress, the settings that differ from the defaults, its checkpoints, and the next command.

    Examples:
      vidcvae runs show
      vidcvae runs show runs/course-001
    """
    from vidcvae.storage.run import command_of, find_run, known_info
    from vidcvae.workflow import at_glance

    folder = find_run(run)
    overview = at_glance.overview(folder)
    changed = at_glance.changed_settings(folder)
    files = at_glance.checkpoints_of(folder)
    if json:
        ui.emit({**asdict(overview), "settings": changed, "checkpoints": files, "next": overview.next_commands()})
        return
    ui.say(f"{overview.path}: {overview.state}{f' ({overview.problem})' if overview.problem else ''}")
    best = "none yet" if overview.best_psnr is None else f"{overview.best_psnr:.2f} dB"
    rows = [
        ("model", overview.model),
        ("data", overview.data),
        ("epochs", f"{overview.epoch} of {overview.epochs}, {overview.step} steps"),
        ("minutes", f"{overview.minutes:.1f}"),
        ("best PSNR", best),
        ("score", at_glance.score_of(folder)),
        ("size", _size(overview.size)),
        ("command", command_of(known_info(folder)) or "unknown"),
    ]
    for name, value in rows:
        ui.say(f"  {name:<10} {value}")
    values = [(key, jsonlib.dumps(value)) for key, value in changed.items()]
    ui.table("\nsettings that differ from the defaults", ("key", "value"), values)
    ui.table("\ncheckpoints", ("file", "step", "size"), [(f["file"], f["step"], _size(f["size"])) for f in files])
    ui.say("")
    for text in overview.next_commands():
        ui.say(f"Next: {text}")


@app.command()
def prune(
    runs: Runs = None,
    yes: Annotated[bool, command.option("Remove them; without --yes they are only listed.")] = False,
    json: command.Json = False,
) -> None:
    """Free disk space: remove old numbered checkpoints, leftovers of crashed writers, runs that never got a checkpoint,
    and unused caches.

    Without --yes they are only listed. The checkpoints `best` and `last` always stay. Running runs, and files that
    vidcvae did not write, are never touched.

    Examples:
      vidcvae runs prune
      vidcvae runs prune runs/course-001 --yes
    """
    from vidcvae.workflow import at_glance, pruning

    show = ui.note if json else ui.say
    removable = []
    for useless in pruning.prune(at_glance.find(runs, started=False), remove=yes, voice=ui.Speaker()):
        show(f"{'removed' if yes else 'would remove'} {useless.path} ({_size(useless.size)}): {useless.why}")
        removable.append(asdict(useless))
    total = sum(each["size"] for each in removable)
    if json:
        ui.emit({"removed": yes, "size": total, "found": removable})
    elif not total:
        ui.say("nothing to remove")
    elif yes:
        ui.say(f"freed {_size(total)}")
    else:
        ui.say(f"would free {_size(total)}; nothing was removed. To remove them, add --yes")


@app.command()
def rm(
    runs: Annotated[list[Path], trained.runs_argument("Run folders.")],
    yes: Annotated[bool, command.option("Do not ask.")] = False,
    json: command.Json = False,
) -> None:
    """Remove runs with everything that vidcvae wrote into them: checkpoints, history, scores. Asks first.

    Your own files in the folder stay there. A run that is in use is refused. --json does not ask, so it needs --yes.

    Examples:
      vidcvae runs rm runs/course-001
      vidcvae runs rm runs/course-001 runs/course-002 --yes
    """
    from vidcvae.storage import upkeep
    from vidcvae.workflow import at_glance, pruning

    show = ui.note if json else ui.say
    folders = [pruning.removable(path) for path in dict.fromkeys(runs)]  # check all before removing any
    if not yes:
        for run in folders:
            files = upkeep.own_files(run)
            show(f"{run.path}: {counted(len(files), 'file')}, {_size(at_glance.disk_use(files))}")
        if json or not sys.stdin.isatty():
            raise UsageError(
                "nothing was removed: the input is not a terminal, so nobody can be asked.",
                "To remove them without asking, add --yes",
            )
        if not typer.confirm("Remove them permanently?"):
            ui.say("nothing was removed")
            return
    removed = []
    for run in folders:
        size = at_glance.disk_use(upkeep.own_files(run))
        left = upkeep.remove_run(run)
        removed.append({"path": str(run.path), "size": size, "left": list(map(str, left))})
        show(f"removed {run.path} ({_size(size)})")
        if left:
            names = ", ".join(path.relative_to(run.path).as_posix() for path in left[:5])
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            ui.note(f"{run.path} still holds files that vidcvae did not write: {names}{more}")
    if json:
        ui.emit({"removed": removed})


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
