"""Windows and macOS, as far as Linux can stand in for them: their functions faked, or ours taken away.

Nothing here has run on either. ``mypy --platform win32`` and ``--platform darwin`` look for functions that they lack.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from vidcvae import errors
from vidcvae.config import Config
from vidcvae.errors import DataError, UsageError
from vidcvae.storage import durable, lock
from vidcvae.storage.history import History, read_history
from vidcvae.workflow import doctor, trials

FAKE_O_BINARY = 1 << 28


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")


# --- files -------------------------------------------------------------------------------------------


@pytest.fixture
def text_mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files as Windows' C library writes them: unless opened with O_BINARY, a line end becomes two bytes."""
    translated: set[int] = set()
    real_open, real_write, real_close = durable._open, durable._write, durable._close

    def opened(path: Path, flags: int, mode: int = 0o777) -> int:
        fd = real_open(path, flags & ~FAKE_O_BINARY, mode)
        if not flags & FAKE_O_BINARY:
            translated.add(fd)
        return fd

    def write(fd: int, data: memoryview) -> int:
        if fd not in translated:
            return real_write(fd, data)
        real_write(fd, bytes(data).replace(b"\n", b"\r\n"))
        return len(data)

    def close(fd: int) -> None:
        translated.discard(fd)
        real_close(fd)

    for name, fake in (("_open", opened), ("_write", write), ("_close", close), ("_BINARY", FAKE_O_BINARY)):
        monkeypatch.setattr(durable, name, fake)
    yield
    assert durable._BINARY == FAKE_O_BINARY


@pytest.mark.usefixtures("text_mode")
def test_every_byte_is_written_as_it_is(tmp_path: Path) -> None:
    content = bytes(range(256)) + b"\n\r\n\x1a\n"
    durable.write_bytes(tmp_path / "x", content)
    assert (tmp_path / "x").read_bytes() == content
    history = History(tmp_path / "h")
    for step in (1, 2):
        history.append({"step": step})
    history.close()
    assert (tmp_path / "h").read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert History(tmp_path / "h").size == (tmp_path / "h").stat().st_size
    assert [line["step"] for line in read_history(tmp_path / "h")] == [1, 2]


def test_the_fake_does_damage_what_is_not_opened_as_binary(
    tmp_path: Path, text_mode: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(durable, "_BINARY", 0)
        durable.write_bytes(tmp_path / "x", b"a\n")
    assert (tmp_path / "x").read_bytes() == b"a\r\n"


def test_a_target_that_somebody_has_open_is_replaced_a_little_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Path] = []

    def busy(source: Path, target: Path) -> None:
        tries.append(target)
        if len(tries) < 3:
            raise PermissionError(13, "in use")
        os.replace(source, target)  # noqa: PTH105

    (tmp_path / "x").write_bytes(b"old")
    monkeypatch.setattr(durable, "_replace", busy)
    with pytest.raises(DataError, match="Permission denied"):
        durable.write_bytes(tmp_path / "x", b"new")  # elsewhere it says what it says
    monkeypatch.setattr(durable, "_PAUSES", (0.0, 0.0, 0.0))
    tries.clear()
    durable.write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new" and len(tries) == 3


@pytest.mark.usefixtures("windows")
def test_no_folder_is_opened_where_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = durable._open
    monkeypatch.setattr(
        durable, "_open", lambda path, *rest: pytest.fail("a folder") if path.is_dir() else real(path, *rest)
    )
    durable.write_bytes(tmp_path / "new/x", b"1")
    durable.remove(tmp_path / "new/x")


def test_processes_are_told_apart_without_proc_and_without_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows ``os.kill(pid, 0)`` would end the process that is asked about."""
    monkeypatch.setattr(durable, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal"))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = durable._started(child.pid)
    assert began == round(psutil.Process(child.pid).create_time() * 1000) != durable._started(os.getpid())
    names = [f".x.vidcvae-{child.pid}-{when}.tmp" for when in (began, began - 5000)]
    for name in names:
        (tmp_path / name).write_text("half")
    assert [path.name for path in durable.leftovers(tmp_path)] == names[1:], "of an earlier process of that number"
    with monkeypatch.context() as denied:
        denied.setattr(psutil, "Process", lambda pid: (_ for _ in ()).throw(psutil.AccessDenied(pid)))
        assert durable.leftovers(tmp_path) == [], "who does not tell may be the writer"
    child.communicate(b"\n")
    assert durable._started(child.pid) == 0
    assert sorted(path.name for path in durable.clean_leftovers(tmp_path)) == sorted(names)


# --- the lock ----------------------------------------------------------------------------------------


@pytest.fixture
def windows_lock(windows: None, monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """``msvcrt.locking`` and files that cannot be removed while they are open; returns what is locked: inode to fd."""
    held: dict[int, int] = {}
    opened: set[int] = set()
    real_open, real_close, real_unlink = os.open, os.close, Path.unlink

    def locking(fd: int, mode: int, count: int) -> None:
        assert os.lseek(fd, 0, os.SEEK_CUR) > 1 << 20, "what is locked, nobody else may read"
        if held.setdefault(os.fstat(fd).st_ino, fd) != fd:
            raise OSError(13, "Permission denied")

    def open_(path: Path, flags: int, mode: int = 0o777) -> int:
        opened.add(fd := real_open(path, flags, mode))
        return fd

    def close(fd: int) -> None:
        if held.get(os.fstat(fd).st_ino) == fd:
            del held[os.fstat(fd).st_ino]
        real_close(fd)

    def inode(fd: int) -> int:
        try:
            return os.fstat(fd).st_ino
        except OSError:  # closed
            return 0

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.exists() and path.stat().st_ino in map(inode, opened):
            raise PermissionError(13, "open")
        real_unlink(path, missing_ok)

    monkeypatch.setattr(lock, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2), raising=False)
    monkeypatch.delattr(lock, "fcntl")
    for owner, name, fake in ((os, "open", open_), (os, "close", close), (Path, "unlink", unlink)):
        monkeypatch.setattr(owner, name, fake)
    return held


def test_one_writer_at_a_time_on_windows(tmp_path: Path, windows_lock: dict[int, int]) -> None:
    with lock.holding(tmp_path):
        assert len(windows_lock) == 1
        assert lock.holder(tmp_path).startswith(f"process {os.getpid()} ")
        with pytest.raises(UsageError, match="in use by process") as refused, lock.holding(tmp_path):
            pass
        assert "Ctrl-C" in refused.value.hint
    assert windows_lock == {} and list(tmp_path.iterdir()) == []
    (tmp_path / lock.FILE).write_text('{"pid": 7, "host": "h", "since": "then", "command": "vidcvae train"}')
    assert lock.holder(tmp_path) == ""
    with lock.holding(tmp_path) as died:
        assert died == "process 7 on h, since then (vidcvae train)"


# --- signals and processes ---------------------------------------------------------------------------

SIGNALS = """
import os, signal, sys
del os.set_blocking, signal.SIGUSR1
signal.SIGBREAK = signal.SIGUSR2
from vidcvae.training.signals import exit_code, listening
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK):
    with listening() as requests:
        assert requests.stop is None
        signal.raise_signal(number)
        assert requests.stop == number and not requests.save
assert exit_code(signal.SIGBREAK) == exit_code(signal.SIGINT) == 130
with listening():
    signal.raise_signal(signal.SIGBREAK)
    signal.raise_signal(signal.SIGBREAK)
    signal.pause()
"""


def test_ctrl_break_asks_a_training_to_stop_and_the_second_one_ends_it() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALS], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 128 + 12, done.stderr


@pytest.mark.usefixtures("windows")
def test_a_trial_is_asked_to_save_by_ctrl_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``terminate`` would end it at once there, with nothing saved."""
    started: dict[str, object] = {}
    sent: list[int] = []

    def popen(command: list[str], **options: object) -> SimpleNamespace:
        started.update(options)
        return SimpleNamespace(stdout=io.BytesIO(), poll=lambda: None, send_signal=sent.append)

    monkeypatch.setattr(trials.subprocess, "Popen", popen)
    monkeypatch.setattr(trials, "_OWN_GROUP", 0x200)
    monkeypatch.setattr(trials, "_STOP", 1)
    child = trials.Child(trials.Trial(tmp_path / "t", trials.Variant("t"), (), Config()), "t", 1)
    for _ in range(2):
        child.ask_to_stop()
    assert started["creationflags"] == 0x200 and "start_new_session" not in started
    assert sent == [1]


# --- what a person sees ------------------------------------------------------------------------------


def test_commands_can_be_pasted_into_cmd_and_powershell(windows: None) -> None:
    assert errors.typed("resume", r"C:\my runs\a", "--epochs", 3) == r'vidcvae resume "C:\my runs\a" --epochs 3'
    assert errors.typed("resume", "runs/a") == "vidcvae resume runs/a"


def test_letters_that_a_pipe_does_not_know_are_spelled_out() -> None:
    command = [sys.executable, "-m", "vidcvae", "config", "show", "--set", "data.path='舞'"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, env=environment, check=False, timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert rb"\u821e" in done.stdout


@pytest.mark.parametrize(
    ("system", "machine", "state"),
    [("Linux", "x86_64", None), ("Windows", "AMD64", "note"), ("Darwin", "arm64", "note")],
)
def test_doctor_says_where_it_was_never_run(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, state: str | None
) -> None:
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    monkeypatch.setattr(doctor.platform, "machine", lambda: machine)
    found = {finding.name: finding for finding in doctor._python()}
    assert (found["system"].state if "system" in found else None) == state


def test_doctor_tells_the_memory_of_any_system() -> None:
    (found,) = doctor._memory()
    assert found.value.endswith("GiB free")
