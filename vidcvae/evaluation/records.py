"""Score records: kept with the run, read back, and compared only where their protocols agree.

A record is one JSON document (``score.score_split`` makes it): the scores, the protocol they were taken by, and the
model's config, so that a table of several needs nothing beside their files.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from vidcvae import reading
from vidcvae.data import clips
from vidcvae.errors import DataError
from vidcvae.models.loading import Loaded
from vidcvae.storage import durable
from vidcvae.storage.run import RunFolder, find_checkpoint

Record = dict[str, Any]

# What says which model was scored, not how; and what only decides whether another key counts
FREE = ("checkpoint", "step", "version", "weights_available", "dataset", "sequences")
EXTRAS = ("bounds", "long", "perceptual")  # what costs a run of its own
BLOCK = 64  # frames hashed at once


def path_in(run: RunFolder, name: str = "val-zero") -> Path:
    """Where the record ``name`` of a run lies: RUN/scores/NAME.json."""
    return run.path / "scores" / f"{name}.json"


def name_of(loaded: Loaded, record: Record, whole: bool = True) -> str:
    """SPLIT-LATENT, followed by all in which an evaluation is not the ordinary one of its run.

    So a repeated evaluation replaces its own record, and one of 50 frames, of another checkpoint or of other data never
    replaces the ordinary one. ``whole``: every sequence was scored to its end.
    """
    protocol = record["protocol"]
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
    if loaded.run and loaded.path.name != find_checkpoint(loaded.run.path)[0].name:
        parts.append(loaded.path.stem)
    if Path(record["data"]).name != Path(loaded.config.data.path).name:
        parts.append(Path(record["data"]).name.replace(":", "-"))
    return "-".join(parts)


def write(path: Path, record: Record) -> None:
    durable.write_json(path, record)


def is_current(run: RunFolder, record: Record) -> bool:
    """Whether the record is of the checkpoint that the run's folder stands for now."""
    with safetensors.safe_open(find_checkpoint(run.path)[0], "numpy") as file:
        return bool((file.metadata() or {}).get("digest") == record["protocol"].get("checkpoint"))


def read(path: Path) -> Record:
    """A record; raises ``DataError`` if the file is missing, damaged or something else."""
    try:
        record = reading.parse_json(reading.read_bytes(path))
    except FileNotFoundError:
        run = path.parent.parent
        raise DataError(f"there is no score record {path}.", f"Make one: vidcvae evaluate {run}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.", "Score the run again: vidcvae evaluate RUN") from None
    if not isinstance(record, dict) or not isinstance(record.get("protocol"), dict) or "psnr_mean" not in record:
        raise DataError(f"{path} is no score record: it has no protocol and score.", "Make one: vidcvae evaluate RUN")
    return record


def differences(a: Record, b: Record) -> dict[str, tuple[Any, Any]]:
    """``{"latent": (a's, b's)}`` for every part of the protocol that must agree before scores compare, and does not.

    Which checkpoint was scored is free. Data of the same content are the same data under any name; the seed counts
    where z is drawn, raw or averaged weights where both models have both, and BatchNorm's mode where both have any.
    """
    left, right = (json.loads(json.dumps(r["protocol"])) for r in (a, b))  # tuples become lists, as in files
    found = {
        key: (left.get(key), right.get(key))
        for key in left | right
        if key not in FREE and left.get(key) != right.get(key)
    }
    if (
        not {"prior", "posterior"} & {left.get("latent"), right.get("latent")}
        and left.get("actions") != "of other clips"
    ):
        found.pop("seed", None)
    if not all("ema" in p.get("weights_available", "") for p in (left, right)):
        found.pop("weights", None)
    if "none" in (left.get("batch_norm"), right.get("batch_norm")):
        found.pop("batch_norm", None)
    return found


def command(run: str, record: Record, like: Record) -> str:
    """The command that scores ``run``, of which ``record`` is, by the protocol of the record ``like``."""
    protocol, defaults = like["protocol"], {"split": "val", "latent": "zero", "samples": 1, "seed": 0}
    if run.endswith(".json"):  # of a record's file, the run that it lies in
        run = str(Path(run).parent.parent) if Path(run).parent.name == "scores" else "RUN"
    words = ["vidcvae", "evaluate", run]
    unlike = differences(record, like)
    if unlike.keys() & {"data_digest", "size"} and "data" in like:
        words += ["--data", like["data"]]
    for key, default in defaults.items():
        if protocol.get(key, default) != default or record["protocol"].get(key, default) != protocol.get(key, default):
            words += [f"--{key}", str(protocol.get(key, default))]
    for key in ("past", "future"):
        wanted = protocol.get(key)
        if isinstance(wanted, int) and wanted != record["protocol"].get(key):
            words += [f"--{key}", str(wanted)]
    if "weights" in unlike:
        words += ["--weights", str(protocol.get("weights"))]
    words += ["--batch-stats"] if protocol.get("batch_norm") == "batch" else []
    words += ["--shuffle-actions"] if protocol.get("actions") == "of other clips" else []
    return shlex.join(words)


def digest_of(sequences: Sequence[clips.Sequence], lengths: Sequence[int]) -> str:
    """SHA-256 (its first 16 digits) of the first ``lengths`` frames and conditions, whatever file they came from."""
    digest = hashlib.sha256()
    for sequence, length in zip(sequences, lengths, strict=True):
        for name, track in (("frames", sequence.frames), *sorted(sequence.tracks.items())):
            digest.update(f"{name} {track.dtype} {(length, *track.shape[1:])}".encode())
            for begin in range(0, length, BLOCK):
                digest.update(np.ascontiguousarray(track[begin : min(begin + BLOCK, length)]).tobytes())
    return digest.hexdigest()[:16]
