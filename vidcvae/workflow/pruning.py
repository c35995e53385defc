"""Freeing the space that runs take: what is of no use, and runs that nobody wants any more."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vidcvae.data import cache
from vidcvae.errors import UsageError
from vidcvae.storage import durable, lock, upkeep
from vidcvae.storage.run import ROOT, RunFolder, find_run, was_made
from vidcvae.workflow.at_glance import disk_use
from vidcvae.workflow.voice import SILENT, Voice

FAILED_START = "its training ended before its first checkpoint"
UNUSED_CACHE = "decoded images of data that no run here has, or that have changed"


@dataclass(frozen=True)
class Useless:
    """A file or folder that may go, its bytes on disk, and why."""

    path: str
    size: int
    why: str


def prune(folders: Sequence[RunFolder], remove: bool, voice: Voice = SILENT) -> Iterator[Useless]:
    """What is of no use in runs and their caches, one after the other; with ``remove``, each is gone when it is told.

    `best` and `last`, a run that is in use and what vidcvae did not write stay.
    """

    def drop(path: Path, files: Sequence[Path], why: str, remove_it: Callable[[], object]) -> Useless:
        size = disk_use(files)
        if remove:
            remove_it()
        return Useless(str(path), size, why)

    for run in folders:
        if run.path.is_symlink() or not was_made(run.path):
            why = "a link" if run.path.is_symlink() else "no run that vidcvae made: its run.json does not say so"
            voice.note(f"{run.path} is {why}: left alone")
        elif holder := lock.holder(run.path):
            voice.note(f"{run.path} is in use by {holder}: left alone")
        elif upkeep.is_failed_start(run):
            yield drop(run.path, [run.path], FAILED_START, partial(upkeep.remove_run, run))
        else:  # locked, so that no training begins while its files go
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
    """The run that may be removed under this name; raises ``VidcvaeError`` that says why it may not."""
    # a start that failed has no config, by which find_run knows a run
    place = next((place for place in (path, ROOT / path) if was_made(place)), None) or find_run(path).path
    if place.is_symlink() or not was_made(place):
        why = "is a link, not a run" if place.is_symlink() else "was not made by vidcvae: its run.json does not say so"
        raise UsageError(f"{place} {why}.", f"Look at it, and remove it yourself: ls {shlex.quote(str(place))}")
    if holder := lock.holder(place):
        raise UsageError(f"{place} is in use by {holder}.", "Wait until it ends, or stop it: kill -TERM its number.")
    return RunFolder(place)
