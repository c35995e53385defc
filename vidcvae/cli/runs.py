"""``vidcvae runs list | show | prune | rm``."""

from __future__ import annotations

import contextlib
import json as jsonlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import command, completion, ui
from vidcvae.errors import UsageError, VidcvaeError, typed
from vidcvae.workflow import at_glance

if TYPE_CHECKING:
    from vidcvae.storage.run import RunFolder

WHY_CACHE = "decoded images of data that no run here has, or that have changed"

app = command.App(help="List runs, look into them, and free their space.", no_args_is_help=True)

Runs = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Run folders, or folders of runs; the folder runs if left out.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]


@app.command("list")
def list_(runs: Runs = None, json: command.Json = False) -> None:
    """Every run, the newest last: what it trained, how far it came, how good it became, and what it takes on disk.

    Examples:
      vidcvae runs list
      vidcvae runs list runs/kl --json
    """
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
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder; the newest if left out.", show_default=False, autocompletion=completion.runs),
    ] = None,
    json: command.Json = False,
) -> None:
    """One run: where it stands, the settings that are not the defaults, its checkpoints, and what to do next.

    Examples:
      vidcvae runs show
      vidcvae runs show runs/course-001
    """
    from vidcvae import config as settings
    from vidcvae.storage.run import find_run

    folder = find_run(run)
    found = at_glance.overview(folder)
    config = at_glance.config_of(folder)
    default = settings.resolve({"model": {"name": config.model.name}, **at_glance.minimum(config)})
    changed = {key: value for key, (_, value) in settings.differences(default, config).items()}
    files: list[dict[str, Any]] = [
        {"file": path.name, "size": path.stat().st_size, "step": at_glance.position(path).get("step")}
        for path in sorted(folder.checkpoints.glob("*.safetensors"))
    ]
    if json:
        ui.emit({**asdict(found), "settings": changed, "checkpoints": files, "next": _next(found)})
        return
    ui.say(f"{found.path}: {found.state}{f' ({found.problem})' if found.problem else ''}")
    best = "none yet" if found.best_psnr is None else f"{found.best_psnr:.2f} dB"
    rows = [
        ("model", found.model),
        ("data", found.data),
        ("epochs", f"{found.epoch} of {found.epochs}, {found.step} steps"),
        ("minutes", f"{found.minutes:.1f}"),
        ("best PSNR", best),
        ("score", _score(folder)),
        ("size", _size(found.size)),
        ("command", _command(folder)),
    ]
    for name, value in rows:
        ui.say(f"  {name:<10} {value}")
    values = [(key, jsonlib.dumps(value)) for key, value in changed.items()]
    ui.table("\nsettings that are not the defaults", ("key", "value"), values)
    ui.table("\ncheckpoints", ("file", "step", "size"), [(f["file"], f["step"], _size(f["size"])) for f in files])
    ui.say("")
    for text in _next(found):
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
    from vidcvae.data import cache
    from vidcvae.storage import durable, lock, upkeep
    from vidcvae.storage.run import was_made

    folders = at_glance.find(runs, started=False)
    freed: list[dict[str, Any]] = []
    tell = ui.note if json else ui.say

    def drop(path: Path, files: Sequence[Path], why: str, remove: Callable[[], object]) -> None:
        size = at_glance.disk_use(files)
        if yes:
            remove()
        freed.append({"path": str(path), "size": size, "why": why})
        tell(f"{'removed' if yes else 'would remove'} {path} ({_size(size)}): {why}")

    for run in folders:
        if run.path.is_symlink() or not was_made(run.path):
            why = "a link" if run.path.is_symlink() else "no run that vidcvae made: its run.json does not say so"
            ui.note(f"{run.path} is {why}: left alone")
        elif holder := at_glance.lock_holder(run):
            ui.note(f"{run.path} is in use by {holder}: left alone")
        elif upkeep.is_failed_start(run):
            why = "its training ended before its first checkpoint"
            drop(run.path, [run.path], why, partial(upkeep.remove_run, run))
        else:
            with (
                lock.holding(run.path) if yes else contextlib.nullcontext()
            ):  # so that no training begins while its files go
                for path, why in upkeep.useless_files(run):
                    drop(path, [path], why, partial(durable.remove, path))
    for place in dict.fromkeys(run.cache for run in folders):
        useless, why_none = cache.unused(place)
        if why_none:
            ui.note(f"{place} {why_none}: left alone")
        for each in useless:
            drop(each.folder, each.files, WHY_CACHE, partial(cache.remove, each))
    total = sum(each["size"] for each in freed)
    if json:
        ui.emit({"removed": yes, "size": total, "found": freed})
    else:
        _tell_freed(total, yes)


def _tell_freed(total: int, yes: bool) -> None:
    if not total:
        ui.say("nothing to remove")
    elif yes:
        ui.say(f"freed {_size(total)}")
    else:
        ui.say(f"would free {_size(total)}; nothing was removed. To do it: add --yes")


@app.command()
def rm(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders.", show_default=False, autocompletion=completion.runs),
    ],
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
    import sys

    from vidcvae.storage import upkeep

    tell = ui.note if json else ui.say
    folders = [_removable(path) for path in dict.fromkeys(runs)]  # all are checked before the first one goes
    if not yes:
        for run in folders:
            files = upkeep.own_files(run)
            tell(f"{run.path}: {len(files)} file{'s' if len(files) != 1 else ''}, {_size(at_glance.disk_use(files))}")
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


def _removable(path: Path) -> RunFolder:
    """The run that may be removed under this name; raises ``VidcvaeError`` that says why it may not."""
    from vidcvae.storage.run import ROOT, RunFolder, find_run, was_made

    # a start that failed has no config, by which find_run knows a run
    place = next((place for place in (path, ROOT / path) if was_made(place)), None) or find_run(path).path
    if place.is_symlink() or not was_made(place):
        why = "is a link, not a run" if place.is_symlink() else "was not made by vidcvae: its run.json does not say so"
        raise UsageError(f"{place} {why}.", f"Look at it, and remove it yourself: ls {shlex.quote(str(place))}")
    if holder := at_glance.lock_holder(RunFolder(place)):
        raise UsageError(f"{place} is in use by {holder}.", "Wait until it ends, or stop it: kill -TERM its number.")
    return RunFolder(place)


def _command(run: RunFolder) -> str:
    from vidcvae.storage.run import read_info

    try:
        return typed(*read_info(run)["command"][1:])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def _score(run: RunFolder) -> str:
    """The ordinary score of the checkpoint that the run's folder stands for, and how that was chosen."""
    from vidcvae.evaluation import records
    from vidcvae.storage import checkpoint
    from vidcvae.storage.run import find_checkpoint

    try:
        path, _ = find_checkpoint(run.path)
        record = records.ordinary_without_data(run, *checkpoint.read_header(path))
    except VidcvaeError:
        return "none"
    if record is None:
        return "none yet"
    return f"{record['psnr_mean']:.2f} dB, z = 0; checkpoint: {records.selection_text(record)}"


def _next(run: at_glance.Overview) -> list[str]:
    match run.state:
        case "running":
            return [typed("plot", "loss", run.path, "--terminal")]
        case "damaged":
            return [typed("checkpoint", "verify", run.path)]
        case "no checkpoint":
            return [typed("config", "show", run.path)]
    loss, scored = typed("plot", "loss", run.path), run.best_psnr is not None
    score = [typed("evaluate", run.path)] if scored else []  # else there may be no val split to take it from
    if run.state == "resumable":
        return [typed("resume", run.path), *score]
    return [*score, loss, typed("resume", run.path, "--more-epochs", 10)]


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
