"""CUDA graphs: a function of tensors recorded once and replayed with one launch instead of thousands.

With a small network and a small batch, each kernel takes less time than its launch, so the GPU waits for Python. A
graph holds the launches of a whole step and is replayed on the same memory (https://pytorch.org/docs/stable/notes/cuda.html).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

import torch
from torch import Tensor

CAPTURING = "while a CUDA graph was captured"  # the note on exceptions raised there
EAGER_CALLS = 2  # before capture, so that libraries choose their kernels and optimizers create their state


class Graphed:
    """``function`` on a GPU, captured for each new combination of shapes and of values that are not tensors.

    Arguments and results are tensors, tuples of them, or hashable values.
    The function must not wait for the GPU, and may change tensors in place. The first calls run eagerly and count, so
    nothing is computed for warm-up alone. The next call overwrites a result.
    Tensors of new shapes discard all earlier graphs: clips only grow longer, and a graph keeps its memory.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.stream = _side_stream(torch.cuda.current_device())
        self._reset([])

    def _reset(self, shapes: list[torch.Size]) -> None:
        self.shapes = shapes
        self.calls: dict[Hashable, int] = {}
        self.captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}
        self.pool = torch.cuda.graph_pool_handle()  # shared: the graphs run one after the other

    def __call__(self, *arguments: Any) -> Any:
        tensors: list[Tensor] = []
        key = _flatten(arguments, tensors)
        if (shapes := [x.shape for x in tensors]) != self.shapes:
            self._reset(shapes)
        if key not in self.captured:
            self.calls[key] = self.calls.get(key, 0) + 1
            if self.calls[key] <= EAGER_CALLS:
                return self._eagerly(arguments)
            self.captured[key] = self._capture(arguments)
        graph, inputs, result = self.captured[key]
        # in order: a result may be an input of the previous call (its new pose is now the old one)
        for held, tensor in zip(inputs, tensors, strict=True):
            held.copy_(tensor, non_blocking=True)
        graph.replay()
        return result

    def _eagerly(self, arguments: Any) -> Any:
        """Run on the stream that the capture will use, because autograd remembers streams."""
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = self.function(*arguments)
        current.wait_stream(self.stream)
        return result

    def _capture(self, arguments: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        held = map_tensors(arguments, lambda x: x.clone(memory_format=torch.preserve_format))
        inputs: list[Tensor] = []
        _flatten(held, inputs)
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                result = self.function(*held)
        except Exception as error:
            error.add_note(CAPTURING)
            raise
        return graph, inputs, result


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """One stream for all graphs of a GPU, because each stream has memory and library workspaces of its own."""
    return torch.cuda.Stream(device)


def _flatten(value: Any, tensors: list[Tensor]) -> Hashable:
    """Append the tensors of nested tuples to ``tensors``; returns a key that identifies the structure."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.shape, value.dtype
    if isinstance(value, tuple):
        return tuple(_flatten(part, tensors) for part in value)
    return ("value", value)


def map_tensors(value: Any, f: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``f`` to every tensor in nested tuples."""
    if isinstance(value, Tensor):
        return f(value)
    return tuple(map_tensors(part, f) for part in value) if isinstance(value, tuple) else value
