"""A cache of decoded datasets: CACHE/NAME-FINGERPRINT, in the packed form.

cache.json beside the packed data says that vidcvae made the folder as a cache, and from which dataset. Only a folder
with this file may be removed: without it, it could be a dataset that the user packed.
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
    """A cache on disk. ``source``: the path of its dataset, as the user gave it."""

    folder: Path
    source: Path
    files: tuple[Path, ...]

    @property
    def fingerprint(self) -> str:
        return self.folder.name.rpartition("-")[2]


def open_cached(stream: Stream, source: Path, folder: Path) -> VideoData:
    """The dataset cached in ``folder``; if it is missing or damaged, it is written again from ``stream``.

    If it cannot be written, beside a read-only run for example, the images are decoded into memory.
    """
    try:
        data = packed.open_packed(folder)
    except DataError:
        try:
            durable.check_writable(folder)
        except DataError:
            return stream.collect()
        for name in (packed.MANIFEST, MARK):
            durable.remove(folder / name)
        packed.write(stream, folder)
        durable.write_json(folder / MARK, {"format": FORMAT, "folder": folder.name, "source": str(source)})
        data = packed.open_packed(folder)
    return replace(data, source=source, files_size=stream.files_size)


def fingerprint(root: Path, size: tuple[int, int]) -> str:
    """A hash that changes with the frame size, and when a file of the dataset is added, removed or rewritten."""
    digest = hashlib.sha256(repr((packed.VERSION, size)).encode())
    for path in sorted(root.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            stat = path.stat()
            digest.update(f"{path.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def find(cache: Path) -> list[Cached]:
    """The caches in the folder ``cache``; links, and folders that hold anything else, do not count."""
    places = [] if cache.is_symlink() or not cache.is_dir() else sorted(cache.iterdir())
    return [found for place in places if (found := _read(place))]


def unused(place: Path) -> tuple[list[Cached], str]:
    """The caches in ``place`` that no run beside it uses; or none, and the reason why.

    This looks at the data of each run beside it, and whether it is running now. A training that starts in the
    meantime loses nothing: its data are mapped into memory already, or it decodes them again.
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
    """(fingerprint, "") of a run's data; ("", name of their folder) if they are not on this machine.

    None if the config is damaged; ("", "") for a folder that vidcvae did not make.
    """
    try:
        config = settings.resolve_saved(settings.read_toml(run.config))
    except VidcvaeError:
        return None if was_made(run.path) else ("", "")
    path = Path(config.data.path)
    return (fingerprint(path, config.data.frame_size), "") if path.is_dir() else ("", path.name)


def remove(found: Cached) -> None:
    """Remove a cache, file by file; files that were added to its folder since ``find`` stay."""
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
    data = {block["file"] for *_, block in packed.blocks(manifest)}
    files = [folder / name for name in (packed.MANIFEST, MARK, *sorted(data))]  # the commit mark goes first
    known = all(path in files and path.is_file() and not path.is_symlink() for path in folder.iterdir())
    return Cached(folder, Path(str(mark.get("source"))), tuple(files)) if known else None
