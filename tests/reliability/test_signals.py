"""Real signals to real processes; tests/cli/test_train.py has SIGTERM and SIGINT that save, and the exit codes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from vidcvae.storage import checkpoint
from vidcvae.storage.history import read_history

from ..cli.conftest import TINY
from .forks import Forks
from .test_lock import wait_for

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("workplace")]


def test_sigusr1_saves_and_goes_on(forks: Forks, tiny_dance: Path) -> None:
    rare = ("--set", "validation.every=0", "--set", "checkpoint.every=4000")
    pid = forks.start("train", tiny_dance, *TINY, "--epochs", 5000, "--run", "r", *rare)
    history, last = Path("r/history.jsonl"), Path("r/checkpoints") / checkpoint.LAST
    for _ in range(2):
        before = checkpoint.read(last).meta.step if last.exists() else -1
        wait_for(lambda: history.exists() and history.stat().st_size > 1000)
        os.kill(pid, signal.SIGUSR1)
        wait_for(lambda: last.exists() and checkpoint.read(last).meta.step > before)  # noqa: B023 - at once
        size = history.stat().st_size
        wait_for(lambda: history.stat().st_size > size)  # noqa: B023
    assert len(checkpoint.steps(last.parent)) == 2, "one for each signal"
    os.kill(pid, signal.SIGTERM)
    ended = forks.wait()
    assert ended.code == 143, ended.err
    assert checkpoint.read(last).meta.step == max(line["step"] for line in read_history(history))


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGINT", "SIGTERM")])
def test_the_second_signal_leaves_at_once(first: str, second: str) -> None:
    """Even in the middle of one long operation, when Python gets no chance to call a handler of its own."""
    code = """
import torch
from vidcvae.training.signals import listening
with listening() as requests:
    print("ready", flush=True)
    torch.linalg.svd(torch.rand(3000, 3000))  # many seconds
print("stop", requests.stop)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(getattr(signal, first))
        time.sleep(0.2)
        assert process.poll() is None, "the first one waits for the step to end"
        process.send_signal(getattr(signal, second))
        assert process.wait(5) == 128 + getattr(signal, second)
        assert process.stdout.read() == "", "it did not wait for the operation"


SLOW_STEP = """
import os, torch
from vidcvae.cli.training_view import Screen
from vidcvae.training.signals import listening
start = dict(kind="start", run="r", model="m", parameters=1, device="cpu", precision="float32", clips=1, epochs=1)
start |= dict(steps=9, step=0, minutes=0.0, max_minutes=0, metric="psnr_zero", best=None, error="MSE", kl_unit="nats")
with Screen("MODE").watching() as report, listening(report) as requests:
    if "MODE" != "json":
        report(start)
    os.write(1, b"ready\\n")
    torch.linalg.svd(torch.rand(3000, 3000))  # many seconds
    os.write(1, b"over\\n")
"""


@pytest.mark.parametrize("mode", ["auto", "json"])
def test_a_signal_is_answered_while_the_step_is_on(mode: str) -> None:
    """In the middle of one long operation, on a terminal below whose table nothing is glued, and in a pipe."""
    ours, theirs = pty.openpty() if mode == "auto" else os.pipe()
    if mode == "auto":
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 20, 100, 0, 0))
    code = [sys.executable, "-c", SLOW_STEP.replace("MODE", mode)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        assert process.stdout and process.stdout.readline() == "ready\n"
        said = ""
        for answer in ("Ctrl-C: finishing the step, then saving; once more ends at once", "Ctrl-C: ended at once"):
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            while answer not in said:
                if not select.select([ours], [], [], 5)[0]:
                    process.kill()
                    pytest.fail(f"no answer: {said}")
                said += os.read(ours, 10_000).decode()
        assert process.wait(5) == 130
        assert process.stdout.read() == "", "nothing for a program, and nothing after the operation"
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said).replace("\r", "\n").split("\n")
    assert [line[:7] for line in lines if "Ctrl-C" in line] == ["Ctrl-C:"] * 2, "each on a line of its own"
    if mode == "auto":
        assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l"), "the cursor is there again"


def test_one_signal_is_only_noted() -> None:
    code = """
import os, signal
from vidcvae.training.signals import listening
with listening() as requests:
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGUSR1)
print(requests.stop, requests.save)
with listening() as requests:
    os.kill(os.getpid(), signal.SIGINT)
print(requests.stop, requests.save)
os.kill(os.getpid(), signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stdout == "15 True\n2 False\n"
    assert ended.returncode == -signal.SIGTERM, "after the training it ends the process, as ever"
