"""Two processes that train one model: the same numbers as one, and nobody left behind when one of them fails.

Everything runs on real processes that torchrun starts and that talk over gloo. As each costs seconds to start, one
launch serves most tests (two_ranks.py, where a single process's results are computed beside).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import TINY
from vidcvae.__main__ import main
from vidcvae.data import pose_folder
from vidcvae.errors import UsageError
from vidcvae.scenes import dancing
from vidcvae.storage import checkpoint
from vidcvae.storage.history import read_history
from vidcvae.training import distributed

from .conftest import tiny_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo ranks are started as on Linux")

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
Count = Callable[[str, int], None]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two_ranks.py saw."""
    out = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, "-m", "tests.training.two_ranks", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    result: dict[str, Any] = json.loads((out / "found.json").read_text())
    assert result["world"] == 2
    return result


def test_parting_leaves_no_thread_behind(found: dict[str, Any]) -> None:
    """One of gloo's may abort the process at its exit, with everything done ("terminate called")."""
    assert found["threads"] == 1


# --- the same numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "pose-cvae",
        "pose-cvae, frame statistics",
        "svg-fp, some clips forced",
        "anchor-cvae, everything random, accumulated",
        "anchor-cvae, free bits",
    ],
)
def test_gradients_are_those_of_one_process(found: dict[str, Any], name: str) -> None:
    """In float64: losses, gradients, and BatchNorm's statistics, whose own gradient crosses the ranks."""
    apart = found["gradients"][name]
    assert apart["clips differ"], "equal clips would hide a wrong slice"
    assert apart["terms"] < 1e-12
    assert apart["gradients"] < 1e-12
    assert apart["buffers"] < 1e-12


def largest_difference(found: dict[str, Any], one: str, other: str, steps: int) -> float:
    a, b = ([x for x in found["histories"][name] if x["kind"] == "step"] for name in (one, other))
    assert [x["step"] for x in a] == [x["step"] for x in b] == list(range(1, steps + 1))
    losses = ("total", "reconstruction", "kl")
    return max(abs(x[k] - y[k]) / abs(y[k]) for x, y in zip(a, b, strict=True) for k in losses)


def test_fifty_steps_are_those_of_one_process(found: dict[str, Any]) -> None:
    assert largest_difference(found, "float-two", "float-one", 50) < 1e-5
    forced = {x["forced"] for x in found["histories"]["float-two"] if x["kind"] == "step"}
    assert len(forced) > 2, "forcing of some clips was tried"
    two, one = ([x for x in found["histories"][f"float-{n}"] if x["kind"] == "validation"] for n in ("two", "one"))
    assert len(two) == len(one) == 1
    for name, near in {"psnr_zero": 1e-4, "psnr_prior": 1e-4, "ssim_prior": 1e-3}.items():
        assert two[0][name] == pytest.approx(one[0][name], rel=near), "three sequences, shared by two ranks"


@pytest.mark.parametrize("other", ["one", "two-one", "one-two"])
def test_in_float64_nothing_is_lost_in_going_from_two_to_one_and_back(found: dict[str, Any], other: str) -> None:
    """The second half is done by one process from the checkpoint of two, and the other way round."""
    assert largest_difference(found, "double-two", f"double-{other}", 20) < 1e-11


def test_replayed_frames_are_shared(found: dict[str, Any]) -> None:
    """A clip may go on where another rank's clip ended."""
    assert largest_difference(found, "replay-two", "replay-one", 20) < 1e-4


def test_statistics_of_each_rank_alone(found: dict[str, Any]) -> None:
    assert found["statistics"] == {"differ": True, "same weights": True, "rank 0": True}


# --- failures --------------------------------------------------------------------------------------


@pytest.mark.reliability
@pytest.mark.parametrize(("where", "problem"), [("gradient", "grad norm became nan"), ("loss", "kl became inf")])
def test_what_is_not_finite_on_one_rank_stops_all_before_the_update(
    found: dict[str, Any], where: str, problem: str, count: Count
) -> None:
    """Poison on rank 1 in its fourth step."""
    after = found[where]
    (message, steps, moment, weights), other = after["ends"]
    assert problem in message and "last.safetensors is intact" in message
    assert other[0] == message and other[1:] == [steps, moment, weights], "both ranks stand where they stood"
    assert steps == [3] and moment == 3.0, "the optimizer made three updates"
    assert after["saved"] == 3
    written = after["written"]
    assert written["step"] == 3 and problem in written["problem"]
    assert len(written["ranks"]) == 2 and len(written["clips"]) == 4, "of all ranks"
    bad = {"gradient": "grad_norm", "loss": "kl"}[where]
    assert isinstance(written["ranks"][0][bad], float) and isinstance(written["ranks"][1][bad], str)
    assert [isinstance(clip["losses"][bad], str) for clip in written["clips"]] == [False, False, True, True]
    assert all(clip["sequence"].startswith("square-") and clip["start"] >= 0 for clip in written["clips"])
    count("NaN or infinity injected on one rank", 1)


@pytest.mark.reliability
@pytest.mark.parametrize(("when", "step"), [("step", 4), ("validation", 6)])
def test_a_signal_to_one_rank_stops_all_after_the_same_step(
    found: dict[str, Any], when: str, step: int, count: Count
) -> None:
    after = found[f"signal in {when}"]
    assert after["ends"] == [[143, step, 1], [143, step, 0]], "and rank 0 alone saves, once"
    assert after["saved"] == step
    count("ranks signalled, and all stopped with one checkpoint", 1)


def test_ranks_that_see_other_data_are_refused(found: dict[str, Any]) -> None:
    told, other = found["refused"]
    assert "do not have the same clips" in told
    assert other == "2", "rank 1 leaves without a word of its own"


class Job:
    """A ``vidcvae`` training under torchrun, in the folder ``place``."""

    def __init__(self, place: Path, options: tuple[str, ...], *arguments: object) -> None:
        command = [*TORCHRUN, *options, "-m", "--", "vidcvae", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.error = place / "stderr"
        with self.error.open("w") as error:
            self.process = subprocess.Popen(command, cwd=place, env=environment, stderr=error, stdout=error)

    def wait_for(self, what: Callable[[], bool], seconds: float = 200) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, self.error.read_text()[-4000:]
            assert time.monotonic() < deadline, self.error.read_text()[-4000:]
            time.sleep(0.02)

    def pid(self, rank: int) -> int:
        """The process of a rank, once it is there."""
        pids: list[int] = []

        def there() -> bool:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for child in children:
                try:
                    environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if f"RANK={rank}".encode() in environment:
                    pids.append(int(child))
            return bool(pids)

        self.wait_for(there)
        return pids[0]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    pose_folder.write_folder(dancing.dance(40, 8, 1, 0, (16, 16)), tmp_path / "dance")
    yield tmp_path


LONG = (*TINY, "--epochs", 100_000, "--set", "validation.every=0", "--set", "checkpoint.every=1000000")


@pytest.mark.reliability
def test_a_killed_rank_comes_back_and_a_signal_to_one_stops_all(place: Path, count: Count) -> None:
    """--max-restarts 1: SIGKILL to rank 1, both begin again at the last checkpoint; SIGTERM to rank 1, both stop."""
    job = Job(place, ("--max-restarts", "1"), "train", "dance", *LONG, "--set", "checkpoint.every_steps=7")
    run = place / "runs/pose-cvae-001"
    last = run / "checkpoints" / checkpoint.LAST
    try:
        job.wait_for(lambda: last.exists() and len(checkpoint.steps(last.parent)) > 1)
        killed = job.pid(1)
        os.kill(killed, signal.SIGKILL)
        before = last.stat().st_ino
        job.wait_for(lambda: last.stat().st_ino != before and job.pid(1) != killed)
        at_restart = len(read_history(run.joinpath("history.jsonl")))
        job.wait_for(lambda: len(read_history(run.joinpath("history.jsonl"))) > at_restart + 5)
        os.kill(job.pid(1), signal.SIGTERM)
        job.process.wait(timeout=100)
    finally:
        job.process.kill()
    said = job.error.read_text()
    assert [p.name for p in (place / "runs").iterdir() if p.name[0] != "."] == ["pose-cvae-001"], "no second run"
    assert said.count("another process of this training has ended") == 1
    stopped = re.findall(r"stopped at step (\d+) of", said)
    assert len(stopped) == 1, "rank 0 alone tells"
    assert re.search(r"exitcode\s*: 143", said), said[-3000:]
    assert checkpoint.read(last).meta.step == int(stopped[0])
    steps = [line["step"] for line in read_history(run / "history.jsonl") if line["kind"] == "step"]
    assert steps == list(range(1, int(stopped[0]) + 1)), "every step once, over the restart"
    count("ranks killed, and the training gone on with", 1)
    count("ranks signalled, and all stopped with one checkpoint", 1)


@pytest.mark.slow
@pytest.mark.reliability
def test_ctrl_c_at_torchrun_saves(place: Path, count: Count) -> None:
    job = Job(place, (), "train", "dance", *LONG, "--run", "r")
    history = place / "r/history.jsonl"
    try:
        job.wait_for(lambda: history.exists() and history.stat().st_size > 3000)
        job.process.send_signal(signal.SIGINT)
        job.process.wait(timeout=100)
    finally:
        job.process.kill()
    said = job.error.read_text()
    assert said.count("everything is saved") == 1, said[-3000:]
    stopped = int(re.findall(r"stopped at step (\d+) of", said)[0])
    assert checkpoint.read(place / "r/checkpoints" / checkpoint.LAST).meta.step == stopped
    count("ranks signalled, and all stopped with one checkpoint", 2)


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "says", "way_out"),
    [
        ({"batch_size": 3}, "(3) is the batch of all ranks together, and cannot be divided evenly by 2", "-size 4"),
        ({"batch_size": 2, "accumulate": 2}, "evenly by 2 ranks x training.accumulate 2", "-size 4"),
    ],
)
def test_a_batch_that_cannot_be_shared_out(training: dict[str, object], says: str, way_out: str) -> None:
    with pytest.raises(UsageError) as refused:
        distributed.check(tiny_config(training=training), 2)
    assert says in refused.value.message and way_out in refused.value.hint


def test_the_command_refuses_before_anything_is_made(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["vidcvae", "train", "dance", *map(str, TINY)])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2
    assert "cannot be divided evenly by 3 ranks" in " ".join(capsys.readouterr().err.split())
    assert not (place / "runs").exists()


def test_one_process_under_torchrun_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert distributed.join(tiny_config()) is distributed.ALONE
    assert not torch.distributed.is_initialized()


def test_a_job_is_known_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same torchrun is; another one with the same name only where it has started its processes anew."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "night-3")
    this = distributed.job()
    assert distributed.is_of_this_job(this)
    elsewhere = {"id": "night-3", "process": "other-machine/1/2"}
    assert not distributed.is_of_this_job(elsewhere)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert distributed.is_of_this_job(elsewhere)
    assert not distributed.is_of_this_job({**elsewhere, "id": "night-4"})
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert not distributed.is_of_this_job({"id": "none", "process": "other-machine/1/2"})
