"""One writer in a run folder at a time, with real processes."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vidcvae.errors import UsageError
from vidcvae.storage import lock

from ..cli.conftest import TINY, Cli
from .forks import Forks

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("workplace")]


def test_the_second_writer_is_refused_and_told_who_holds_it(cli: Cli, forks: Forks, tiny_dance: Path) -> None:
    pid = forks.start("train", tiny_dance, *TINY, "--epochs", 5000, "--run", "r", "--set", "validation.every=0")
    wait_for(lambda: Path("r/history.jsonl").exists())
    history = Path("r/history.jsonl").stat().st_ino
    for command in (["resume", "r"], ["resume", "r", "--epochs", 9], ["resume", "r", "--resume-from", "best"]):
        refused = cli(*command)
        assert refused.code == 2, refused
        assert f"r is in use by process {pid} on {socket.gethostname()}, since 20" in refused.err
        assert f"(vidcvae train {tiny_dance}" in refused.err and f"everything saved: kill -TERM {pid}\n" in refused.err
    again = cli("train", tiny_dance, *TINY, "--run", "r")
    assert again.code == 2 and f"r is in use by process {pid}" in again.err and "resume" not in again.err, again.err
    assert lock.holder(Path("r")).startswith(f"process {pid} ")
    assert "epochs = 5000" in Path("r/config.toml").read_text(), "a refused command changes nothing"
    os.kill(pid, 9)
    assert forks.wait().code == -9

    assert lock.holder(Path("r")) == "", "the kernel has dropped the lock; the file is still there"
    assert json.loads(Path("r/.lock").read_text())["pid"] == pid
    over = cli("resume", "r", "--more-minutes", 0.01, "--plain")
    assert over.code == 0, over.err
    assert f"process {pid} on" in over.err and "taking over" in over.err
    assert Path("r/history.jsonl").stat().st_ino == history
    assert not Path("r/.lock").exists()


def test_a_folder_of_a_training_that_died_at_once_can_be_used_again(cli: Cli, tiny_dance: Path) -> None:
    Path("r").mkdir()
    Path("r/.lock").write_text('{"pid": 1')  # torn
    Path("r/run.json").write_text('{"vidcvae": "0.1"}')  # as create_run makes it, before anything else
    Path("r/.config.toml.vidcvae-4194303-1.tmp").write_text("half")
    assert cli("train", tiny_dance, *TINY, "--run", "r", "--epochs", 1).code == 0
    assert cli("train", tiny_dance, *TINY, "--run", "r", "--epochs", 1).code == 2


def test_a_number_of_the_same_process_is_not_mistaken(tmp_path: Path) -> None:
    """A text that names a living process is no lock; only the kernel's is."""
    (tmp_path / lock.FILE).write_text(json.dumps(lock._me()))
    assert lock.holder(tmp_path) == ""
    with lock.holding(tmp_path) as died:
        assert f"process {os.getpid()} " in died
        assert lock.holder(tmp_path).startswith(f"process {os.getpid()} ")
        with pytest.raises(UsageError, match="in use by process"), lock.holding(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_was_removed_while_it_was_being_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our opening the file and locking it, its holder lets go and somebody else takes a new one."""
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    real, interfered = lock._lock, False

    def interfere(fd: int, shared: bool = False) -> bool:
        nonlocal interfered
        if not interfered:
            interfered = True
            first.close()
            second.enter_context(lock.holding(tmp_path))
        return real(fd, shared)

    first.enter_context(lock.holding(tmp_path))
    monkeypatch.setattr(lock, "_lock", interfere)
    with second, pytest.raises(UsageError, match="in use by process"), lock.holding(tmp_path):
        pass
    assert interfered and list(tmp_path.iterdir()) == []


def contend(folder: Path, rounds: int, log: Path) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    taken = 0
    while taken < rounds:
        try:
            with lock.holding(folder):
                os.write(fd, b"(")
                time.sleep(0.0005)
                os.write(fd, b")")
                taken += 1
        except UsageError:
            time.sleep(0.001)


def test_never_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four processes take and drop the same lock; each removes its file, which the others may just be opening."""
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
    context = multiprocessing.get_context("fork")
    folder, log = tmp_path / "run", tmp_path / "log"
    folder.mkdir()
    several = [context.Process(target=contend, args=(folder, 50, log)) for _ in range(4)]
    for process in several:
        process.start()
    for process in several:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_bytes() == b"()" * 200
    assert list(folder.iterdir()) == []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_holder_on_another_host_is_stopped_there(tmp_path: Path) -> None:
    with lock.holding(tmp_path):
        text = json.loads((tmp_path / ".lock").read_text()) | {"host": "elsewhere"}
        (tmp_path / ".lock").write_text(json.dumps(text))
        with pytest.raises(UsageError, match="on elsewhere") as refused, lock.holding(tmp_path):
            pass
    assert refused.value.hint.endswith("kill -TERM PID, on its host.")
