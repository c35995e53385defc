"""Run folders: ``runs/NAME-001`` and what lies in them. A run is created once and never overwritten.

run.json         that vidcvae made it, and how it was started: command, versions, dataset, initial weights
config.toml      the resolved configuration; written after run.json, it makes the folder a run
history.jsonl    losses and scores
checkpoints/     last, best, and the newest steps
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidcvae import __version__, reading
from vidcvae.errors import DataError, UsageError, did_you_mean, typed
from vidcvae.storage import checkpoint, durable, lock

ROOT = Path("runs")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".mp4", ".mov")
MAX_INFO_BYTES = 1 << 20


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def name(self) -> str:
        """The folder's name; where that is just "run", as in ``demo/run``, the name of the folder around it."""
        return self.path.name if self.path.name != "run" else self.path.absolute().parent.name

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def info(self) -> Path:
        return self.path / "run.json"

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def cache(self) -> Path:
        """Where folders of images are kept in packed form, shared by the runs beside this one."""
        return self.path.parent / ".cache"


def create_run(name: str, path: Path | None = None) -> RunFolder:
    """A new folder: ``path`` where it is given, else ``runs/NAME-N`` with the next free number."""
    if path is not None:
        check_free(path)
        durable.make_folder(path)
        return _marked(RunFolder(path))
    durable.make_folder(ROOT)
    name = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "run"  # a folder's name on any system
    endings = [p.name.rpartition("-")[2] for p in ROOT.glob(f"{name}-*")]
    taken = [int(ending) for ending in endings if ending.isascii() and ending.isdecimal()]
    number = max(taken, default=0) + 1
    while True:
        try:
            durable.make_folder(ROOT / f"{name}-{number:03d}", new=True)
            return _marked(RunFolder(ROOT / f"{name}-{number:03d}"))
        except FileExistsError:  # another process took it this instant
            number += 1


def check_free(path: Path) -> None:
    """Raise ``VidcvaeError`` where ``path`` cannot become a run: it is one, is in use, or cannot be written."""
    if path.exists() and not (path.is_dir() and _is_free(path)):
        if who := lock.holder(path):
            raise lock.in_use(path, who)
        go_on = f", or go on with it: {typed('resume', path)}" if is_run(path) else "."
        raise UsageError(f"{path} already holds something; a run is never overwritten.", f"Choose another --run{go_on}")
    durable.check_writable(path)


def _marked(run: RunFolder) -> RunFolder:
    """Let its run.json say that vidcvae made it; that of a training that died here says so already."""
    if not run.info.exists():
        durable.write_json(run.info, {"vidcvae": __version__})
    return run


def _is_free(folder: Path) -> bool:
    """Whether it holds nothing, or only what a training leaves that died before it wrote its config."""
    rests = {folder / lock.FILE, *durable.leftovers(folder)} | ({RunFolder(folder).info} if was_made(folder) else set())
    return all(path in rests for path in folder.iterdir())


def was_made(folder: Path) -> bool:
    """Whether ``create_run`` made it: its run.json says so."""
    return isinstance(known_info(RunFolder(folder)).get("vidcvae"), str)


def read_info(run: RunFolder) -> dict[str, Any]:
    """What run.json tells; raises ``OSError``, or ``ValueError`` if it is no table."""
    info = reading.parse_json(reading.read_bytes(run.info, MAX_INFO_BYTES))
    if not isinstance(info, dict):
        raise ValueError("it is no table of names and values")
    return info


def known_info(run: RunFolder) -> dict[str, Any]:
    """What run.json tells, as far as it can be read: a missing or damaged one is a gap, not a failure."""
    with contextlib.suppress(OSError, ValueError):
        return read_info(run)
    return {}


def command_of(info: dict[str, Any]) -> str:
    """The command in a run.json as it can be typed, however Python was started; empty where there is none."""
    words = info.get("command")
    return typed(*words[1:]) if isinstance(words, list) and words else ""


def is_run(folder: Path) -> bool:
    """Whether it can be looked at as a run: a training began in it, or it has a config and checkpoints all the same, as
    what older versions of the library made. Only what ``was_made`` says yes to may be removed."""
    run = RunFolder(folder)
    return run.config.is_file() and (was_made(folder) or has_checkpoint(run))


def runs_in(folder: Path, started: bool = True) -> list[Path]:
    """The runs in a folder of runs, and in the studies there; unless ``started``, what never had its config, too."""
    names = ("config.toml",) if started else ("config.toml", "run.json")
    places = {path.parent for name in names for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{name}")}
    return sorted(path for path in places if is_run(path) or (not started and was_made(path)))


def find_run(given: Path | None) -> RunFolder:
    """The run folder that ``given`` names, or the newest under ``runs`` that has a checkpoint, if one has."""
    if given is None:
        runs = [RunFolder(p.parent) for p in ROOT.glob("*/config.toml") if is_run(p.parent)]
        if not runs:
            raise DataError("there is no run yet under runs.", "Train one: vidcvae train")
        trained = [run for run in runs if has_checkpoint(run)]
        return max(trained or runs, key=lambda run: run.config.stat().st_mtime_ns)
    for path in (given, ROOT / given):
        if (path / "config.toml").is_file():
            return RunFolder(path)
    names = [p.parent.name for p in ROOT.glob("*/config.toml")]
    raise DataError(
        f"{given} is not a run folder: it has no config.toml.{did_you_mean(given.name, names)}",
        f"Runs here: {', '.join(sorted(names)) or 'none yet; train one with vidcvae train'}",
    )


def has_checkpoint(run: RunFolder) -> bool:
    """Whether there is anything to load or to go on from; a start that failed has nothing."""
    return any(run.checkpoints.glob("*.safetensors"))


def find_data(what: Path, run: RunFolder | None, trained_on: str) -> str:
    """Where the dataset is that ``what``, a run or a checkpoint, was trained on.

    Its path is in the run's config. Where a project was moved as a whole, it lies where it was typed to be: below the
    current folder, or below the one that the run's root is in. Raises ``DataError`` if it is nowhere.
    """
    places = [trained_on]
    if run:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            places.insert(0, str(reading.read_toml(run.config)["data"]["path"]))
        if as_typed := known_info(run).get("data"):
            above = (Path().absolute(), run.path.absolute().parent.parent)
            places += [str(folder / str(as_typed)) for folder in above]
    for place in places:
        with contextlib.suppress(OSError):
            if place.startswith("synthetic:") or Path(place).exists():
                return place
    tell = f"Tell the run where it is: {typed('resume', run.path, '--data', 'DATASET')}   or for once" if run else ""
    raise DataError(
        f"there is no dataset {places[0]}, which {what} was trained on.",
        f"{tell or 'Name where it is'}: --data DATASET",
    )


def find_checkpoint(given: Path | None, which: str = "best") -> tuple[Path, RunFolder | None]:
    """The checkpoint that RUN means: a file itself, or of a run folder its best (else last) one."""
    if given is not None and given.suffix.lower() in PICTURES:
        raise UsageError(
            f"{given} is a picture or a video, but a run is meant here: a run folder or a checkpoint file.",
            f"See what runs there are: vidcvae runs list. A first frame goes to generate --first-frame {given}",
        )
    if given is not None and given.is_file():
        folder = given.parent.parent
        return given, RunFolder(folder) if (folder / "config.toml").is_file() else None
    if given is not None and given.suffix == ".safetensors":
        names = [path.name for path in given.parent.glob("*.safetensors")]
        raise DataError(
            f"there is no checkpoint {given}.{did_you_mean(given.name, names)}",
            f"There: {', '.join(sorted(names))}" if names else "See what runs there are: vidcvae runs list",
        )
    run = find_run(given)
    wanted = [checkpoint.BEST, checkpoint.LAST] if which == "best" else [checkpoint.LAST]
    for name in wanted:
        if (run.checkpoints / name).is_file():
            return run.checkpoints / name, run
    raise DataError(
        f"the run {run.path} has no checkpoint yet.",
        f"It may still be in its first epoch; or: {typed('resume', run.path)}",
    )
