"""``vidcvae runs list | show | prune``."""

from __future__ import annotations

import contextlib
import json as jsonlib
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import completion, ui
from vidcvae.errors import DataError, VidcvaeError

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
    """Free space: numbered checkpoints that are neither last nor best, leftovers of dead writers, caches of no use.

    Only names them unless --yes is given. `best` and `last` always stay, and a running run is not touched.
    """
    folders = find(runs)
    freed: list[int] = []
    for run in folders:
        with contextlib.ExitStack() as held:
            if holder := lock_holder(run):
                ui.note(f"{run.path} is in use by {holder}: left alone")
                continue
            if yes:  # so that no training begins while its files go
                held.enter_context(_holding(run))
            freed += [_drop(path, why, yes) for path, why in _useless_files(run)]
    freed += [_drop(path, why, yes) for path, why in _useless_caches(folders)]
    if not freed:
        ui.say("nothing to remove")
    elif yes:
        ui.say(f"freed {_size(sum(freed))}")
    else:
        ui.say(f"would free {_size(sum(freed))}; nothing was removed. To do it: add --yes")


def _drop(path: Path, why: str, really: bool) -> int:
    """Tell of a file or folder that is of no use, and remove it if that is meant; its bytes."""
    import shutil

    from vidcvae.storage import durable

    size = _disk_use([path])
    ui.say(f"{'removed' if really else 'would remove'} {path} ({_size(size)}): {why}")
    if really and path.is_dir():
        shutil.rmtree(path)
    elif really:
        durable.remove(path)
    return size


def _useless_files(run: RunFolder) -> list[tuple[Path, str]]:
    """Numbered checkpoints that are neither last nor best, and what dead writers left; all stay if ``last`` is gone."""
    from vidcvae.storage import checkpoint, durable

    kept = [path for name in (checkpoint.LAST, checkpoint.BEST) if (path := run.checkpoints / name).exists()]
    steps = checkpoint.steps(run.checkpoints) if run.checkpoints / checkpoint.LAST in kept else []
    found = [(path, "neither last nor best") for path in steps if not any(path.samefile(other) for other in kept)]
    left = [path for place in (run.path, run.checkpoints) for path in durable.leftovers(place)]
    return found + [(path, "left by a writer that died") for path in left]


def _useless_caches(folders: Sequence[RunFolder]) -> list[tuple[Path, str]]:
    """Decoded images of data that no run here has; none while a run is going on."""
    if any(lock_holder(run) for run in folders):
        return []
    used = {_data_fingerprint(run) for run in folders}
    caches = sorted(path for run in folders if run.cache.is_dir() for path in run.cache.iterdir() if path.is_dir())
    why = "decoded images of data that no run here has, or that have changed"
    return [(path, why) for path in dict.fromkeys(caches) if path.name.rpartition("-")[2] not in used]


def find(given: Sequence[Path] | None) -> list[RunFolder]:
    """The runs that the arguments mean, the newest last; a folder of runs stands for all in it.

    Raises ``DataError`` for a name that is neither.
    """
    from vidcvae.storage.run import ROOT, RunFolder, find_run

    found: list[Path] = []
    for place in given or [ROOT]:
        if not (place / "config.toml").is_file():
            inside = [p.parent for p in (*place.glob("*/config.toml"), *place.glob("*/*/config.toml"))]
            if inside:
                found += inside
                continue
            if not given:
                raise DataError(f"there is no run yet under {ROOT}.", "Train one: vidcvae train")
        found.append(find_run(place).path)
    return [RunFolder(path) for path in sorted(set(found), key=lambda p: (p / "config.toml").stat().st_mtime_ns)]


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
    import safetensors

    if not path.exists():
        return {}
    try:
        with safetensors.safe_open(path, "numpy") as file:
            found: dict[str, Any] = jsonlib.loads((file.metadata() or {})["vidcvae"])
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} is damaged: {error}.", f"Check it: vidcvae checkpoint verify {path}") from None
    return found


def lock_holder(run: RunFolder) -> str:
    """Who trains in a run just now, in words; empty if nobody does."""
    from vidcvae.storage import lock

    return lock.holder(run.path)


def _holding(run: RunFolder) -> contextlib.AbstractContextManager[str]:
    from vidcvae.storage import lock

    return lock.holding(run.path)


def _command(run: RunFolder) -> str:
    from vidcvae import reading

    try:
        words = reading.parse_json(reading.read_bytes(run.info))["command"]
        return shlex.join(["vidcvae", *words[1:]])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def _next(run: Overview) -> list[str]:
    name = shlex.quote(run.path)
    match run.state:
        case "running":
            return [f"vidcvae plot loss {name} --terminal"]
        case "damaged":
            return [f"vidcvae checkpoint verify {name}"]
        case "no checkpoint":
            return [f"vidcvae config show {name}"]
        case "resumable":
            return [f"vidcvae resume {name}", f"vidcvae evaluate {name}"]
    more = f"vidcvae resume {name} --epochs {run.epochs + 10}"
    return [f"vidcvae evaluate {name}", f"vidcvae plot loss {name}", more]


def _data_fingerprint(run: RunFolder) -> str | None:
    """The name that the cache of a run's data ends in; None where there is none."""
    from vidcvae.data import fingerprint

    try:
        config = _config(run)
    except VidcvaeError:
        return None
    path = Path(config.data.path)
    return fingerprint(path, config.data.size) if path.is_dir() else None


def _disk_use(places: Sequence[Path]) -> int:
    """Bytes below the paths; a file with several names counts once."""
    files = [f for place in places for f in ([place] if place.is_file() else place.rglob("*")) if f.is_file()]
    stats = [file.stat() for file in files]
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
