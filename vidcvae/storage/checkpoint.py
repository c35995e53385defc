"""Checkpoints: one safetensors file each, with everything a run needs to go on, and checksums of all of it.

The file's metadata holds ``vidcvae``, a JSON text with the config, the position in training and a SHA-256 of
every tensor, and ``digest``, a SHA-256 over that text and the table of tensors. A flipped bit or a missing end
is caught wherever it is, and the damaged tensor is named.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vidcvae.errors import DataError
from vidcvae.storage import durable

FORMAT = "vidcvae-checkpoint-1"
LAST, BEST = "last.safetensors", "best.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. ``tensors`` are named ``model.*``, ``ema.*`` and ``optimizer.KEY.PARAMETER``."""

    path: Path
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    digest: str

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below ``name.``, without that prefix."""
        return {key.removeprefix(f"{name}."): t for key, t in self.tensors.items() if key.startswith(f"{name}.")}


def to_bytes(tensors: dict[str, Tensor], meta: dict[str, Any]) -> bytes:
    """A checkpoint file's content."""
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    hashes = {name: hashlib.sha256(_raw(t)).hexdigest() for name, t in plain.items()}
    text = json.dumps({"format": FORMAT, "sha256": hashes, **meta})
    table = {name: (_dtype(t), list(t.shape)) for name, t in plain.items()}
    return safetensors.torch.save(plain, {"vidcvae": text, "digest": _digest(text, table)})


def save(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    durable.write_bytes(path, to_bytes(tensors, meta))


def read(path: Path) -> Checkpoint:
    """Read and verify; raises ``DataError`` that says what is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no checkpoint {path}.", "See what there is: ls runs") from None
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
    meta = json.loads(text)
    if meta.get("format") != FORMAT:
        raise DataError(f"{path} has the format {meta.get('format')!r}; this version reads {FORMAT!r}.")
    for name, expected in meta["sha256"].items():
        begin, end = header[name]["data_offsets"]
        if hashlib.sha256(content[start + begin : start + end]).hexdigest() != expected:
            raise _damaged(path, f"tensor {name} does not match its checksum")
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise _damaged(path, str(error)) from None
    return Checkpoint(path, tensors, meta, meta_strings["digest"])


def commit(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any], *, step: int, best: bool, keep: int) -> Path:
    """Save a checkpoint as ``step-N``, make it ``last`` (and ``best``), and keep the ``keep`` newest steps.

    Once this returns, ``last`` is the new checkpoint; whenever it is cut short, ``last`` is the old or the new one.
    """
    path = folder / f"step-{step:08d}.safetensors"
    save(path, tensors, meta)
    durable.link(path, folder / LAST)
    if best:
        durable.link(path, folder / BEST)
    for old in steps(folder)[: -keep or None]:
        durable.remove(old)
    return path


def steps(folder: Path) -> list[Path]:
    """The numbered checkpoints, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def _header(path: Path, content: bytes) -> tuple[dict[str, Any], int]:
    """The tensor table of a safetensors file and where its data begin."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise _damaged(path, "it ends inside its header")
    try:
        header = json.loads(content[8 : 8 + size])
        data = len(content) - 8 - size
        entries = [e for name, e in header.items() if name != "__metadata__"]
        begins_ends = [(int(b), int(e)) for b, e in (entry["data_offsets"] for entry in entries)]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _damaged(path, "its header cannot be read") from None
    if max((end for _, end in begins_ends), default=0) > data:
        raise _damaged(path, "it ends before its last tensor")
    return header, 8 + size


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"the checkpoint {path} is damaged: {what}.",
        f"Look for an older one beside it: ls {path.parent}",
    )


def _raw(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def _dtype(tensor: Tensor) -> str:
    return _DTYPES[tensor.dtype]


def _digest(text: str, table: dict[str, Any]) -> str:
    whole = json.dumps([text, sorted((name, *entry) for name, entry in table.items())])
    return hashlib.sha256(whole.encode()).hexdigest()
