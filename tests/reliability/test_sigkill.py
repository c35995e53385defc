"""A training that is killed at random moments, resumed, and killed again, is the training that never was."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidcvae.storage import checkpoint
from vidcvae.storage.history import read_history

from ..cli.conftest import TINY
from .forks import Forks

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("workplace")]
STEPS_PER_EPOCH = 6
SETTINGS = (
    *(*TINY, "--clip-length", 3, "--batch-size", 2, "--set", "validation.every=4"),
    *("--set", "training.ema=0.9", "--set", "training.replay=0.5", "--set", "checkpoint.every_steps=2"),
    *("--set", f"training.steps_per_epoch={STEPS_PER_EPOCH}"),
)


def fingerprint(run: Path) -> dict[str, Any]:
    """All that a training makes, but how long it took: hashes of weights, averages, moments, and the history."""
    found: dict[str, Any] = {}
    for name in (checkpoint.LAST, checkpoint.BEST):
        saved = checkpoint.read(run / "checkpoints" / name)
        digest = hashlib.sha256()
        for key, tensor in sorted(saved.tensors.items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)} ".encode() + tensor.numpy().tobytes())
        found[name] = (digest.hexdigest(), saved.meta.step, saved.meta.epoch, saved.meta.scores)
    found["steps"] = [path.name for path in checkpoint.steps(run / "checkpoints")]
    found["history"] = [
        {key: value for key, value in record.items() if key not in ("minutes", "clips_per_second")}
        for record in read_history(run / "history.jsonl")
    ]
    return found


def kill_again_and_again(rounds: int, forks: Forks, data: Path) -> int:
    """Returns how many of the kills came after something had been saved."""
    start = ("train", data, *SETTINGS, "--epochs", rounds)
    began = time.monotonic()
    assert forks.run(*start, "--run", "whole").code == 0
    seconds = (time.monotonic() - began) / (rounds * STEPS_PER_EPOCH)  # for a step, with its share of saving
    run, chance, later = Path("killed"), random.Random(rounds), 0
    history = run / "history.jsonl"
    for number in range(rounds):
        begun = (run / "config.toml").exists()
        command = ("resume", run, "--plain") if begun else (*start, "--run", run)
        before = position(run)
        later += before > 0
        lines = chance.choice([0, 1, 2, 3, 4])  # this many steps after where it goes on; 0: while it begins
        size = history.stat().st_size + 300 * lines if history.exists() else lines
        delay = chance.uniform(0, 2 * seconds if lines else 0.3)
        ended = forks.run(*command, kill=(history.resolve(), size if lines else 0, delay))
        assert ended.code == -9, f"round {number}: it ended with {ended.code} before it was killed: {ended.err}"
        assert "error" not in ended.err and "damaged" not in ended.err, ended.err
        assert position(run) >= before, "a checkpoint was lost"
    ended = forks.run("resume", run, "--plain")
    assert ended.code == 0, ended.err
    assert fingerprint(run) == fingerprint(Path("whole"))
    assert not list(run.rglob(".*")), "leftovers"
    return later


def position(run: Path) -> int:
    last = run / "checkpoints" / checkpoint.LAST
    return int(checkpoint.read(last).meta.step) if last.exists() else 0


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(12, marks=pytest.mark.timeout(900)),  # of a core that has others to serve
        pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)]),
    ],
)
def test_a_training_survives_being_killed(
    rounds: int, forks: Forks, tiny_dance: Path, count: Callable[[str, int], None]
) -> None:
    later = kill_again_and_again(rounds, forks, tiny_dance)
    assert later > rounds / 2, "most of the kills met a training that had been resumed"
    count("kills (SIGKILL) survived", rounds)
