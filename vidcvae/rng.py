"""Randomness as a function of ``(seed, stream, index...)``.

There is no generator state to save: the noise of step 1234 is the same whether training arrived there
in one run or after ten resumes (as in EDM2, where seeds are re-derived each step).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def seed_of(seed: int, stream: str, *index: int) -> int:
    """A 63-bit seed that is different for every ``(seed, stream, index...)``."""
    text = "/".join([str(seed), stream, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, stream: str, *index: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A new generator for one draw from one stream."""
    return torch.Generator(device).manual_seed(seed_of(seed, stream, *index))


def normal(shape: Sequence[int], seed: int, stream: str, *index: int, device: str | torch.device = "cpu") -> Tensor:
    """Standard normal noise of ``shape``, float32."""
    return torch.randn(*shape, generator=generator(seed, stream, *index, device=device), device=device)


def uniform(shape: Sequence[int], seed: int, stream: str, *index: int, device: str | torch.device = "cpu") -> Tensor:
    """Uniform noise in [0, 1) of ``shape``, float32."""
    return torch.rand(*shape, generator=generator(seed, stream, *index, device=device), device=device)


def to_device(x: Tensor, device: str | torch.device) -> Tensor:
    """Copy ``x`` to ``device`` without waiting for a GPU; copying from unpinned memory would wait."""
    if torch.device(device).type == "cuda" and not x.is_cuda:
        x = x.contiguous().pin_memory()  # expanded tensors, whose elements share memory, cannot be pinned
    return x.to(device, non_blocking=True)


def permutation(n: int, seed: int, stream: str, *index: int) -> list[int]:
    """A random order of ``range(n)``."""
    order: list[int] = torch.randperm(n, generator=generator(seed, stream, *index)).tolist()
    return order
