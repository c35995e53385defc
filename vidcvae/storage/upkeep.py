"""Find and remove the files of a run that vidcvae wrote. It knows them by name and never follows a link.

All other files in a run's folder belong to a person and stay.
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

from vidcvae import reading
from vidcvae.errors import DataError
from vidcvae.storage import checkpoint, durable, lock
from vidcvae.storage.history import read_history
from vidcvae.storage.run import RunFolder, has_checkpoint, was_made

JUST_STARTED_SECONDS = 60  # a training needs less time than this between creating its folder and locking it
_OWN = {
    ".": re.compile(r"config\.toml|run\.json|history\.jsonl|precision\.json|non-finite\.json"),
    "checkpoints": re.compile(r"(last|best|step-\d{8,})\.safetensors", re.ASCII),
    "tensorboard": re.compile(r"events\.out\.tfevents\..+"),
}
_SCORES = "scores"


def useless_files(run: RunFolder) -> list[tuple[Path, str]]:
    """Numbered checkpoints that are neither last nor best, and leftovers; no checkpoint if ``last`` is missing."""
    found: list[tuple[Path, str]] = []
    if not run.checkpoints.is_symlink():
        kept = [path for name in (checkpoint.LAST, checkpoint.BEST) if (path := run.checkpoints / name).exists()]
        steps = checkpoint.steps(run.checkpoints) if run.checkpoints / checkpoint.LAST in kept else []
        useless = [path for path in steps if not any(path.samefile(other) for other in kept)]
        found = [(path, "neither last nor best") for path in useless if _is_checkpoint(path)]
    return found + [(path, "left by a writer that died") for path in _leftovers(run)]


def own_files(run: RunFolder) -> list[Path]:
    """Every file in a run's folder that vidcvae wrote."""
    named = [p for place, names in _OWN.items() for p in _files(run.path / place) if names.fullmatch(p.name)]
    return [*named, *filter(_is_score, _files(run.path / _SCORES)), *_leftovers(run)]


def foreign(run: RunFolder) -> list[Path]:
    """Files, links and folders in a run's folder that vidcvae did not make."""
    own = {*own_files(run), run.path / lock.FILE}
    return [path for path in sorted(run.path.rglob("*")) if path not in own and not _is_own_folder(run, path)]


def is_failed_start(run: RunFolder) -> bool:
    """Whether vidcvae made the folder, but its training ended before it produced anything of use.

    Such a run has no checkpoint, no score, and no finished epoch in its history.
    """
    if run.path.is_symlink() or not was_made(run.path) or has_checkpoint(run) or foreign(run):
        return False
    if _files(run.path / _SCORES) or _finished_an_epoch(run):
        return False
    # without a config it has not been locked yet, so its training may just be starting
    return run.config.exists() or time.time() - run.info.stat().st_mtime > JUST_STARTED_SECONDS


def remove_run(run: RunFolder) -> list[Path]:
    """Remove what vidcvae wrote into a run's folder, then the folder if it is empty; returns what remains in it.

    Raises ``UsageError`` if a process uses the run, and ``DataError`` if the system refuses.
    """
    with lock.holding(run.path):
        # run.json goes last, so that an interrupted removal leaves a folder that is still known to be ours
        for path in sorted(own_files(run), key=lambda path: path == run.info):
            durable.remove(path)
        for place in (*_OWN, _SCORES):
            if place != "." and not (run.path / place).is_symlink():
                _remove_empty(run.path / place)
    _remove_empty(run.path)
    return sorted(run.path.rglob("*")) if run.path.exists() else []


def _files(folder: Path) -> list[Path]:
    """The regular files in a folder; none if it is a link."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]


def _leftovers(run: RunFolder) -> list[Path]:
    """Temporary files of dead writers whose targets are files that vidcvae writes into a run."""
    found = []
    for place, names in _OWN.items():
        folder = run.path / place
        left = set() if folder.is_symlink() else set(durable.leftovers(folder))
        found += [path for path in _files(folder) if path in left and names.fullmatch(durable.target_name(path))]
    return found


def _is_checkpoint(path: Path) -> bool:
    with contextlib.suppress(DataError):
        return bool(checkpoint.read_header(path)[1])
    return False


def _is_score(path: Path) -> bool:
    """Whether it is a score record or another measurement of the run."""
    if path.suffix != ".json":
        return False
    try:
        found = reading.parse_json(reading.read_bytes(path))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and ("protocol" in found or {"checkpoint", "weights", "data"} <= found.keys())


def _finished_an_epoch(run: RunFolder) -> bool:
    try:
        return run.history.exists() and any(record["kind"] != "step" for record in read_history(run.history))
    except (DataError, KeyError):
        return True  # unknown, so assume it did


def _is_own_folder(run: RunFolder, path: Path) -> bool:
    return path.parent == run.path and path.name in (*_OWN, _SCORES) and path.is_dir() and not path.is_symlink()


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is missing, or holds files that are not ours
        folder.rmdir()
