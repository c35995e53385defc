"""Decoded images of datasets, kept so that they are decoded once: CACHE/NAME-FINGERPRINT, in the packed form.

cache.json beside the packed data says that vidcvae made the folder as a cache, and what of. A dataset that a person
packed looks the same but for this file, which alone allows to remove the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from vidcvae import config as settings
from vidcvae import reading
from vidcvae.data import packed
from vidcvae.data.clips import Stream, VideoData
from vidcvae.errors import DataError, VidcvaeError
from vidcvae.storage import durable, lock
from vidcvae.storage.run import RunFolder, was_made

MARK, FORMAT = "cache.json", "vidcvae-cache"
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Cached:
    """A cache as it lies there. ``source``: the dataset it was made of, by the path that was given."""

    folder: Path
    source: Path
    files: tuple[Path, ...]

    @property
    def fingerprint(self) -> str:
        return self.folder.name.rpartition("-")[2]


def open_cached(stream: Stream, source: Path, folder: Path) -> VideoData:
    """The dataset in ``folder``; what is not there yet, or damaged, is made anew from ``stream``: it is only a copy."""
    try:
        data = packed.open_packed(folder)
    except DataError:
        for name in (packed.MANIFEST, MARK):
            durable.remove(folder / name)
        packed.write(stream, folder)
        durable.write_json(folder / MARK, {"format": FORMAT, "folder": folder.name, "source": str(source)})
        data = packed.open_packed(folder)
    return replace(data, source=source, files_size=stream.files_size)


def fingerprint(root: Path, size: tuple[int, int]) -> str:
    """Changes when a file of the dataset is added, removed or rewritten, and with the frame size."""
    digest = hashlib.sha256(repr((packed.VERSION, size)).encode())
    for path in sorted(root.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            stat = path.stat()
            digest.update(f"{path.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def find(cache: Path) -> list[Cached]:
    """The caches in a folder of caches. Links and folders with anything else in them are none."""
    places = [] if cache.is_symlink() or not cache.is_dir() else sorted(cache.iterdir())
    return [found for place in places if (found := _read(place))]


def unused(place: Path) -> tuple[list[Cached], str]:
    """The caches in ``place`` that no run beside it uses, and else why none of them may go.

    All runs beside it are asked, for their data and whether they are going on just now. A training that begins
    meanwhile loses nothing: it has its data mapped into memory, or decodes them anew.
    """
    found = find(place)
    beside = [RunFolder(path) for path in sorted(place.parent.iterdir()) if path.is_dir()] if found else []
    for folder in (place.parent, *(run.path for run in beside)) if found else ():  # a study's folder is locked itself
        if holder := lock.holder(folder):
            return [], f"may be in use by {holder}"
    used = [_data_of(run) for run in beside if run.config.is_file()]
    if None in used:
        return [], "may be in use by a run whose config.toml cannot be read"
    fingerprints, absent = ({pair[kind] for pair in used if pair} for kind in (0, 1))
    return [c for c in found if c.fingerprint not in fingerprints and c.source.name not in absent], ""


def _data_of(run: RunFolder) -> tuple[str, str] | None:
    """What the cache of a run's data ends in, and "". Of data that are not here "", and the last part of their path.

    None where a damaged config does not tell; a folder that vidcvae did not make has no data.
    """

    try:
        config = settings.resolve_saved(settings.read_toml(run.config))
    except VidcvaeError:
        return None if was_made(run.path) else ("", "")
    path = Path(config.data.path)
    return (fingerprint(path, config.data.frame_size), "") if path.is_dir() else ("", path.name)


def remove(found: Cached) -> None:
    """Remove a cache, file by file; what came into its folder since it was found stays."""
    for path in found.files:
        durable.remove(path)
    with contextlib.suppress(OSError):
        found.folder.rmdir()


def _read(folder: Path) -> Cached | None:
    if folder.is_symlink() or not folder.is_dir():
        return None
    try:
        mark = reading.parse_json(reading.read_bytes(folder / MARK, _MAX_BYTES))
        manifest = packed.read_manifest(folder)
    except (OSError, ValueError, DataError):
        return None
    if not isinstance(mark, dict) or mark.get("format") != FORMAT or mark.get("folder") != folder.name:
        return None
    records = [record for found in manifest["splits"].values() for record in found]
    data = {block["file"] for r in records for block in (r["frames"], *r["tracks"].values())}
    files = [folder / name for name in (packed.MANIFEST, MARK, *sorted(data))]  # what commits it goes first
    known = all(path in files and path.is_file() and not path.is_symlink() for path in folder.iterdir())
    return Cached(folder, Path(str(mark.get("source"))), tuple(files)) if known else None
