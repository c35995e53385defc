"""Score records: kept with the run, read back, and compared only if their protocols agree.

A record is one JSON document (made by ``score.score_split``): the scores, the protocol, and the model's config. A
table of several records needs no other files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidcvae import config as settings
from vidcvae import reading
from vidcvae.errors import DataError, counted, typed
from vidcvae.evaluation.protocol import Protocol
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.run import RunFolder, find_checkpoint

if TYPE_CHECKING:
    from vidcvae.data import clips
    from vidcvae.data.clips import VideoData
    from vidcvae.models.loading import Loaded
    from vidcvae.storage.checkpoint import CheckpointMeta

Record = dict[str, Any]

# Fields that say which model was scored, not how, or that only decide whether another field counts
FREE = ("checkpoint", "step", "version", "weights_available", "dataset", "sequences")
EXTRAS = ("bounds", "long", "perceptual")  # each takes a run of its own
BLOCK = 64  # frames hashed at once
PART = re.compile(r"-\d+to\d+(-|$)")  # in the name of a record that does not cover all frames


def path_in(run: RunFolder, name: str = "val-zero") -> Path:
    """The path of the record ``name`` of a run: RUN/scores/NAME.json."""
    return run.path / "scores" / f"{name}.json"


def name_of(loaded: Loaded, record: Record, whole: bool = True) -> str:
    """SPLIT-LATENT, followed by everything in which the evaluation differs from the ordinary one of its run.

    So a repeated evaluation replaces its own record. One of 50 frames, of another checkpoint or of other data never
    replaces the ordinary one. Data are identified by their digest, not by their folder.
    whole: every sequence was scored to its end.
    """
    protocol = record["protocol"]
    whole = whole and record.get("whole", True)
    parts = [protocol["split"], "all" if "by_latent" in record else protocol["latent"]]
    if protocol["past"] != record["config"]["training"]["past"] or not whole:
        future = protocol["future"]
        parts.append(f"{protocol['past']}to{future if isinstance(future, int) else max(future)}")
    if protocol["samples"] > 1:
        parts.append(f"x{protocol['samples']}")
    parts += [name for name in EXTRAS if name in record]
    if protocol["seed"]:
        parts.append(f"seed{protocol['seed']}")
    if protocol["actions"] == "of other clips":
        parts.append("other-actions")
    if protocol["weights"] == "raw" and "ema" in protocol["weights_available"]:
        parts.append("raw")
    if protocol["batch_norm"] == "batch":
        parts.append("batch-stats")
    if protocol["precision"] != "float32":
        parts.append(protocol["precision"])
    if loaded.run and loaded.path.name != find_checkpoint(loaded.run.path)[0].name:
        parts.append(loaded.path.stem)
    if not _is_of_the_training(record, loaded.meta, loaded.config.data.path):
        parts += [re.sub(r"[^\w.-]+", "-", Path(record["data"]).name), protocol["data_digest"][:8]]
    return "-".join(parts)


def _is_of_the_training(record: Record, meta: CheckpointMeta, trained_on: str) -> bool:
    """Whether a record was taken on the data that the model was trained on.

    Compares the digest of the validation split that training stored, or else the paths of the data.
    """
    validated, protocol = _validated(meta), record["protocol"]
    if validated and same_split(validated["split"], protocol["split"]):
        return bool(validated["data_digest"] == protocol["data_digest"])
    return _same_place(record, trained_on)


def was_trained_on(loaded: Loaded, data: VideoData) -> bool:
    """Whether a model was trained on ``data``, or does not record its data.

    Compares the digest of the validation split that training stored, or else the paths of the data.
    """
    validated = _validated(loaded.meta)
    if validated and data.has_split(validated["split"]):
        sequences = data.split(validated["split"])
        return bool(digest_of(sequences, [s.known for s in sequences]) == validated["data_digest"])
    path = loaded.config.data.path
    return not path or data.source.resolve() == Path(path).resolve()


def same_split(a: str, b: str) -> bool:
    """Whether two names mean the same split; "val" and "validate" do."""
    return a == b or {a, b} == {"val", "validate"}


def write(path: Path, record: Record) -> None:
    durable.write_json(path, record)


# --- the ordinary score -----------------------------------------------------------------------------


def ordinary(run: RunFolder, wanted: Mapping[str, Any]) -> list[Record]:
    """The records in a run's folder with the protocol ``wanted``, made by ``score.protocol_of``.

    The first one is the ordinary score; the others may have more in them, such as other choices of z.
    """
    return [record for _, record in _matching(run, wanted)]


def ordinary_without_data(run: RunFolder, meta: CheckpointMeta, digest: str, split: str = "val") -> Record | None:
    """The ordinary score of a checkpoint, found by its metadata and digest, without opening the data.

    Prefers a record on the training's own data, by the digest that training stored. If it stored none, or no record has
    it, accepts a record on the data at the same path, or one with the name of the ordinary score.
    """
    wanted = ordinary_protocol(meta, digest, split)
    known, trained_on = wanted.pop("data_digest", None), settings.resolve(meta.config).data.path
    found = [(path, r) for path, r in _matching(run, wanted) if r.get("whole", not PART.search(path.stem))]
    alike = [r for _, r in found if known and r["protocol"].get("data_digest") == known]
    at_place = [r for path, r in found if _same_place(r, trained_on) or (not known and path.stem == f"{split}-zero")]
    return next(iter(alike + at_place), None)


def _matching(run: RunFolder, wanted: Mapping[str, Any]) -> list[tuple[Path, Record]]:
    """The records of a protocol, shortest name first, because names list what is out of the ordinary."""
    found = []
    for path in sorted((run.path / "scores").glob("*.json"), key=lambda path: (len(path.stem), path)):
        with contextlib.suppress(DataError):
            record = read(path)
            if not unlike(record, wanted):
                found.append((path, record))
    return found


def _same_place(record: Record, trained_on: str) -> bool:
    return Path(str(record.get("data"))).resolve() == Path(trained_on).resolve()


def ordinary_protocol(meta: CheckpointMeta, digest: str, split: str = "val") -> dict[str, Any]:
    """The protocol of a checkpoint's ordinary score, as far as its file records it.

    That is z = 0, the whole split, as many given frames as in training, and defaults for the rest.
    """
    fields = dataclasses.fields(Protocol)
    usual = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING and f.name not in FREE}
    training, validated = settings.resolve(meta.config).training, _validated(meta)
    known = {"data_digest": validated["data_digest"]} if same_split(validated.get("split", ""), split) else {}
    weights = "ema" if training.ema else "raw"
    own = {"checkpoint": digest, "split": split, "past": training.past, "weights": weights}
    return {**usual, **own, "latent": "zero", "samples": 1, **known}


def unlike(record: Record, wanted: Mapping[str, Any]) -> list[str]:
    """The fields in which a record's protocol differs from ``wanted``."""
    protocol, expected = (json.loads(json.dumps(dict(table))) for table in (record["protocol"], wanted))
    differing = [
        key
        for key, value in expected.items()
        if key not in {*FREE, "seed", "split"} - {"checkpoint"} and protocol.get(key) != value  # z = 0 draws nothing
    ]
    if not same_split(str(protocol.get("split")), expected["split"]):
        differing.append("split")
    for key, unusual in (("batch_norm", "batch"), ("actions", "of other clips")):  # ``wanted`` may lack these fields
        if protocol.get(key) == unusual != expected.get(key):
            differing.append(key)
    return differing


# --- how the checkpoint was chosen ------------------------------------------------------------------


def selection_of(path: Path, run: RunFolder | None, meta: CheckpointMeta, protocol: Mapping[str, Any]) -> Record:
    """How the checkpoint ``path`` was chosen, for a record of ``protocol``.

    The best of many validations on the scored data themselves has a higher score than a checkpoint that was not chosen
    by its score. Returns ``{"chosen": "last"}``, ``{"chosen": "best", "of", "metric", "split", "on_scored_data"}``
    ("of": number of validations, None if not recorded), or ``{"chosen": "unknown"}`` for any other file.
    """
    if run is None or path.parent.name != run.checkpoints.name or path.name not in (checkpoint.LAST, checkpoint.BEST):
        return {"chosen": "unknown"}
    if path.name == checkpoint.LAST:
        return {"chosen": "last"}
    validated = _validated(meta)
    with contextlib.suppress(DataError):  # the newest checkpoint also counts the validations that came later
        validated = _validated(checkpoint.read_header(run.checkpoints / checkpoint.LAST)[0]) or validated
    split = validated.get("split", "val")
    alike = validated.get("data_digest") in (None, protocol.get("data_digest"))
    metric = validated.get("metric") or settings.resolve(meta.config).validation.metric
    on_scored = same_split(split, str(protocol.get("split"))) and alike
    count = validated.get("count")
    return {"chosen": "best", "of": count, "metric": metric, "split": split, "on_scored_data": on_scored}


def _validated(meta: CheckpointMeta) -> dict[str, Any]:
    """The checkpoint's entry about validations (``validation.counted``); empty if it has none or it is malformed."""
    kinds = {"split": str, "data_digest": str, "metric": str, "count": int}
    found = meta.validation or {}
    return dict(found) if all(isinstance(found.get(key), kind) for key, kind in kinds.items()) else {}


def selection_text(record: Record) -> str:
    """How a record's checkpoint was chosen, in words; records of older versions do not say."""
    match record.get("selection"):
        case {"chosen": "best", "of": count, "metric": metric, "split": split, **more}:
            among = f" of {counted(count, 'validation')}" if count else ""
            elsewhere = same_split(split, record["protocol"]["split"]) and not more.get("on_scored_data", True)
            return f"best{among} by {metric} on {split}{' of other data' * elsewhere}"
        case {"chosen": str(chosen)}:
            return chosen
    return "not recorded"


def is_chosen_by_its_score(record: Record) -> bool:
    """Whether the checkpoint is the best of several on the data it is scored on."""
    match record.get("selection"):
        case {"chosen": "best", "of": count, "on_scored_data": True}:
            return bool(count != 1)
    return False


def selection_warning(named: Sequence[tuple[str, Record]]) -> str:
    """The warning for a comparison of checkpoints chosen by their score with others; empty if there is none."""
    chosen = [name for name, record in named if is_chosen_by_its_score(record)]
    others = [name for name, record in named if name not in chosen]
    if not chosen or not others:
        return ""
    how, beside = (selection_text(dict(named)[names[0]]) for names in (chosen, others))
    return (
        f"{_names(chosen)}: the checkpoint was chosen by its score on these very data ({how}), which flatters it "
        f"beside {_names(others)} ({beside})."
    )


def protocol_warning(named: Sequence[tuple[str, Record]]) -> str:
    """The warning that some scores cannot be compared with the first one; empty if all can."""
    unlike_first = {name: found for name, record in named[1:] if (found := differences(named[0][1], record))}
    if not unlike_first:
        return ""
    fields = ", ".join(dict.fromkeys(key for found in unlike_first.values() for key in found))
    return (
        f"the scores of {_names([*unlike_first])} cannot be compared with that of {named[0][0]}: they were not taken "
        f"by the same protocol ({fields} differ)."
    )


# --- beside the training frames of the nearest poses ------------------------------------------------


def beats_nearest_pose(record: Record) -> float | None:
    """By how many dB a score beats repeating the training frames of the nearest poses; None if not recorded."""
    repeated = record.get("baseline_nearest_pose_psnr")
    return None if repeated is None else float(record["psnr_mean"]) - float(repeated)


def nearest_pose_text(record: Record) -> str:
    """The same in words; empty if not recorded."""
    match beats_nearest_pose(record):
        case None:
            return ""
        case ahead if ahead > 0:
            return f"beats the nearest training frame by {ahead:.2f} dB"
    return "does not beat repeating the training frame of the nearest pose: it does no better than memorising would"


def nearest_pose_warning(named: Sequence[tuple[str, Record]]) -> str:
    """The warning that names the models which do not beat it; empty if all do."""
    names = [name for name, record in named if (ahead := beats_nearest_pose(record)) is not None and ahead <= 0]
    if not names:
        return ""
    does, it = ("does", "it") if len(names) == 1 else ("do", "they")
    return (
        f"{_names(names)} {does} not beat repeating the training frame of the nearest pose: "
        f"{it} {does} no better than memorising would."
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# --- reading and comparing --------------------------------------------------------------------------


def read(path: Path) -> Record:
    """Read a record; raises ``DataError`` if the file is missing, damaged or another kind of file."""
    try:
        record = reading.parse_json(reading.read_bytes(path))
    except FileNotFoundError:
        run = path.parent.parent
        raise DataError(f"there is no score record {path}.", f"Make one: {typed('evaluate', run)}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.", "Score the run again: vidcvae evaluate RUN") from None
    if not isinstance(record, dict) or not isinstance(record.get("protocol"), dict) or "psnr_mean" not in record:
        raise DataError(
            f"{path} is not a score record: it has no protocol or no score.", "Make one: vidcvae evaluate RUN"
        )
    return record


def differences(a: Record, b: Record) -> dict[str, tuple[Any, Any]]:
    """``{"latent": (a's, b's)}`` for every field of the protocol that must agree in a comparison, and does not.

    The checkpoints may differ. Data of the same content are the same data under any name. The seed counts if z is
    drawn, raw or averaged weights if both models have both, and BatchNorm's mode if both models have BatchNorm.
    """
    left, right = (json.loads(json.dumps(r["protocol"])) for r in (a, b))  # tuples become lists, as in files
    differing = {
        key: (left.get(key), right.get(key))
        for key in left | right
        if key not in FREE and left.get(key) != right.get(key)
    }
    drawn = {"prior", "posterior"} & {left.get("latent"), right.get("latent")}
    if not drawn and left.get("actions") != "of other clips":
        differing.pop("seed", None)
    if not all("ema" in p.get("weights_available", "") for p in (left, right)):
        differing.pop("weights", None)
    if "none" in (left.get("batch_norm"), right.get("batch_norm")):
        differing.pop("batch_norm", None)
    return differing


def command(run: str, record: Record, like: Record) -> str:
    """The command that scores ``run``, which has the score ``record``, by the protocol of the record ``like``."""
    protocol, defaults = like["protocol"], {"split": "val", "latent": "zero", "samples": 1, "seed": 0}
    if run.endswith(".json"):  # a record's file: take the run that holds it
        run = str(Path(run).parent.parent) if Path(run).parent.name == "scores" else "RUN"
    words = [run]
    differing = differences(record, like)
    if differing.keys() & {"data_digest", "size"} and "data" in like:
        words += ["--data", like["data"]]
    for key, default in defaults.items():
        value = protocol.get(key, default)
        if not value == default == record["protocol"].get(key, default):
            words += [f"--{key}", str(value)]
    for key in ("past", "future"):
        value = protocol.get(key)
        if isinstance(value, int) and value != record["protocol"].get(key):
            words += [f"--{key}", str(value)]
    if "weights" in differing:
        words += ["--weights", str(protocol.get("weights"))]
    if {r["protocol"].get("precision", "float32") for r in (record, like)} != {"float32"}:
        words += ["--precision", "bf16" if protocol.get("precision") == "bfloat16" else "float32"]
    words += ["--batch-stats"] if protocol.get("batch_norm") == "batch" else []
    words += ["--shuffle-actions"] if protocol.get("actions") == "of other clips" else []
    return typed("evaluate", *words)


def digest_of(sequences: Sequence[clips.Sequence], lengths: Sequence[int]) -> str:
    """The first 16 digits of SHA-256 over the first ``lengths`` frames and conditions, whatever file they came from."""
    digest = hashlib.sha256()
    for sequence, length in zip(sequences, lengths, strict=True):
        for name, track in (("frames", sequence.frames), *sorted(sequence.tracks.items())):
            digest.update(f"{name} {track.dtype} {(length, *track.shape[1:])}".encode())
            for begin in range(0, length, BLOCK):
                digest.update(np.ascontiguousarray(track[begin : min(begin + BLOCK, length)]).tobytes())
    return digest.hexdigest()[:16]
