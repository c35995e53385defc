"""A training that has not the memory it needs: one sentence with what was asked, what is free, and what takes less."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vidcvae import config as settings
from vidcvae.data import clips
from vidcvae.data.clips import VideoData
from vidcvae.errors import EXIT_FAILURE, UsageError, VidcvaeError
from vidcvae.models import graphs
from vidcvae.training import failures, loop, validation
from vidcvae.training import step as step_module
from vidcvae.training.batches import Batches
from vidcvae.training.engine import Engine
from vidcvae.training.loop import train

from .conftest import tiny_config
from .test_loop import last, new_run

# As PyTorch 2.13 words it; no GPU was here to say it itself.
CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 139.80 GiB of which 1.05 GiB is "
    "free. Including non-PyTorch memory, this process has 138.70 GiB memory in use. Of the allocated memory 137.00 GiB "
    "is allocated by PyTorch, and 902.41 MiB is reserved by PyTorch but unallocated. If reserved but unallocated "
    "memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


@pytest.mark.reliability
def test_out_of_gpu_memory_in_a_training(tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised in the fifth step; what was saved before it stays, and training goes on from there."""
    config = tiny_config(training={"batch_size": 4, "epochs": 4}, checkpoint={"every_steps": 1})
    run = new_run(tmp_path / "run", config)
    terms, calls = step_module.clip_terms, []

    def full(*arguments: object, **options: object) -> object:
        calls.append(0)
        if len(calls) == 5:
            raise CUDA
        return terms(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(step_module, "clip_terms", full)
    with pytest.raises(VidcvaeError) as caught:
        train(run, config, squares)
    error = caught.value
    assert error.exit_code == EXIT_FAILURE
    assert "2.25 GiB was requested, but only 1.05 GiB is free" in error.message
    assert "4 clips of 4 frames of 8x16 at a time" in error.message and "last.safetensors is intact" in error.message
    assert "\n" not in error.message
    assert "--set training.accumulate=2 (the same batch, 2 at a time)" in error.hint
    assert last(run).meta.step == 4
    assert train(run, config, squares, resume=last(run)).steps == 8


def test_the_cpus_allocator_is_understood(tmp_path: Path) -> None:
    """A real one: more than any address space holds."""
    run = new_run(tmp_path / "run", tiny_config())
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 46, dtype=torch.uint8).fill_(1)
    assert failures.memory_error(refused.value)
    error = failures.out_of_memory(refused.value, tiny_config(), 1, run)
    assert "65536.00 GiB was requested" in error.message
    assert re.search(r"only \d+\.\d\d GiB is free", error.message), error.message
    assert "no checkpoint was saved yet" in error.message


@pytest.mark.parametrize(
    "text", ["CUDA error: out of memory\nCUDA kernel errors", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"]
)
def test_a_gpus_library_is_understood(tmp_path: Path, text: str) -> None:
    assert failures.memory_error(RuntimeError(text))
    message = failures.out_of_memory(
        RuntimeError(text), tiny_config(), 1, new_run(tmp_path / "run", tiny_config())
    ).message
    assert message.startswith("the GPU is out of memory: more was requested, with"), (
        "this machine's memory is another's"
    )


def test_other_errors_are_left_alone() -> None:
    assert not failures.memory_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize(
    ("training", "world", "first"),
    [
        ({"batch_size": 8}, 1, "--set training.accumulate=2 (the same batch, 4 at a time)"),
        ({"batch_size": 8}, 2, "--set training.accumulate=2 (the same batch, 2 at a time)"),
        ({"batch_size": 8, "accumulate": 4}, 1, "--set training.accumulate=8 (the same batch, 1 at a time)"),
        ({"batch_size": 9}, 1, "--set training.accumulate=3 (the same batch, 3 at a time)"),
        ({"batch_size": 2}, 2, "--set training.checkpoint_activations=true (slower)"),
        ({"batch_size": 1, "checkpoint_activations": True}, 1, "--clip-length 2"),
        ({"batch_size": 1, "checkpoint_activations": True, "clip_length": 2}, 1, "smaller frames (--size)"),
    ],
)
def test_what_is_advised_is_a_smaller_training_that_is_allowed(
    training: dict[str, object], world: int, first: str
) -> None:
    config = tiny_config(training=training)
    advice = failures.smaller(config, world)
    assert advice.startswith(f"Use {first}")
    for text in re.findall(r"--set (\S+)", advice):
        changed = settings.resolve(settings.to_table(config), settings.read_override(text))
        each = [c.training.batch_size // (world * c.training.accumulate) for c in (config, changed)]
        assert each[1] < each[0] or changed.training.checkpoint_activations
    for size in re.findall(r"--batch-size (\d+)", advice):
        assert int(size) < config.training.batch_size and int(size) % (world * config.training.accumulate) == 0


def test_svg_keeps_the_two_clips_that_its_batch_norm_needs() -> None:
    config = settings.resolve_with_preset(None, [{"model": {"name": "svg-fp"}, "training": {"batch_size": 4}}])
    assert "accumulate=2" in failures.smaller(config, 1)
    assert "checkpoint_activations" not in failures.smaller(config, 1)
    assert "accumulate" not in failures.smaller(config, 2)


def test_out_of_memory_in_a_capture_names_the_way_without_one(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch ends the capture with an error of its own, which covers the cause. Both are made up: no GPU was here."""

    @contextlib.contextmanager
    def capture(*_: object, **__: object) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def full(*_: object) -> None:
        raise CUDA

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", tuple)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(graphs, "_side_stream", lambda device: None)
    monkeypatch.setattr(graphs, "EAGER_CALLS", 0)
    monkeypatch.setattr(Engine, "step", lambda self, batch, *_: graphs.Graphed(full)(batch.frames))
    run, config = new_run(tmp_path / "run", tiny_config()), tiny_config()
    with pytest.raises(VidcvaeError) as caught:
        train(run, config, squares)
    assert "2.25 GiB was requested, but only 1.05 GiB is free" in caught.value.message
    assert caught.value.hint.startswith("Use --set training.cuda_graph=off (")


@pytest.mark.parametrize("where", ["cut", "draws", "build_model", "measured"])
def test_host_memory_that_is_missing_anywhere_is_one_sentence(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """numpy's own error, of a real allocation that no machine has room for."""

    def greedy(*_: object, **__: object) -> None:
        np.empty(1 << 46, np.uint8)

    owner = {"cut": clips, "draws": Batches, "build_model": loop, "measured": validation}[where]
    monkeypatch.setattr(owner, where, greedy)
    config = tiny_config()
    with pytest.raises(VidcvaeError) as caught:
        train(new_run(tmp_path / "run", config), config, squares)
    assert "this machine is out of memory: 64.0 TiB was requested, but only" in caught.value.message
    assert "--batch-size 1" in caught.value.hint


def test_an_operation_that_cannot_be_deterministic_is_named(
    tmp_path: Path, squares: VideoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        torch.use_deterministic_algorithms(True)
        torch.nn.functional.max_unpool2d(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64), 2)

    monkeypatch.setattr(Engine, "step", refuse)
    config = tiny_config(training={"deterministic": True})
    with pytest.raises(UsageError) as caught:
        train(new_run(tmp_path / "run", config), config, squares)
    assert "max_unpooling2d_forward_out has no deterministic implementation" in caught.value.message
    assert "training.deterministic=false" in caught.value.hint
