"""Checkpoints: one safetensors file each, with everything a run needs to go on, and checksums of all of it.

The file's metadata holds ``vidcvae``, a JSON text with the config, the position in training and a SHA-256 of
every tensor, and ``digest``, a SHA-256 over that text and the table of tensors. A flipped bit or a missing end
is caught wherever it is, and the damaged tensor is named.

PyTorch is imported where tensors are: what only looks at headers, such as ``vidcvae runs list``, does without.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from vidcvae import reading
from vidcvae.errors import DataError, typed
from vidcvae.storage import durable

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "vidcvae-checkpoint-1"
_MAX_HEADER = 1 << 24  # that of a model of 300 tensors has 200 kB; parsed, JSON can take twenty times its size
_STEP = re.compile(r"step-(\d{8,})\.safetensors", re.ASCII)
LAST, BEST = "last.safetensors", "best.safetensors"


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint stores besides its tensors; the fields are written as JSON in this order.

    A field that is None is not written: an imported checkpoint has no ``progress``, for example.
    """

    version: str | None = None
    config: dict[str, Any] = field(default_factory=dict)  # the settings by section, as ``config.to_table`` makes them
    arithmetic: dict[str, Any] | None = None  # what training.precision "auto" chose, and the number of threads
    step: int = 0
    epoch: int = 0  # finished ones
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation
    progress: dict[str, Any] | None = None  # ``training.state.Progress``; without it, training cannot be resumed
    validation: dict[str, Any] | None = None  # ``training.validation.counted``: the data and number of validations
    history_size: int | None = None  # bytes of history.jsonl when it was saved
    imported_from: str | None = None  # the name of the course's file

    @property
    def minutes(self) -> float | None:
        """The minutes of training, if they were stored."""
        return (self.progress or {}).get("minutes")

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> CheckpointMeta:
        """Read the keys that this version knows; raises ``ValueError`` if a value has another type."""
        known = {name: table[name] for name in _TYPES if name in table}
        if wrong := [name for name, value in known.items() if not isinstance(value, _TYPES[name])]:
            raise ValueError(f"{wrong[0]} has another type")
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


_TYPES = {
    "version": str,
    "config": dict,
    "arithmetic": dict,
    "step": int,
    "epoch": int,
    "scores": dict,
    "progress": dict,
    "validation": dict,
    "history_size": int,
    "imported_from": str,
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. ``tensors`` are named ``model.*``, ``ema.*`` and ``optimizer.KEY.PARAMETER``."""

    path: Path
    tensors: dict[str, Tensor]
    meta: CheckpointMeta
    digest: str

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below ``name.``, without that prefix."""
        return {key.removeprefix(f"{name}."): t for key, t in self.tensors.items() if key.startswith(f"{name}.")}

    def sizes(self) -> dict[str, dict[str, int]]:
        """``{"model": {"tensors", "numbers", "bytes"}, ...}`` of the parts that there are."""
        parts = {name: self.part(name).values() for name in ("model", "ema", "optimizer")}
        return {
            name: {
                "tensors": len(tensors),
                "numbers": sum(t.numel() for t in tensors),
                "bytes": sum(t.numel() * t.element_size() for t in tensors),
            }
            for name, tensors in parts.items()
            if tensors
        }


def to_bytes(tensors: dict[str, Tensor], meta: CheckpointMeta) -> bytes:
    """A checkpoint file's content."""
    from safetensors.torch import save as serialise

    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    hashes = {name: hashlib.sha256(_raw(t)).hexdigest() for name, t in plain.items()}
    text = json.dumps({"format": FORMAT, "sha256": hashes, **meta.to_json()})
    table = {name: (_dtype(t), list(t.shape)) for name, t in plain.items()}
    return serialise(plain, {"vidcvae": text, "digest": _digest(text, table)})


def save(path: Path, tensors: dict[str, Tensor], meta: CheckpointMeta) -> None:
    durable.write_bytes(path, to_bytes(tensors, meta))


def read(path: Path) -> Checkpoint:
    """Read and verify; raises ``DataError`` that says what is damaged."""
    try:
        with reading.open_file(path) as file:  # before all of it is read: it may be large, and something else
            head = file.read(9)
        size = int.from_bytes(head[:8], "little")
        if size > _MAX_HEADER and head[8:] != b"{":
            raise _no_checkpoint(path, head)
        if size > _MAX_HEADER:
            cut = size > path.stat().st_size
            raise _damaged(path, "it ends inside its header" if cut else "its header cannot be read")
        content = reading.read_bytes(path)
    except FileNotFoundError:
        raise DataError(f"there is no checkpoint {path}.", "See what there is: vidcvae runs list") from None
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {path}: {error.strerror}.") from None
    header, start = _header(path, content)
    meta_strings = header.pop("__metadata__", None) or {}
    if not isinstance(meta_strings, dict) or "vidcvae" not in meta_strings:
        raise DataError(
            f"{path} is a safetensors file, but not a vidcvae checkpoint.",
            "Course checkpoints are read with: vidcvae checkpoint import COURSE.ckpt -o X.safetensors",
        )
    text = meta_strings["vidcvae"]
    table = {name: (entry.get("dtype"), entry.get("shape")) for name, entry in header.items()}
    if _digest(text, table) != meta_strings.get("digest"):
        raise _damaged(path, "its header does not match its checksum")
    meta, stored = _parse_meta(path, text)
    if stored.get("format") != FORMAT:
        raise DataError(f"{path} has the format {reading.shown(stored.get('format'))}; this version reads {FORMAT!r}.")
    hashes = stored.get("sha256")
    if not isinstance(hashes, dict) or hashes.keys() != table.keys():
        raise _damaged(path, "it does not have a checksum for each tensor")
    for name, expected in hashes.items():
        begin, end = header[name]["data_offsets"]
        if hashlib.sha256(content[start + begin : start + end]).hexdigest() != expected:
            raise _damaged(path, f"tensor {reading.label(name)} does not match its checksum")
    from safetensors.torch import load as parse

    try:
        tensors = parse(content)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: numbers of a kind that torch does not have
        raise _damaged(path, str(error)) from None
    return Checkpoint(path, tensors, meta, meta_strings["digest"])


def read_header(path: Path) -> tuple[CheckpointMeta, str]:
    """A checkpoint's metadata and digest without its tensors, of which nothing is verified; raises ``DataError``."""
    try:
        with reading.open_file(path) as file:
            content = file.read(8)
            size = int.from_bytes(content, "little")
            if size > _MAX_HEADER:
                raise _damaged(path, "its header cannot be read")
            content += file.read(size)
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {path}: {error.strerror}.") from None
    try:
        if len(content) < 8 + size:
            raise ValueError
        header = reading.parse_json(content[8:])
        strings = header.pop("__metadata__")
        text, digest = strings["vidcvae"], strings["digest"]
        table = {name: (entry.get("dtype"), entry.get("shape")) for name, entry in header.items()}
        intact = _digest(text, table) == digest
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _damaged(path, "its header cannot be read") from None
    if not intact:
        raise _damaged(path, "its header does not match its checksum")
    return _parse_meta(path, text)[0], digest


def commit(folder: Path, tensors: dict[str, Tensor], meta: CheckpointMeta, *, best: bool, keep: int) -> Path:
    """Save a checkpoint as ``step-N``, make it ``last`` (and ``best``), and keep the ``keep`` newest steps.

    Once this returns, ``last`` is the new checkpoint; whenever it is cut short, ``last`` is the old or the new one.
    Checkpoints of later steps go: they are of a future that was given up by resuming from an earlier one.
    """
    path = folder / f"step-{meta.step:08d}.safetensors"
    save(path, tensors, meta)
    if best:  # before ``last``: a run that goes on from there takes its best as already found
        durable.link(path, folder / BEST)
    durable.link(path, folder / LAST)
    numbered = steps(folder)
    until = numbered.index(path) + 1
    for old in numbered[: max(until - keep, 0)] + numbered[until:]:
        durable.remove(old)
    return path


def read_newest(folder: Path) -> tuple[Checkpoint, list[DataError]]:
    """``last``; where that is damaged the newest good checkpoint in ``folder``, and what is wrong with the others.

    Raises ``DataError`` if none is good.
    """
    last = folder / LAST
    try:
        return read(last), []
    except DataError as error:
        problems = [error]
    newest: Checkpoint | None = None
    for path in (*steps(folder), folder / BEST):
        if not path.exists() or (last.exists() and path.samefile(last)):  # another name of what is known to be bad
            continue
        try:
            found = read(path)
        except DataError as error:
            problems.append(error)
            continue
        if newest is None or found.meta.step > newest.meta.step:
            newest = found
    if newest is None:
        raise DataError(
            f"no checkpoint in {folder} can be used: {' '.join(problem.message for problem in problems)}",
            f"Train anew with the same settings: {typed('train', '--config', folder.parent / 'config.toml')}",
        )
    return newest, problems


def steps(folder: Path) -> list[Path]:
    """The numbered checkpoints, oldest first; a file that only has a name like theirs is none."""
    numbered = ((match, path) for path in folder.glob("step-*.safetensors") if (match := _STEP.fullmatch(path.name)))
    return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if not path.is_symlink())]


def _header(path: Path, content: bytes) -> tuple[dict[str, Any], int]:
    """The tensor table of a safetensors file and where its data begin."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise _damaged(path, "it ends inside its header")
    try:
        header = reading.parse_json(content[8 : 8 + size])
        if not isinstance(header, dict):
            raise ValueError
        tensors = [name for name in header if name != "__metadata__"]
        spans = {name: header[name]["data_offsets"] for name in tensors}
        if not all([type(n) for n in span] == [int, int] and 0 <= span[0] <= span[1] for span in spans.values()):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise _damaged(path, "its header cannot be read") from None
    missing = [name for name in tensors if spans[name][1] > len(content) - 8 - size]
    if missing:
        first = min(missing, key=lambda name: spans[name][0])
        raise _damaged(path, f"it ends before the end of tensor {reading.label(first)}")
    return header, 8 + size


def _parse_meta(path: Path, text: Any) -> tuple[CheckpointMeta, dict[str, Any]]:
    """The metadata, and the JSON table they were read from."""
    try:
        table = reading.parse_json(text)
        if not isinstance(table, dict):
            raise ValueError
        return CheckpointMeta.from_json(table), table
    except (ValueError, TypeError):
        raise _damaged(path, "its metadata cannot be read") from None


def _no_checkpoint(path: Path, head: bytes) -> DataError:
    hint = "Give a run folder, or a checkpoint in one. See what there is: vidcvae runs list"
    if head.startswith((b"PK\3\4", b"\x80")):  # a ZIP archive or a pickle
        hint = f"Is it of the course's trainer? Import it: {typed('checkpoint', 'import', path, '-o', 'X.safetensors')}"
    return DataError(f"{path} is no checkpoint of vidcvae: it is not in the safetensors format.", hint)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"the checkpoint {path} is damaged: {what}.",
        f"Look for an older one beside it: ls {path.parent}",
    )


def _raw(tensor: Tensor) -> bytes:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


_DTYPES = {
    "torch.float32": "F32",
    "torch.float64": "F64",
    "torch.bfloat16": "BF16",
    "torch.float16": "F16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}


def _dtype(tensor: Tensor) -> str:
    return _DTYPES[str(tensor.dtype)]


def _digest(text: str, table: dict[str, Any]) -> str:
    whole = json.dumps([text, sorted((name, *entry) for name, entry in table.items())])
    return hashlib.sha256(whole.encode()).hexdigest()
