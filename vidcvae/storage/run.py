"""Run folders such as ``runs/NAME-001``. A run is created once and never overwritten.

run.json         marks a folder that vidcvae made, and says how the run was started: command, versions, dataset, weights
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
        """The folder's name, or its parent's name if it is only "run", as in ``demo/run``."""
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
        """The packed copies of image folders, which all runs in the same folder share."""
        return self.path.parent / ".cache"


def create_run(name: str, path: Path | None = None) -> RunFolder:
    """Create a run folder: ``path``, or if it is None, ``runs/NAME-N`` with the next free number."""
    if path is not None:
        check_free(path)
        durable.make_folder(path)
        return _marked(RunFolder(path))
    durable.make_folder(ROOT)
    name = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "run"  # a valid folder name on any system
    endings = [p.name.rpartition("-")[2] for p in ROOT.glob(f"{name}-*")]
    taken = [int(ending) for ending in endings if ending.isascii() and ending.isdecimal()]
    number = max(taken, default=0) + 1
    while True:
        try:
            durable.make_folder(ROOT / f"{name}-{number:03d}", new=True)
            return _marked(RunFolder(ROOT / f"{name}-{number:03d}"))
        except FileExistsError:  # another process has just taken it
            number += 1


def check_free(path: Path) -> None:
    """Raise ``VidcvaeError`` if ``path`` cannot become a run: it is not empty, is in use, or cannot be written."""
    if path.exists() and not (path.is_dir() and _is_free(path)):
        if who := lock.holder(path):
            raise lock.in_use(path, who)
        resume = f", or resume it: {typed('resume', path)}" if is_run(path) else "."
        raise UsageError(
            f"{path} already holds something; a run is never overwritten.", f"Choose another --run{resume}"
        )
    durable.check_writable(path)


def _marked(run: RunFolder) -> RunFolder:
    """Mark the folder as made by vidcvae in run.json, unless a training that died here has done so."""
    if not run.info.exists():
        durable.write_json(run.info, {"vidcvae": __version__})
    return run


def _is_free(folder: Path) -> bool:
    """Whether it is empty, or holds only the files of a training that died before it wrote its config."""
    ignored = {folder / lock.FILE, *durable.leftovers(folder)} | (
        {RunFolder(folder).info} if was_made(folder) else set()
    )
    return all(path in ignored for path in folder.iterdir())


def was_made(folder: Path) -> bool:
    """Whether ``create_run`` made the folder, according to its run.json."""
    return isinstance(known_info(RunFolder(folder)).get("vidcvae"), str)


def read_info(run: RunFolder) -> dict[str, Any]:
    """The content of run.json; raises ``OSError``, or ``ValueError`` if it is not a JSON object."""
    info = reading.parse_json(reading.read_bytes(run.info, MAX_INFO_BYTES))
    if not isinstance(info, dict):
        raise ValueError("it is not a JSON object")
    return info


def known_info(run: RunFolder) -> dict[str, Any]:
    """The content of run.json; empty if the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return read_info(run)
    return {}


def command_of(info: dict[str, Any]) -> str:
    """The command in a run.json as a user would type it, or the empty string."""
    words = info.get("command")
    return typed(*words[1:]) if isinstance(words, list) and words else ""


def is_run(folder: Path) -> bool:
    """Whether the folder is a run: it has a config, and either ``was_made`` or has a checkpoint, as runs of older
    versions of the library do. Only a folder that ``was_made`` may be removed."""
    run = RunFolder(folder)
    return run.config.is_file() and (was_made(folder) or has_checkpoint(run))


def runs_in(folder: Path, started: bool = True) -> list[Path]:
    """The runs in a folder of runs and in its studies; with ``started=False``, also those without a config yet."""
    names = ("config.toml",) if started else ("config.toml", "run.json")
    places = {path.parent for name in names for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{name}")}
    return sorted(path for path in places if is_run(path) or (not started and was_made(path)))


def find_run(path: Path | None) -> RunFolder:
    """The run at ``path`` or ``runs/path``; if ``path`` is None, the newest run, if possible one with a checkpoint."""
    if path is None:
        runs = [RunFolder(p.parent) for p in ROOT.glob("*/config.toml") if is_run(p.parent)]
        if not runs:
            raise DataError(
                "there is no run yet under runs.",
                "Train one, on a synthetic dance: vidcvae train --preset anchor-cpu --max-minutes 3",
            )
        trained = [run for run in runs if has_checkpoint(run)]
        return max(trained or runs, key=lambda run: run.config.stat().st_mtime_ns)
    for folder in (path, ROOT / path):
        if (folder / "config.toml").is_file():
            return RunFolder(folder)
    names = [p.parent.name for p in ROOT.glob("*/config.toml")]
    missing = f"there is no run {path}." if not path.exists() else f"{path} is not a run folder: it has no config.toml."
    raise DataError(
        f"{missing}{did_you_mean(path.name, names)}",
        f"Runs here: {', '.join(sorted(names)) or 'none yet; train one with vidcvae train DATASET'}",
    )


def has_checkpoint(run: RunFolder) -> bool:
    """Whether the run has a checkpoint to load or resume from."""
    return any(run.checkpoints.glob("*.safetensors"))


def find_data(what: Path, run: RunFolder | None, trained_on: str) -> str:
    """The path of the dataset that ``what``, a run or a checkpoint, was trained on.

    The run's config has it. If the whole project was moved, the path that was typed is looked up below the current
    folder and below the parent of the folder of runs. Raises ``DataError`` if the dataset is in neither.
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
    hint = (
        f"Tell the run where it is: {typed('resume', run.path, '--data', 'DATASET')}   or for this command only"
        if run
        else "Say where it is"
    )
    raise DataError(
        f"there is no dataset {places[0]}, which {what} was trained on.",
        f"{hint}: --data DATASET",
    )


def find_checkpoint(source: Path | None, which: str = "best") -> tuple[Path, RunFolder | None]:
    """The checkpoint that RUN means: the file itself, or the best (else the last) of a run folder; and its run."""
    if source is not None and source.suffix.lower() in PICTURES:
        raise UsageError(
            f"{source} is a picture or a video; RUN must be a run folder or a checkpoint file.",
            f"List the runs: vidcvae runs list. To start from it: {typed('generate', 'RUN', '--first-frame', source)}",
        )
    if source is not None and source.is_file():
        folder = source.parent.parent
        return source, RunFolder(folder) if (folder / "config.toml").is_file() else None
    if source is not None and source.suffix == ".safetensors":
        names = [path.name for path in source.parent.glob("*.safetensors")]
        raise DataError(
            f"there is no checkpoint {source}.{did_you_mean(source.name, names)}",
            f"Checkpoints there: {', '.join(sorted(names))}" if names else "List the runs: vidcvae runs list",
        )
    run = find_run(source)
    wanted = {"best": [checkpoint.BEST, checkpoint.LAST], "last": [checkpoint.LAST]}
    if which not in wanted:
        raise UsageError(f"a run has no checkpoint called {which!r}.", 'Choose "best" or "last", or name the file.')
    for name in wanted[which]:
        if (run.checkpoints / name).is_file():
            return run.checkpoints / name, run
    raise DataError(
        f"the run {run.path} has no checkpoint yet.",
        f"It may still be in its first epoch; or: {typed('resume', run.path)}",
    )
