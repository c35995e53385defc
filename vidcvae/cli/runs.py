"""``vidcvae runs list | show | prune | rm``."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vidcvae.cli import command, trained, ui
from vidcvae.errors import UsageError, counted

app = command.App(help="List runs, look into them, and free their space.", no_args_is_help=True)

Runs = Annotated[
    list[Path] | None, trained.runs_argument("Run folders, or folders of runs; the folder runs if left out.")
]


@app.command("list")
def list_(runs: Runs = None, json: command.Json = False) -> None:
    """Every run, the newest last: what it trained, how far it came, how good it became, and what it takes on disk.

    Examples:
      vidcvae runs list
      vidcvae runs list runs/kl --json
    """
    from vidcvae.workflow import at_glance

    found = [at_glance.overview(folder) for folder in at_glance.find(runs)]
    if json:
        ui.emit({"runs": [asdict(run) for run in found]})
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
        for run in found
    ]
    ui.table("", ("run", "state", "model", "data", "epochs", "steps", "best PSNR", "minutes", "size"), rows)
    for run in found:
        if run.problem:
            ui.warn(f"{run.path}: {run.problem}")


@app.command()
def show(
    run: Annotated[Path | None, trained.runs_argument("Run folder; the newest if left out.")] = None,
    json: command.Json = False,
) -> None:
    """One run: where it stands, the settings that are not the defaults, its checkpoints, and what to do next.

    Examples:
      vidcvae runs show
      vidcvae runs show runs/course-001
    """
    from vidcvae.storage import checkpoint
    from vidcvae.storage.run import command_of, find_run, known_info
    from vidcvae.workflow import at_glance

    folder = find_run(run)
    found = at_glance.overview(folder)
    changed = at_glance.changed_settings(folder)
    files: list[dict[str, Any]] = [
        {"file": path.name, "size": path.stat().st_size, "step": checkpoint.read_header(path)[0].step}
        for path in sorted(folder.checkpoints.glob("*.safetensors"))
    ]
    if json:
        ui.emit({**asdict(found), "settings": changed, "checkpoints": files, "next": found.next_commands()})
        return
    ui.say(f"{found.path}: {found.state}{f' ({found.problem})' if found.problem else ''}")
    best = "none yet" if found.best_psnr is None else f"{found.best_psnr:.2f} dB"
    rows = [
        ("model", found.model),
        ("data", found.data),
        ("epochs", f"{found.epoch} of {found.epochs}, {found.step} steps"),
        ("minutes", f"{found.minutes:.1f}"),
        ("best PSNR", best),
        ("score", at_glance.score_of(folder)),
        ("size", _size(found.size)),
        ("command", command_of(known_info(folder)) or "unknown"),
    ]
    for name, value in rows:
        ui.say(f"  {name:<10} {value}")
    values = [(key, jsonlib.dumps(value)) for key, value in changed.items()]
    ui.table("\nsettings that are not the defaults", ("key", "value"), values)
    ui.table("\ncheckpoints", ("file", "step", "size"), [(f["file"], f["step"], _size(f["size"])) for f in files])
    ui.say("")
    for text in found.next_commands():
        ui.say(f"Next: {text}")


@app.command()
def prune(
    runs: Runs = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only named.")] = False,
    json: command.Json = False,
) -> None:
    """Free space: numbered checkpoints that are neither last nor best, leftovers of dead writers, runs that never got
    a checkpoint, caches of no use.

    Only names them unless --yes is given. `best` and `last` always stay, a running run is not touched, and nothing goes
    that vidcvae did not write.

    Examples:
      vidcvae runs prune
      vidcvae runs prune runs/course-001 --yes
    """
    from vidcvae.workflow import at_glance, pruning

    tell = ui.note if json else ui.say
    found = []
    for useless in pruning.prune(at_glance.find(runs, started=False), remove=yes, voice=ui.Speaker()):
        tell(f"{'removed' if yes else 'would remove'} {useless.path} ({_size(useless.size)}): {useless.why}")
        found.append(asdict(useless))
    total = sum(each["size"] for each in found)
    if json:
        ui.emit({"removed": yes, "size": total, "found": found})
    elif not total:
        ui.say("nothing to remove")
    elif yes:
        ui.say(f"freed {_size(total)}")
    else:
        ui.say(f"would free {_size(total)}; nothing was removed. To do it: add --yes")


@app.command()
def rm(
    runs: Annotated[list[Path], trained.runs_argument("Run folders.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: command.Json = False,
) -> None:
    """Remove runs with all that vidcvae wrote into them: checkpoints, history, scores. Asks before it does.

    Files of yours that lie in the folder stay there, and a run that is in use is refused. With --json nobody is asked,
    so that --yes is needed.

    Examples:
      vidcvae runs rm runs/course-001
      vidcvae runs rm runs/course-001 runs/course-002 --yes
    """
    from vidcvae.storage import upkeep
    from vidcvae.workflow import at_glance, pruning

    tell = ui.note if json else ui.say
    folders = [pruning.removable(path) for path in dict.fromkeys(runs)]  # all are checked before the first one goes
    if not yes:
        for run in folders:
            files = upkeep.own_files(run)
            tell(f"{run.path}: {counted(len(files), 'file')}, {_size(at_glance.disk_use(files))}")
        if json or not sys.stdin.isatty():
            raise UsageError("nothing was removed: there is nobody to ask.", "Remove them without asking: add --yes")
        if not typer.confirm("Remove for good?"):
            ui.say("nothing was removed")
            return
    removed = []
    for run in folders:
        size = at_glance.disk_use(upkeep.own_files(run))
        left = upkeep.remove_run(run)
        removed.append({"path": str(run.path), "size": size, "left": list(map(str, left))})
        tell(f"removed {run.path} ({_size(size)})")
        if left:
            told = ", ".join(path.relative_to(run.path).as_posix() for path in left[:5])
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            ui.note(f"{run.path} still holds what vidcvae did not write: {told}{more}")
    if json:
        ui.emit({"removed": removed})


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
