"""Checkpoints: safetensors files that hold everything a run needs to resume, with checksums of all of it.

The metadata of the file has two strings. ``vidcvae`` is a JSON text with the config, the position in training and a
SHA-256 of every tensor; ``digest`` is a SHA-256 over that text and the table of tensors. They reveal a flipped bit or
a missing end anywhere in the file, and the error names the damaged tensor.

PyTorch is imported only to handle tensors, so that reading headers, as ``vidcvae runs list`` does, stays fast.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
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
_MAX_HEADER = 1 << 24  # bytes; 300 tensors need 200 kB. Parsed JSON can take twenty times its size in memory
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
    epoch: int = 0  # number of finished epochs
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation
    progress: dict[str, Any] | None = None  # ``training.state.Position``; without it, training cannot be resumed
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
    """The content of a file. ``tensors`` are named ``model.*``, ``ema.*`` and ``optimizer.KEY.PARAMETER``."""

    path: Path
    tensors: dict[str, Tensor]
    meta: CheckpointMeta
    digest: str

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``name.``, without that prefix."""
        return {key.removeprefix(f"{name}."): t for key, t in self.tensors.items() if key.startswith(f"{name}.")}

    def sizes(self) -> dict[str, dict[str, int]]:
        """The size of each part that exists, as ``{"model": {"tensors", "numbers", "bytes"}, ...}``."""
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
    """The content of a checkpoint file."""
    from safetensors.torch import save as serialise

    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    hashes = {name: hashlib.sha256(_raw(t)).hexdigest() for name, t in plain.items()}
    text = json.dumps({"format": FORMAT, "sha256": hashes, **meta.to_json()})
    table = {name: (_dtype(t), list(t.shape)) for name, t in plain.items()}
    return serialise(plain, {"vidcvae": text, "digest": _digest(text, table)})


def save(path: Path, tensors: dict[str, Tensor], meta: CheckpointMeta) -> None:
    durable.write_bytes(path, to_bytes(tensors, meta))


def read(path: Path) -> Checkpoint:
    """Read and verify a checkpoint; raises ``DataError``, which says what is damaged."""
    content = _read_bytes(path)
    header = _parse_header(path, content)
    start = 8 + int.from_bytes(content[:8], "little")
    spans = {name: entry["data_offsets"] for name, entry in header.tensors.items()}
    missing = [name for name, (_, end) in spans.items() if end > len(content) - start]
    if missing:
        first = min(missing, key=lambda name: spans[name][0])
        raise _damaged(path, f"it ends before the end of tensor {reading.label(first)}")
    for name, (begin, end) in spans.items():
        if hashlib.sha256(content[start + begin : start + end]).hexdigest() != header.hashes[name]:
            raise _damaged(path, f"tensor {reading.label(name)} does not match its checksum")
    from safetensors.torch import load as parse

    try:
        tensors = parse(content)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a number type that torch does not have
        raise _damaged(path, str(error)) from None
    return Checkpoint(path, tensors, header.meta, header.digest)


def read_header(path: Path) -> tuple[CheckpointMeta, str]:
    """A checkpoint's metadata and digest; the tensors are neither read nor verified. Raises ``DataError``."""
    header = _parse_header(path, _read_bytes(path, header_only=True))
    return header.meta, header.digest


def commit(folder: Path, tensors: dict[str, Tensor], meta: CheckpointMeta, *, best: bool, keep: int) -> Path:
    """Save a checkpoint as ``step-N``, make it ``last`` (and ``best``), and keep the ``keep`` newest steps.

    Once this returns, ``last`` is the new checkpoint; if it is interrupted, ``last`` is the old or the new one.
    Checkpoints of later steps are removed: the run was resumed from an earlier step, so they are obsolete.
    """
    path = folder / f"step-{meta.step:08d}.safetensors"
    save(path, tensors, meta)
    if best:  # before ``last``: a run resumed from ``last`` assumes that ``best`` has been written
        durable.link(path, folder / BEST)
    durable.link(path, folder / LAST)
    numbered = steps(folder)
    until = numbered.index(path) + 1
    for old in numbered[: max(until - keep, 0)] + numbered[until:]:
        durable.remove(old)
    return path


def read_newest(folder: Path) -> tuple[Checkpoint, list[DataError]]:
    """Read ``last``, or if it is damaged, the newest intact checkpoint in ``folder``; also returns the errors met.

    Raises ``DataError`` if none is intact.
    """
    last = folder / LAST
    try:
        return read(last), []
    except DataError as error:
        problems = [error]
    newest: Checkpoint | None = None
    for path in (*steps(folder), folder / BEST):
        if not path.exists() or (last.exists() and path.samefile(last)):  # another name of the damaged file
            continue
        try:
            saved = read(path)
        except DataError as error:
            problems.append(error)
            continue
        if newest is None or saved.meta.step > newest.meta.step:
            newest = saved
    if newest is None:
        raise DataError(
            f"no checkpoint in {folder} can be used: {' '.join(problem.message for problem in problems)}",
            f"Train again with the same settings: {typed('train', '--config', folder.parent / 'config.toml')}",
        )
    return newest, problems


def steps(folder: Path) -> list[Path]:
    """The numbered checkpoints, oldest first; files with merely similar names are ignored."""
    numbered = ((match, path) for path in folder.glob("step-*.safetensors") if (match := _STEP.fullmatch(path.name)))
    return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if not path.is_symlink())]


@dataclass(frozen=True)
class _Header:
    """A parsed header. tensors: ``{name: {"dtype", "shape", "data_offsets"}}``; hashes: the SHA-256 of each."""

    tensors: dict[str, Any]
    hashes: dict[str, str]
    meta: CheckpointMeta
    digest: str


def _read_bytes(path: Path, header_only: bool = False) -> bytes:
    """The bytes of a file, or those of its header; a large file of another kind is refused before it is read."""
    try:
        with reading.open_file(path) as file:
            head = file.read(9)
            size = int.from_bytes(head[:8], "little")
            if size > _MAX_HEADER and head[8:] != b"{":
                raise _no_checkpoint(path, head)
            if size > _MAX_HEADER:
                cut = size > path.stat().st_size
                raise _damaged(path, "it ends inside its header" if cut else "its header cannot be read")
            if header_only:
                return head + file.read(max(size - 1, 0))
        return reading.read_bytes(path)
    except FileNotFoundError:
        raise DataError(f"there is no checkpoint {path}.", "See what there is: vidcvae runs list") from None
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {path}: {error.strerror}.") from None


def _parse_header(path: Path, content: bytes) -> _Header:
    """Parse the header at the beginning of ``content`` and check it against its checksum."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 + size:
        raise _damaged(path, "it ends inside its header")
    try:
        tensors = reading.parse_json(content[8 : 8 + size])
        if not isinstance(tensors, dict):
            raise ValueError
        strings = tensors.pop("__metadata__", None) or {}
        spans = [entry["data_offsets"] for entry in tensors.values()]
        if not all([type(n) for n in span] == [int, int] and 0 <= span[0] <= span[1] for span in spans):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise _damaged(path, "its header cannot be read") from None
    if not isinstance(strings, dict) or "vidcvae" not in strings:
        raise DataError(
            f"{path} is a safetensors file, but not a vidcvae checkpoint.",
            "Import a checkpoint of the course's trainer: vidcvae checkpoint import COURSE.ckpt -o X.safetensors",
        )
    text, digest = strings["vidcvae"], strings.get("digest")
    if _digest(text, {name: (entry.get("dtype"), entry.get("shape")) for name, entry in tensors.items()}) != digest:
        raise _damaged(path, "its header does not match its checksum")
    try:
        stored = reading.parse_json(text)
        if not isinstance(stored, dict):
            raise ValueError
        meta = CheckpointMeta.from_json(stored)
    except (ValueError, TypeError):
        raise _damaged(path, "its metadata cannot be read") from None
    if stored.get("format") != FORMAT:
        raise DataError(f"{path} has the format {reading.shown(stored.get('format'))}; this version reads {FORMAT!r}.")
    hashes = stored.get("sha256")
    if not isinstance(hashes, dict) or hashes.keys() != tensors.keys():
        raise _damaged(path, "it does not have a checksum for each tensor")
    return _Header(tensors, hashes, meta, digest)


def _no_checkpoint(path: Path, head: bytes) -> DataError:
    hint = "Give a run folder or a checkpoint in one. List the runs: vidcvae runs list"
    if head.startswith((b"PK\3\4", b"\x80")):  # a ZIP archive or a pickle
        hint = (
            f"If the course's trainer saved it, import it: {typed('checkpoint', 'import', path, '-o', 'X.safetensors')}"
        )
    return DataError(f"{path} is not a vidcvae checkpoint: it is not in the safetensors format.", hint)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"the checkpoint {path} is damaged: {what}.",
        f"Look for an older one beside it: ls {shlex.quote(str(path.parent))}",
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
