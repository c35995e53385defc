"""Overviews of runs while their training writes and removes files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vidcvae.errors import DataError
from vidcvae.storage import checkpoint
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.run import RunFolder
from vidcvae.workflow import at_glance


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[RunFolder]:
    """A run that another thread saves into as fast as it can, so that its numbered checkpoints come and go."""
    run, stop = RunFolder(tmp_path / "run"), threading.Event()
    run.checkpoints.mkdir(parents=True)

    def save() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            checkpoint.commit(
                run.checkpoints, {"model.x": torch.zeros(1)}, CheckpointMeta(step=step), best=True, keep=1
            )

    thread = threading.Thread(target=save)
    thread.start()
    yield run
    stop.set()
    thread.join()


def test_files_that_a_training_removes_meanwhile_are_left_out(busy: RunFolder) -> None:
    for _ in range(1500):
        assert at_glance.disk_use([busy.path]) >= 0
        for found in at_glance.checkpoints_of(busy):
            assert found["size"] > 0 and found["step"] > 0


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    (run.checkpoints / "last.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(DataError, match=r"last\.safetensors is not a vidcvae checkpoint"):
        at_glance.checkpoints_of(run)


def test_names_of_one_file_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").write_bytes(b"123")
    assert at_glance.disk_use([tmp_path]) == 8 and at_glance.disk_use([tmp_path / "a", tmp_path / "b"]) == 5
