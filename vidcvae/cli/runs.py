"""``vidcvae runs list | show | prune | rm``."""

from __future__ import annotations

import contextlib
import json as jsonlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import completion, ui
from vidcvae.errors import DataError, UsageError, VidcvaeError, typed

if TYPE_CHECKING:
    from vidcvae.config import Config
    from vidcvae.storage.run import RunFolder

app = typer.Typer(help="List runs, look into them, and free their space.", no_args_is_help=True)

Runs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Run folders, or folders of runs; the folder runs if left out.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="The same as one JSON document.")]


@dataclass(frozen=True)
class Overview:
    """A run at a glance. state: "running", "finished", "resumable", "no checkpoint" or "damaged"; size in bytes."""

    path: str
    state: str
    model: str = "-"
    data: str = "-"
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    minutes: float = 0.0
    best_psnr: float | None = None
    size: int = 0
    problem: str = ""


@app.command("list")
def list_(runs: Runs = None, json: Json = False) -> None:
    """Every run, the newest last: what it trained, how far it came, how good it became, and what it takes on disk."""
    found = [overview(folder) for folder in find(runs)]
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
    json: Json = False,
) -> None:
    """One run: where it stands, the settings that are not the defaults, its checkpoints, and what to do next."""
    from vidcvae import config as settings
    from vidcvae.storage.run import find_run

    folder = find_run(run)
    found = overview(folder)
    config = _config(folder)
    default = settings.resolve({"model": {"name": config.model.name}, **_minimum(config)})
    changed = {key: value for key, (_, value) in settings.differences(default, config).items()}
    files: list[dict[str, Any]] = [
        {"file": path.name, "size": path.stat().st_size, "step": _position(path).get("step")}
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
    for command in _next(found):
        ui.say(f"Next: {command}")


@app.command()
def prune(
    runs: Runs = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only named.")] = False,
) -> None:
    """Free space: numbered checkpoints that are neither last nor best, leftovers of dead writers, runs that never got
    a checkpoint, caches of no use.

    Only names them unless --yes is given. `best` and `last` always stay, a running run is not touched, and nothing goes
    that vidcvae did not write.
    """
    from vidcvae.storage import durable, lock, upkeep
    from vidcvae.storage.run import was_made

    folders = find(runs, started=False)
    freed: list[int] = []
    for run in folders:
        if run.path.is_symlink() or not was_made(run.path):
            why = "a link" if run.path.is_symlink() else "no run that vidcvae made: its run.json does not say so"
            ui.note(f"{run.path} is {why}: left alone")
        elif holder := lock_holder(run):
            ui.note(f"{run.path} is in use by {holder}: left alone")
        elif upkeep.is_failed_start(run):
            why = "its training ended before its first checkpoint"
            freed.append(_drop(run.path, [run.path], why, partial(upkeep.remove_run, run) if yes else None))
        else:
            with (
                lock.holding(run.path) if yes else contextlib.nullcontext()
            ):  # so that no training begins while its files go
                for path, why in upkeep.useless_files(run):
                    freed.append(_drop(path, [path], why, partial(durable.remove, path) if yes else None))
    for place in dict.fromkeys(run.cache for run in folders):
        freed += _prune_caches(place, yes)
    if not freed:
        ui.say("nothing to remove")
    elif yes:
        ui.say(f"freed {_size(sum(freed))}")
    else:
        ui.say(f"would free {_size(sum(freed))}; nothing was removed. To do it: add --yes")


def _prune_caches(place: Path, yes: bool) -> list[int]:
    """Remove, or only name, the caches in ``place`` that no run beside it uses; their bytes."""
    from vidcvae.data import cache

    useless, why_none = cache.unused(place)
    if why_none:
        ui.note(f"{place} {why_none}: left alone")
    why = "decoded images of data that no run here has, or that have changed"
    return [_drop(each.folder, each.files, why, partial(cache.remove, each) if yes else None) for each in useless]


def _drop(path: Path, files: Sequence[Path], why: str, remove: Callable[[], object] | None) -> int:
    """Remove what is of no use, or only tell of it; the bytes of its ``files``."""
    size = _disk_use(files)
    if remove:
        remove()
    ui.say(f"{'removed' if remove else 'would remove'} {path} ({_size(size)}): {why}")
    return size


@app.command()
def rm(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders.", show_default=False, autocompletion=completion.runs),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove runs with all that vidcvae wrote into them: checkpoints, history, scores. Asks before it does.

    Files of yours that lie in the folder stay there, and a run that is in use is refused.
    """
    import sys

    from vidcvae.storage import upkeep

    folders = [_removable(path) for path in dict.fromkeys(runs)]  # all are checked before the first one goes
    if not yes:
        for run in folders:
            files = upkeep.own_files(run)
            ui.say(f"{run.path}: {len(files)} file{'s' if len(files) != 1 else ''}, {_size(_disk_use(files))}")
        if not sys.stdin.isatty():
            raise UsageError("nothing was removed: there is nobody to ask.", "Remove them without asking: add --yes")
        if not typer.confirm("Remove for good?"):
            ui.say("nothing was removed")
            return
    for run in folders:
        size = _disk_use(upkeep.own_files(run))
        left = upkeep.remove_run(run)
        ui.say(f"removed {run.path} ({_size(size)})")
        if left:
            told = ", ".join(path.relative_to(run.path).as_posix() for path in left[:5])
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            ui.note(f"{run.path} still holds what vidcvae did not write: {told}{more}")


def _removable(path: Path) -> RunFolder:
    """The run that may be removed under this name; raises ``VidcvaeError`` that says why it may not."""
    from vidcvae.storage.run import ROOT, RunFolder, find_run, was_made

    # a start that failed has no config, by which find_run knows a run
    place = next((place for place in (path, ROOT / path) if was_made(place)), None) or find_run(path).path
    if place.is_symlink() or not was_made(place):
        why = "is a link, not a run" if place.is_symlink() else "was not made by vidcvae: its run.json does not say so"
        raise UsageError(f"{place} {why}.", f"Look at it, and remove it yourself: ls {shlex.quote(str(place))}")
    if holder := lock_holder(RunFolder(place)):
        raise UsageError(f"{place} is in use by {holder}.", "Wait until it ends, or stop it: kill -TERM its number.")
    return RunFolder(place)


def find(given: Sequence[Path] | None, started: bool = True) -> list[RunFolder]:
    """The runs that the arguments mean, the newest last; a folder of runs stands for all in it.

    Unless ``started``, folders that ``create_run`` made and no training began in are among them. Raises ``DataError``
    for a name that is neither.
    """
    from vidcvae.storage.run import ROOT, RunFolder, find_run, is_run, runs_in, was_made

    found: list[Path] = []
    for place in given or [ROOT]:
        if is_run(place) or (not started and was_made(place)):
            found.append(place)
        elif inside := runs_in(place, started):
            found += inside
        elif given:
            found.append(find_run(place).path)
        else:
            raise DataError(f"there is no run yet under {ROOT}.", "Train one: vidcvae train")

    def age(path: Path) -> int:
        run = RunFolder(path)
        return (run.config if run.config.exists() else run.info).stat().st_mtime_ns

    return [RunFolder(path) for path in sorted(set(found), key=age)]


def overview(run: RunFolder) -> Overview:
    """What there is to know of a run without loading it; a damaged file is told, not raised."""
    from vidcvae.storage import checkpoint
    from vidcvae.storage.history import read_history

    size = _disk_use([run.path])
    path = str(run.path)
    try:
        config = _config(run)
        history = read_history(run.history) if run.history.exists() else []
        position = _position(run.checkpoints / checkpoint.LAST)
    except VidcvaeError as error:
        return Overview(path, "damaged", size=size, problem=" ".join(error.message.split()))
    scores = [record["psnr_zero"] for record in history if record.get("kind") == "validation"]
    epoch, progress = int(position.get("epoch", 0)), position.get("progress") or {}
    minutes = float(progress.get("minutes", 0.0))
    limit = config.training.max_minutes
    if lock_holder(run):
        state = "running"
    elif not position:
        state = "no checkpoint"
    elif epoch >= config.training.epochs or (limit and minutes >= limit):
        state = "finished"
    else:
        state = "resumable"
    return Overview(
        path=path,
        state=state,
        model=config.model.name,
        data=config.data.path,
        epoch=epoch,
        epochs=config.training.epochs,
        step=int(position.get("step", 0)),
        minutes=minutes,
        best_psnr=max(scores, default=None),
        size=size,
    )


def _config(run: RunFolder) -> Config:
    from vidcvae import config as settings

    return settings.resolve(settings.read_toml(run.config))


def _minimum(config: Config) -> dict[str, dict[str, Any]]:
    """What a model cannot do without: SVG's frame size and batch."""
    return {"data": {"size": [64, 64]}} if config.model.name.startswith("svg") else {}


def _position(path: Path) -> dict[str, Any]:
    """What a checkpoint's header says, without reading its tensors; empty if there is none."""
    from vidcvae.storage import checkpoint

    return checkpoint.read_header(path)[0] if path.exists() else {}


def lock_holder(run: RunFolder) -> str:
    """Who trains in a run just now, in words; empty if nobody does."""
    from vidcvae.storage import lock

    return lock.holder(run.path)


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


def _next(run: Overview) -> list[str]:
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
    return [*score, loss, typed("resume", run.path, "--epochs", run.epochs + 10)]


def _disk_use(places: Sequence[Path]) -> int:
    """Bytes below the paths; a file with several names counts once."""
    files = [f for place in places for f in ([place] if place.is_file() else place.rglob("*")) if f.is_file()]
    stats = [file.stat() for file in files]
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
