"""The score records that a comparison is of: read from files and runs, and taken where they are missing."""

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
    """The records that runs and files mean, under the names that they were given by.

    name: which record of each run. fill: score the runs that have no such record, or one of an older checkpoint.
    Raises ``DataError`` that names the runs without a record, and the commands that make them.
    """
    named: list[tuple[str, Record]] = []
    missing = []
    for path in without_other_files(paths, voice):
        if path.suffix == ".json":
            named.append((str(path), records.read(path)))
            continue
        run = find_run(path)
        found = _kept(run, name, fill, voice) or (_score(run, name, voice) if fill else None)
        if found is None:
            missing.append(path)
        else:
            named.append((str(path), found))
    if missing:
        commands = "; ".join(typed("evaluate", path, *_options(name)) for path in missing)
        raise DataError(
            f"{', '.join(map(str, missing))} {'has' if len(missing) == 1 else 'have'} no score record {name}.",
            f"Make {'it' if len(missing) == 1 else 'them'}: {commands}   (or: compare --evaluate)",
        )
    return named


def without_other_files(paths: Sequence[Path], voice: Voice = SILENT) -> list[Path]:
    """The paths but for files that are neither runs nor scores, of the folder of a sweep, say, which the shell has
    listed; all of them where there are only files."""
    others = [path for path in paths if _is_another_file(path)] if not all(path.is_file() for path in paths) else []
    if others:
        voice.note(f"left out, because they are neither runs nor score records: {', '.join(map(str, others))}")
    return [path for path in paths if path not in others]


def _kept(run: RunFolder, name: str, fill: bool, voice: Voice) -> Record | None:
    """The record of a run that ``name`` means, SPLIT-zero being its ordinary score; None if there is none.

    One of an older checkpoint will do, with a warning, unless it can be made anew (``fill``).
    """
    named = records.read(place) if (place := _place(run, name)).exists() else None
    try:
        path, _ = find_checkpoint(run.path)
        meta, digest = checkpoint.read_header(path)
    except DataError as error:
        if fill or named is None:
            raise
        voice.warn(f"{error.message} So nobody can tell whether {place} is its score.")
        return named
    split, _, latent = name.partition("-")
    found = named
    if latent == "zero":
        found = next(iter(records.ordinary(run, records.ordinary_protocol(meta, digest, split))), None)
    if found and found["protocol"].get("checkpoint") == digest:
        if "selection" in found:  # as it is known today: since it was scored, more validations may have been
            found = {**found, "selection": records.selection_of(path, run, meta, found["protocol"])}
        return found
    if named is None or fill:
        return None
    if named["protocol"].get("checkpoint") == digest:
        voice.warn(f"{place} is not the run's ordinary score: it was taken by another protocol, or on other data.")
        return None
    again = typed("evaluate", run.path)
    voice.warn(f"{place} is of an older checkpoint than the run's best. Score it again: {again}")
    return named


def _place(run: RunFolder, name: str) -> Path:
    """Where the record ``name`` lies; "val" and "validate" stand for each other."""
    split, dash, rest = name.partition("-")
    other = {"val": "validate", "validate": "val"}.get(split, split)
    places = [records.path_in(run, f"{first}{dash}{rest}") for first in (split, other)]
    return next((place for place in places if place.exists()), places[0])


def _is_another_file(path: Path) -> bool:
    """Whether it is a file that no score record was ever in; a damaged one is not."""
    if path.suffix != ".json":
        return path.is_file()
    try:
        found = reading.parse_json(reading.read_bytes(path))
    except (OSError, ValueError):
        return False
    return not isinstance(found, dict) or "protocol" not in found


def _score(run: RunFolder, name: str, voice: Voice) -> Record:
    """Score a run as the record ``name`` says, which must be an ordinary one, SPLIT-LATENT."""
    from vidcvae.workflow import opening, scores  # PyTorch, which reading records does without

    split, _, ending = name.partition("-")
    if ending not in choices(LatentOrAll):
        raise UsageError(
            f"--evaluate cannot make the record {name!r}: it is not SPLIT-LATENT, such as val-zero.",
            "Make it by vidcvae evaluate, with the options that it takes.",
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
