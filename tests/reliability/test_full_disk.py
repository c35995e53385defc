"""A disk that is really full: a small file system of its own where root may make one, and a limit on file sizes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vidcvae.storage import checkpoint, durable
from vidcvae.storage.history import read_history

from ..cli.conftest import TINY
from .forks import Ended, Forks
from .test_sigkill import fingerprint

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("workplace")]
Count = Callable[[str, int], None]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a file system here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def train(run: Path, data: Path, forks: Forks, *, epochs: int, **how: Any) -> Ended:
    if run.exists():
        return forks.run("resume", run, "--epochs", epochs, "--plain", **how)
    return forks.run("train", data, *TINY, "--run", run, "--epochs", epochs, **how)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_dance: Path, forks: Forks) -> dict[str, Any]:
    """A run that was refused nothing: trained for 2 epochs, then for 3."""
    run = tmp_path_factory.mktemp("reference") / "run"
    assert train(run, tiny_dance, forks, epochs=2).code == 0
    assert train(run, tiny_dance, forks, epochs=3).code == 0
    return fingerprint(run)


def train_until_refused(run: Path, data: Path, forks: Forks, why: str, fill: Callable[[], dict[str, Any]]) -> None:
    """Train, fill the disk, train for longer: refused, in a sentence, and nothing is lost."""
    assert train(run, data, forks, epochs=2).code == 0
    before = fingerprint(run)
    ended = train(run, data, forks, epochs=3, **fill())
    assert ended.code == 4, ended.err
    # the message is one line; the file is a checkpoint, of whatever name
    assert f"error: cannot write {run}/checkpoints/" in ended.err and why in ended.err, ended.err
    assert "Free some space" in ended.err and "Traceback" not in ended.err
    durable.clean_leftovers(run / "checkpoints")
    after = fingerprint(run)
    assert after["last.safetensors"] == before["last.safetensors"], "the checkpoint before is intact"
    assert after["best.safetensors"] == before["best.safetensors"]
    assert not list(run.rglob(".*")), "leftovers"
    assert len(read_history(run / "history.jsonl")) > len(before["history"])


def test_a_full_disk(small_disk: Path, tiny_dance: Path, forks: Forks, reference: dict[str, Any], count: Count) -> None:
    run, ballast = small_disk / "run", small_disk / "ballast"

    def fill() -> dict[str, Any]:
        free = os.statvfs(small_disk)
        # lines of history still find room, a checkpoint does not
        size = checkpoint.steps(run / "checkpoints")[-1].stat().st_size
        with ballast.open("wb") as file:
            file.write(bytes(free.f_bavail * free.f_frsize - size // 2))
        return {}

    train_until_refused(run, tiny_dance, forks, "No space left on device", fill)
    ballast.unlink()
    ended = forks.run("resume", run, "--plain")  # it knows from the run's settings that 3 epochs are meant
    assert ended.code == 0, ended.err
    assert fingerprint(run) == reference
    count("full disks survived", 1)


def test_a_limit_on_the_size_of_files(tiny_dance: Path, forks: Forks, reference: dict[str, Any], count: Count) -> None:
    """RLIMIT_FSIZE, for machines where no file system can be mounted: writes are cut short, then fail."""
    run = Path("run")

    def fill() -> dict[str, Any]:
        return {"file_size": checkpoint.steps(run / "checkpoints")[-1].stat().st_size // 2}

    train_until_refused(run, tiny_dance, forks, "File too large", fill)
    assert forks.run("resume", run, "--plain").code == 0
    assert fingerprint(run) == reference
    count("full disks survived", 1)
