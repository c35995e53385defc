"""Threads that wait do not keep others from working: the waiting policy, and a free run beside a busy program."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

# Frames a second of a free run with two threads, alone and beside a busy child in a session of its own
RATES = """
import json, subprocess, sys, time
from vidcvae import __main__
__main__._wait_briefly()
import torch
from vidcvae.config import resolve
from vidcvae.models import build_model
from vidcvae.models.rollout import rollout

torch.set_num_threads(2)
model = build_model(resolve({"model": {"name": "anchor-cvae"}})).eval()
first, poses = torch.rand(1, 1, 3, 32, 64), torch.rand(1, 1, 3, 32, 64).expand(1, 1000, 3, 32, 64)
steps = rollout(model, first, poses)
next(steps)

def rate(seconds):
    began, frames = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(steps)
        frames += 1
    return frames / (time.perf_counter() - began)

alone = rate(1)
busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
try:
    time.sleep(0.1)
    beside = rate(2)
finally:
    busy.kill()
    busy.wait()
print(json.dumps([alone, beside]))
"""


def environment(**given: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in POLICY} | given


@pytest.mark.reliability
def test_a_free_run_beside_a_busy_program_keeps_a_third_of_its_pace() -> None:
    """It has half of a machine with two cores. With PyTorch's own way to wait it kept a thirtieth."""
    done = subprocess.run(
        [sys.executable, "-c", RATES], env=environment(), capture_output=True, text=True, check=True, timeout=120
    )
    alone, beside = json.loads(done.stdout)
    assert beside >= 0.3 * alone


TELL = """
import os
from vidcvae import __main__
__main__._wait_briefly()
print({name: os.environ.get(name) for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")})
"""


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({}, {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": None}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": None, "KMP_BLOCKTIME": None, "OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": None, "OMP_WAIT_POLICY": None}),
    ],
)
def test_what_the_user_has_set_stays(given: dict[str, str], want: dict[str, str | None]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TELL], env=environment(**given), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(want)
