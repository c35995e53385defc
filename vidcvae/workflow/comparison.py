"""The score records of a comparison: read from files and runs, and made if they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidcvae import reading
from vidcvae.config.schema import LatentOrAll, choices
from vidcvae.errors import DataError, UsageError, typed
from vidcvae.evaluation import records
from vidcvae.evaluation.records import Record
from vidcvae.storage import checkpoint
from vidcvae.storage.run import RunFolder, find_checkpoint, find_run
from vidcvae.workflow.voice import SILENT, Voice


def gather(
    paths: Sequence[Path], name: str = "val-zero", fill: bool = False, voice: Voice = SILENT
) -> list[tuple[str, Record]]:
    """The records of runs and files, each with its path as the name.

    name: which record of each run. fill: score the runs that have no such record, or one of an older checkpoint.
    Raises ``DataError`` that names the runs without a record, and the commands that make one.
    """
    named: list[tuple[str, Record]] = []
    missing = []
    for path in without_other_files(paths, voice):
        if path.suffix == ".json":
            named.append((str(path), records.read(path)))
            continue
        run = find_run(path)
        if record := _kept(run, name, fill, voice) or (_score(run, name, voice) if fill else None):
            named.append((str(path), record))
        else:
            missing.append(path)
    if missing:
        commands = "; ".join(typed("evaluate", path, *_options(name)) for path in missing)
        has, it = ("has", "it") if len(missing) == 1 else ("have", "them")
        raise DataError(
            f"{', '.join(map(str, missing))} {has} no score record {name}.",
            f"Make {it}: {commands}   (or: compare --evaluate)",
        )
    return named


def without_other_files(paths: Sequence[Path], voice: Voice = SILENT) -> list[Path]:
    """The paths without files that are neither runs nor scores; if all paths are files, all of them.

    The shell lists such files for a pattern like ``runs/sweep/*``.
    """
    others = [] if all(path.is_file() for path in paths) else [path for path in paths if _is_another_file(path)]
    if others:
        voice.note(f"left out, because they are neither runs nor score records: {', '.join(map(str, others))}")
    return [path for path in paths if path not in others]


def _kept(run: RunFolder, name: str, fill: bool, voice: Voice) -> Record | None:
    """The record ``name`` of a run, or None; SPLIT-zero is the run's ordinary score.

    A record of an older checkpoint is taken with a warning, unless it can be made again (``fill``).
    """
    named = records.read(place) if (place := _place(run, name)).exists() else None
    try:
        path, _ = find_checkpoint(run.path)
        meta, digest = checkpoint.read_header(path)
    except DataError as error:
        if fill or named is None:
            raise
        voice.warn(f"{error.message} It is therefore unknown whether {place} is its score.")
        return named
    split, _, latent = name.partition("-")
    record = named
    if latent == "zero":
        record = next(iter(records.ordinary(run, records.ordinary_protocol(meta, digest, split))), None)
    if record and record["protocol"].get("checkpoint") == digest:
        if "selection" in record:  # there may have been more validations since it was scored
            record = {**record, "selection": records.selection_of(path, run, meta, record["protocol"])}
        return record
    if named is None or fill:
        return None
    if named["protocol"].get("checkpoint") == digest:
        voice.warn(f"{place} is not the run's ordinary score: its protocol or its data are different.")
        return None
    again = typed("evaluate", run.path)
    voice.warn(f"{place} is of an older checkpoint than the run's best. Score the run again: {again}")
    return named


def _place(run: RunFolder, name: str) -> Path:
    """The file of the record ``name``; "val" and "validate" mean the same split."""
    split, dash, rest = name.partition("-")
    other = {"val": "validate", "validate": "val"}.get(split, split)
    places = [records.path_in(run, f"{first}{dash}{rest}") for first in (split, other)]
    return next((place for place in places if place.exists()), places[0])


def _is_another_file(path: Path) -> bool:
    """Whether the path is a file, but not a score record; a damaged JSON file counts as one."""
    if path.suffix != ".json":
        return path.is_file()
    try:
        content = reading.parse_json(reading.read_bytes(path))
    except (OSError, ValueError):
        return False
    return not isinstance(content, dict) or "protocol" not in content


def _score(run: RunFolder, name: str, voice: Voice) -> Record:
    """Score a run to make the record ``name``; raises ``UsageError`` unless that is SPLIT-LATENT."""
    from vidcvae.workflow import opening, scores  # PyTorch, which reading records does without

    split, _, ending = name.partition("-")
    if ending not in choices(LatentOrAll):
        raise UsageError(
            f"--evaluate cannot make the record {name!r}: it is not SPLIT-LATENT, such as val-zero.",
            "Make it with vidcvae evaluate and the options that it needs.",
        )
    latent: Any = ending
    voice.note(f"scoring {run.path}")
    loaded = opening.load(run.path, voice=voice)
    record = scores.score(loaded, opening.open_data(loaded, None, voice), split, latent, voice=voice)
    scores.keep(loaded, record, voice=voice)
    return record


def _options(name: str) -> list[str]:
    split, _, latent = name.partition("-")
    split_option = ["--split", split] if split != "val" else []
    return split_option + (["--latent", latent] if latent != "zero" else [])
