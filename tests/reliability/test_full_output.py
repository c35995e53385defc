"""Outputs that nobody reads or that have no room: a closed pipe, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidcvae.data import pose_folder
from vidcvae.scenes import dancing

pytestmark = pytest.mark.reliability


def test_a_training_goes_on_if_nobody_reads_its_messages(tmp_path: Path) -> None:
    """As in ``vidcvae train .. 2>&1 | head -2``."""
    pose_folder.write_folder(dancing.dance(24, 8, 0, 0, (16, 16)), tmp_path / "data")
    options = "--preset demo --plain --set training.steps_per_epoch=3 --epochs 12 --max-minutes 0 --run run"
    command = [sys.executable, "-m", "vidcvae", "train", "data", *options.split()]
    reading, writing = os.pipe()
    with subprocess.Popen(command, cwd=tmp_path, stdout=writing, stderr=writing) as process:
        os.close(writing)
        os.read(reading, 100)
        os.close(reading)
        assert process.wait(timeout=200) in (0, 1)  # the result itself cannot be printed
    assert (tmp_path / "run/checkpoints/last.safetensors").exists()
    steps = (tmp_path / "run/history.jsonl").read_text().count('"epoch"')
    assert steps >= 12


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_for_the_output_is_one_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vidcvae", "presets"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 4 and "cannot write the output: the disk is full." in done.stderr
    assert "Traceback" not in done.stderr and "bug" not in done.stderr
