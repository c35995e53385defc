"""``vidcvae`` in processes of its own, many of them, soon after each other.

Most of the life of a short command is the import of torch: seconds, on a busy core ten. So one server process imports
it, computes nothing (there is no thread yet that a fork would lose), and forks a child for each command. The child
runs the real entry point with its own arguments, folder, output and signals, and can be killed like any process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ended:
    """code: the exit code, or minus the signal that it died of; err: its standard error."""

    code: int
    err: str


class Forks:
    """One command at a time; run it to its end, or ``start`` it, do something to it, and ``wait``."""

    def __init__(self, place: Path) -> None:
        self._log = place / "stderr"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.reliability.forks"]
        root = Path(__file__).parents[2]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
        )
        assert self._answer() == "ready"

    def run(self, *arguments: object, **how: Any) -> Ended:
        self.start(*arguments, **how)
        return self.wait()

    def start(self, *arguments: object, **how: Any) -> int:
        """Start a command in the current folder; returns its process number.

        kill: (file, size, seconds): SIGKILL comes so long after the file has grown so large, or when it has grown
            by another kilobyte.
        file_size: no file may become larger (RLIMIT_FSIZE).
        """
        job = {"argv": [str(a) for a in arguments], "cwd": str(Path.cwd()), "log": str(self._log), **how}
        assert self._server.stdin
        self._server.stdin.write(json.dumps(job, default=str) + "\n")
        self._server.stdin.flush()
        return int(self._answer())

    def wait(self) -> Ended:
        return Ended(int(self._answer()), self._log.read_text())

    def said(self) -> str:
        """What the command has said so far."""
        return self._log.read_text()

    def close(self) -> None:
        assert self._server.stdin and self._server.stdout
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def _answer(self) -> str:
        assert self._server.stdout
        return self._server.stdout.readline().strip()


# --- in the server -------------------------------------------------------------------------------------


def _serve() -> None:
    import torch

    import vidcvae.cli.app
    import vidcvae.cli.training_view
    import vidcvae.data
    import vidcvae.training.loop  # noqa: F401

    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(job)
        print(pid, flush=True)
        print(_wait(pid, job.get("kill")), flush=True)


def _child(job: dict[str, Any]) -> None:
    code = 70
    try:
        os.chdir(job["cwd"])
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for target, source in ((0, null), (1, null), (2, log)):
            os.dup2(source, target)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if "file_size" in job:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"], resource.RLIM_INFINITY))
        sys.argv = ["vidcvae", *job["argv"]]
        from vidcvae.__main__ import main

        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(pid: int, kill: list[Any] | None) -> int:
    """The child's exit code; it is this process's child until then, so no other can be killed in its place."""
    if not kill:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    path, size, seconds = Path(kill[0]), kill[1], kill[2]
    deadline = time.monotonic() + seconds if size == 0 else None
    while deadline is None or time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        grown = path.stat().st_size if path.exists() else 0
        if size and grown >= size + 1000:
            break
        if deadline is None and grown >= size:
            deadline = time.monotonic() + seconds
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    _serve()
