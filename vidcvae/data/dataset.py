"""A dataset in a folder of any layout, as ``VideoData``."""

from __future__ import annotations

import re
from pathlib import Path

from vidcvae.data import bair, dataset_toml, packed, pose_folder, trajectories
from vidcvae.data import cache as caches
from vidcvae.data.clips import Stream, VideoData
from vidcvae.data.sizes import DEFAULT_SIZES, resize_text, text
from vidcvae.errors import DataError, did_you_mean, typed
from vidcvae.progress import Progress, unreported

_LAYOUTS = """A dataset is a folder with one of
    {train,val}/{train,val}_{img,label}/N.png and test/test_{img,label}/K/N.png   (dance, the course's layout)
    {train,validate,test}/traj_A_to_B/K/N.png                                     (robot pushing, the course's layout)
    manifest.json                                                                 (packed: vidcvae dataset pack)"""
_KINDS = {"packed": packed.is_packed, "dance": pose_folder.is_pose_folder, "push": trajectories.is_trajectory_folder}


def layout(path: Path) -> str:
    """The kind of dataset in ``path``: "packed", "dance" or "push"; raises ``DataError`` if it is none."""
    try:
        return _layout(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.", "Check its name and its permissions.") from None


def _layout(path: Path) -> str:
    if kind := _kind(path):
        return kind
    if not path.exists():
        near = [folder.name for folder in path.parent.glob("*/") if _kind(folder)]
        raise DataError(
            f"there is no dataset {path}.{did_you_mean(path.name, near)}",
            "Make one to try: vidcvae dataset synth dance -o my-dance",
        )
    if path.is_dir() and _kind(path.parent):
        raise DataError(f"{path} is part of the dataset {path.parent}.", f"Name the dataset: {path.parent}")
    if records := bair.find_folder(path):
        raise DataError(
            f"{path} holds BAIR's TFRecords, which must be imported first.",
            f"Import them: {typed('dataset', 'import', 'bair', records, 'OUT')}",
        )
    if not path.is_dir():
        what = "a GIF" if path.suffix.lower() == ".gif" else "a file"
        raise DataError(f"{path} is {what}, but a dataset is a folder.", _LAYOUTS)
    if bair.is_unfinished(path):
        raise DataError(
            f"{path} is an import that was interrupted.",
            f"Go on with it: {typed('dataset', 'import', 'bair', 'SRC', path)}",
        )
    if packed.is_unfinished(path):
        raise DataError(
            f"{path} is a pack that was interrupted.", f"Finish it: {typed('dataset', 'pack', 'ROOT', path)}"
        )
    raise DataError(f"{path} is not in any known layout.", _LAYOUTS)


def _kind(folder: Path) -> str:
    """The layout of ``folder``, or "" if it is no dataset."""
    return next((kind for kind, holds in _KINDS.items() if holds(folder)), "")


def own_size(path: Path) -> tuple[int, int]:
    """The default height and width of a dataset's frames: a pack's own size, the size in a folder's dataset.toml, or
    else the usual size of its kind. Raises ``DataError`` as ``layout`` does, and for a damaged file."""
    if (kind := layout(path)) == "packed":
        height, width = packed.read_manifest(path)["size"]
        return height, width
    return dataset_toml.read_facts(path).size or DEFAULT_SIZES[kind]


def resize_note(data: VideoData | Stream, way_out: str = "") -> str:
    """How the image files of ``data`` were resized (see ``resize_text``)."""
    if data.files_size is None:
        return ""
    silent = data.size == DEFAULT_SIZES[data.kind] and dataset_toml.read_facts(data.source).size is None
    return resize_text(data.files_size, data.size, silent=silent, way_out=way_out)


def open_stream(path: Path, size: tuple[int, int] | None = None, progress: Progress = unreported) -> Stream:
    """A dataset in image files, read one sequence at a time; raises ``DataError`` as its reader does."""
    match layout(path):
        case "dance":
            return pose_folder.stream(path, size or own_size(path), progress=progress)
        case "push":
            return trajectories.stream(path, size or own_size(path), progress=progress)
    raise DataError(f"{path} is packed already.", f"Look at it: {typed('dataset', 'inspect', path)}")


def open_dataset(
    path: Path, size: tuple[int, int] | None = None, cache: Path | None = None, progress: Progress = unreported
) -> VideoData:
    """The dataset in the folder ``path``, in any layout, with frames of ``size`` (height, width) or its default size.

    cache: folder where decoded images are kept in the packed form, so that they are decoded only once; None, or a
        folder that cannot be written, decodes them into memory.
    Raises ``DataError`` that names the place if ``path`` is not a dataset, is damaged, or was packed at another size.
    """
    if layout(path) == "packed":
        data = packed.open_packed(path)
        check_packed_size(data, size or data.size, f"--set data.size={text(data.size)}")
        return data
    stream = open_stream(path, size, progress)
    if cache is None:
        return stream.collect()
    safe_name = re.sub(r"[^\w.-]+", "-", stream.name)[:60]
    return caches.open_cached(stream, path, cache / f"{safe_name}-{caches.fingerprint(path, stream.size)}")


def check_packed_size(data: VideoData, size: tuple[int, int], as_it_is: str) -> None:
    """Raise ``DataError`` if a packed dataset has another size; ``as_it_is``: the option that selects its own size."""
    if data.size != size:
        raise DataError(
            f"{data.source} was packed at {text(data.size)}, not at {text(size)}.",
            f"Use its own size ({as_it_is}), or pack the original data again: "
            f"vidcvae dataset pack DATASET -o FOLDER --size {text(size)}",
        )


def known_fps(path: Path) -> float | None:
    """Frames per second of the dataset at ``path`` or around it; None if no file says so."""
    for folder in [path, *path.absolute().parents[:3]]:  # DATASET/test/test_label/0
        try:
            if packed.is_packed(folder):
                return float(packed.read_manifest(folder)["fps"])
            if (folder / dataset_toml.FILE).is_file():
                return dataset_toml.read_facts(folder).fps
        except (DataError, OSError):  # not a dataset of ours
            continue
    return None
