"""Every reader, fed with broken files by the hundred: each is read or refused in words, soon and in little memory."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.security.readers import READERS, Files, Reader
from vidcvae.errors import VidcvaeError

SECONDS = 10  # of this process's own time, for one file
MEMORY = 2 << 30  # more than before
SEED = 20261120
IN_CI, THOROUGH = 300, 20_000

pytestmark = pytest.mark.reliability


class TooSlow(BaseException):
    pass


@contextlib.contextmanager
def bounded(memory: int = MEMORY) -> Iterator[None]:
    """Within the block nothing gets much memory, and what takes ``SECONDS`` after ``start_clock`` raises."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, limits[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def write(root: Path, files: Files) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def harm_names(root: Path, files: Files, draw: random.Random) -> str:
    """Break what stands in the folder, not in a file."""
    path = root / draw.choice([*files])
    match draw.randrange(7):
        case 0:
            path.unlink()
        case 1:
            path.rename(
                path.with_name(
                    draw.choice(["-1", "1e3", "\x1b[2J", "a\nb", "007", "9" * 200, "²", "[red]"]) + path.suffix
                )
            )
        case 2:
            path.unlink()
            path.mkdir()
        case 3:
            path.unlink()
            os.mkfifo(path)
        case 4:
            path.unlink()
            path.symlink_to(draw.choice([path.name, "/dev/zero", "/dev/null", "no/where", "/", ".."]))
        case 5:
            shutil.rmtree(path.parent) if path.parent != root else path.unlink()
        case _:
            shutil.copy(path, path.with_name("1" + path.name))
    return str(path)  # fmt: skip


def try_one(reader: Reader, files: Files, root: Path, draw: random.Random) -> bool:
    """Break one thing and read; True if it was read, False if it was refused. Raises what should not be raised."""
    if reader.names and draw.random() < 0.3:
        harm_names(root, files, draw)
        clean = True
    else:
        name = draw.choice([name for name in files if name.endswith(reader.only)])
        (root / name).write_bytes(reader.harm(name, files[name], draw))
        clean = False
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        reader.read(root)
    except VidcvaeError as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        assert error.exit_code in (2, 4) and error.message.strip(), error
        assert len(error.message) < 20_000, error.message[:200]
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if clean:
            shutil.rmtree(root)
            write(root, files)
        elif (root / name).exists():
            (root / name).write_bytes(files[name])
    return True


def fuzz(name: str, tries: int, keep: Path) -> int:
    """How many of ``tries`` were read all the same; fails with the way to see a failure again."""
    reader = READERS[name]
    files, passed = reader.files(), 0
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder, bounded():
        root = Path(folder) / "it"
        write(root, files)
        reader.read(root)  # the unbroken one
        for number in range(tries):
            draw = random.Random(f"{SEED}/{name}/{number}")
            try:
                passed += try_one(reader, files, root, draw)
            except BaseException as error:
                reader_files = show_again(reader, files, f"{SEED}/{name}/{number}", keep)
                raise AssertionError(
                    f"{name}, input {number}: {type(error).__name__}: {str(error)[:500]}\n"
                    f"again: random.Random({f'{SEED}/{name}/{number}'!r}); files in {keep}\n{reader_files}"
                ) from error
    return passed


def show_again(reader: Reader, files: Files, seed: str, keep: Path) -> str:
    """Put the failing input into ``keep``; its beginning in hex, or the name that was broken."""
    draw = random.Random(seed)
    shutil.rmtree(keep, ignore_errors=True)
    write(keep, files)
    if reader.names and draw.random() < 0.3:
        return harm_names(keep, files, draw)
    name = draw.choice([name for name in files if name.endswith(reader.only)])
    broken = reader.harm(name, files[name], draw)
    (keep / name).write_bytes(broken)
    return f"{name}: {broken[:1000].hex()}"


@pytest.mark.parametrize("name", READERS)
def test_broken_files_are_read_or_refused(name: str, tmp_path: Path, count: Callable[[str, int], None]) -> None:
    passed = fuzz(name, IN_CI, tmp_path / "failing")
    assert passed < IN_CI  # some of them are refused, or nothing is broken at all
    count("broken files that readers were given", IN_CI)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", READERS)
def test_many_broken_files_are_read_or_refused(name: str, tmp_path: Path, count: Callable[[str, int], None]) -> None:
    passed = fuzz(name, THOROUGH, tmp_path / "failing")
    count(f"broken {name} ({passed:,} read, the others refused)", THOROUGH)


def test_the_harness_notices(tmp_path: Path) -> None:
    """A reader that lets something through, hangs, or takes memory is caught: the check can fail."""

    def fails(root: Path) -> None:
        if (root / "f").read_bytes() != b"x" * 20:
            raise KeyError("f")

    def hangs(root: Path) -> None:
        while (root / "f").read_bytes() != b"x" * 20:
            pass

    def swallows(root: Path) -> None:
        if (root / "f").read_bytes() != b"x" * 20:
            bytearray(2 * MEMORY)

    from tests.security import readers

    for read, says in ((fails, "KeyError"), (hangs, "TooSlow"), (swallows, "MemoryError")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(READERS, "bad", Reader(lambda: {"f": b"x" * 20}, read, readers.plain()))
            patch.setattr("tests.security.test_fuzz.SECONDS", 0.2)
            with pytest.raises(AssertionError, match=says):
                fuzz("bad", 50, tmp_path / "failing")
            assert (tmp_path / "failing" / "f").exists()
