"""A checkpoint of the model ``anchor-cvae`` without a weight file: every weight follows from its place in a list.

anchor.json holds the names and shapes of the weights at the fewest channels, in order. As the networks of the course's
SVG golden values are filled (README of the reference data), so the j-th one here, of n numbers with flat index i, is
sin(0.1 (1 + 0.01 j) i + j): a tenth of it where there is one axis, else / sqrt(n / shape[0]). The file is written by
safetensors itself and by the words of ``storage/checkpoint.py``, with none of its code.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    "model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 1},
    "data": {"path": "packed", "size": [16, 16]},
}


def write(path: Path, shapes: dict[str, list[int]]) -> None:
    tensors = {f"model.{name}": _filled(j, shape) for j, (name, shape) in enumerate(shapes.items())}
    meta = {
        "format": "vidcvae-checkpoint-1",
        "sha256": {name: hashlib.sha256(t.tobytes()).hexdigest() for name, t in tensors.items()},
        **{"version": "0.1.0", "config": CONFIG, "step": 1, "epoch": 1, "scores": {}},
    }
    text = json.dumps(meta)
    table = sorted([name, "F32", list(t.shape)] for name, t in tensors.items())
    digest = hashlib.sha256(json.dumps([text, table]).encode()).hexdigest()
    save_file(tensors, path, {"vidcvae": text, "digest": digest})


def _filled(j: int, shape: list[int]) -> np.ndarray[Any, Any]:
    n = int(np.prod(shape))
    x = np.sin(0.1 * (1 + 0.01 * j) * np.arange(n) + j)
    x = 0.1 * x if len(shape) == 1 else x / np.sqrt(n / shape[0])
    return x.astype(np.float32).reshape(shape)
