"""CUDA graphs: a function of tensors recorded once and replayed with one launch instead of thousands.

A small network at a small batch keeps a GPU waiting for Python: each kernel takes less time than its launch. A graph
holds the launches of a whole step, and is replayed on the same memory (https://pytorch.org/docs/stable/notes/cuda.html).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

import torch
from torch import Tensor

CAPTURING = "while a CUDA graph was captured"  # a note on what fails there
EAGER_CALLS = 2  # before a graph is captured: libraries choose their kernels, optimizers make their state


class Graphed:
    """``function`` on a GPU, captured for each new combination of shapes and of what is not a tensor.

    Arguments and results are tensors, tuples of them, or hashable values.
    The function must not wait for the GPU, and may change tensors in place. The first calls are ordinary ones, with
    the same effects, so that nothing is computed for warm-up alone. A result is overwritten by the next call.
    Tensors of new shapes put an end to the graphs of earlier ones: clips only grow, and a graph keeps its memory.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.stream = _side_stream(torch.cuda.current_device())
        self._begin_anew([])

    def _begin_anew(self, shapes: list[torch.Size]) -> None:
        self.shapes = shapes
        self.calls: dict[Hashable, int] = {}
        self.captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}
        self.pool = torch.cuda.graph_pool_handle()  # shared: the graphs run one after the other

    def __call__(self, *arguments: Any) -> Any:
        tensors: list[Tensor] = []
        key = _flatten(arguments, tensors)
        if (shapes := [x.shape for x in tensors]) != self.shapes:
            self._begin_anew(shapes)
        if key not in self.captured:
            self.calls[key] = self.calls.get(key, 0) + 1
            if self.calls[key] <= EAGER_CALLS:
                return self._eagerly(arguments)
            self.captured[key] = self._capture(arguments)
        graph, inputs, result = self.captured[key]
        # in order: a result may be an input of the call before (the pose that was new is the old one now)
        for held, given in zip(inputs, tensors, strict=True):
            held.copy_(given, non_blocking=True)
        graph.replay()
        return result

    def _eagerly(self, arguments: Any) -> Any:
        """On a stream of its own, as the capture will be: autograd remembers streams."""
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
    """One for all graphs of a GPU: each stream has memory and library workspaces of its own."""
    return torch.cuda.Stream(device)


def _flatten(value: Any, tensors: list[Tensor]) -> Hashable:
    """The tensors of a nest of tuples, appended; what is returned tells nests of another make apart."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.shape, value.dtype
    if isinstance(value, tuple):
        return tuple(_flatten(part, tensors) for part in value)
    return ("value", value)


def map_tensors(value: Any, f: Callable[[Tensor], Tensor]) -> Any:
    """A nest of tuples with ``f`` of every tensor in it."""
    if isinstance(value, Tensor):
        return f(value)
    return tuple(map_tensors(part, f) for part in value) if isinstance(value, tuple) else value
