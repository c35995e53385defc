"""Free the space that runs take: remove useless files, and runs that are no longer wanted."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vidcvae.data import cache
from vidcvae.errors import UsageError, counted
from vidcvae.storage import durable, lock, upkeep
from vidcvae.storage.run import ROOT, RunFolder, find_run, runs_in, was_made
from vidcvae.workflow.at_glance import disk_use
from vidcvae.workflow.voice import SILENT, Voice

FAILED_START = "its training ended before its first checkpoint"
UNUSED_CACHE = "decoded images of data that no run here uses, or that have changed"


@dataclass(frozen=True)
class Useless:
    """A file or folder that can be removed, its bytes on disk, and the reason."""

    path: str
    size: int
    why: str


def prune(folders: Sequence[RunFolder], remove: bool, voice: Voice = SILENT) -> Iterator[Useless]:
    """Yield the useless files in runs and their caches; with ``remove``, each is removed before it is yielded.

    `best` and `last` stay, and so do runs in use and files that vidcvae did not write.
    """

    def drop(path: Path, files: Sequence[Path], why: str, remove_it: Callable[[], object]) -> Useless:
        size = disk_use(files)
        if remove:
            remove_it()
        return Useless(str(path), size, why)

    for run in folders:
        if run.path.is_symlink() or not was_made(run.path):
            voice.note(f"{run.path} {_not_ours(run.path)}: left alone")
        elif holder := lock.holder(run.path):
            voice.note(f"{run.path} is in use by {holder}: left alone")
        elif upkeep.is_failed_start(run):
            yield drop(run.path, [run.path], FAILED_START, partial(upkeep.remove_run, run))
        else:  # locked, so that no training starts while files are removed
            with lock.holding(run.path) if remove else contextlib.nullcontext():
                for path, why in upkeep.useless_files(run):
                    yield drop(path, [path], why, partial(durable.remove, path))
    for place in dict.fromkeys(run.cache for run in folders):
        useless, why_none = cache.unused(place)
        if why_none:
            voice.note(f"{place} {why_none}: left alone")
        for each in useless:
            yield drop(each.folder, each.files, UNUSED_CACHE, partial(cache.remove, each))


def removable(path: Path) -> RunFolder:
    """The run with this name; raises ``VidcvaeError`` if it must not be removed."""
    for folder in (path, ROOT / path):
        if inside := [] if was_made(folder) else runs_in(folder):
            raise UsageError(
                f"{folder} holds {counted(len(inside), 'run')}.", f"Remove them: vidcvae runs rm {folder}/*"
            )
    # find_run needs a config, which a run that failed to start lacks
    place = next((place for place in (path, ROOT / path) if was_made(place)), None) or find_run(path).path
    if place.is_symlink() or not was_made(place):
        raise UsageError(
            f"{place} {_not_ours(place)}.", f"Look at it, and remove it yourself: ls {shlex.quote(str(place))}"
        )
    if holder := lock.holder(place):
        raise lock.in_use(place, holder)
    return RunFolder(place)


def _not_ours(path: Path) -> str:
    return "is a link, not a run" if path.is_symlink() else "was not made by vidcvae: its run.json does not say so"
