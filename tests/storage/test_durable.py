"""The one writer: old or new, never half; and the log beside it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vidcvae.errors import DataError
from vidcvae.storage import durable


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x"
    durable.write_bytes(target, b"old")

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(durable, "_write", full)
    with pytest.raises(DataError, match="No space left") as caught:
        durable.write_bytes(target, b"new")
    assert str(target) in caught.value.message
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free some space, then"),
        (errno.EROFS, "Choose another place, then"),
        (errno.EACCES, "Choose another place, then"),
        (errno.EIO, "Free some space or choose another folder, then"),
    ],
)
def test_what_is_told_to_do_fits_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr(durable, "_open", refuse)
    with pytest.raises(DataError, match=os.strerror(number)) as caught:
        durable.write_bytes(tmp_path / "x", b"new")
    assert remedy in caught.value.hint


def test_a_folder_below_a_file_is_not_said_to_exist(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        DataError, match=r"cannot create the folder .*notes\.txt/run: .*notes\.txt is not a folder"
    ) as caught:
        durable.make_folder(tmp_path / "notes.txt/run")
    assert "space" not in caught.value.hint


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The file operations in their order: what was done to which name, relative to the folder of the test."""
    made: list[str] = []
    names: dict[int, str] = {}

    def short(path: object) -> str:
        return "TEMPORARY" if ".vidcvae-" in str(path) else Path(str(path)).name

    def watch(name: str, says: Callable[..., str]) -> None:
        real = getattr(durable, name)

        def watched(*arguments: object, **named: object) -> object:
            result = real(*arguments, **named)
            if name == "_open":
                names[int(result)] = short(arguments[0])
            made.append(says(*arguments))
            return result

        monkeypatch.setattr(durable, name, watched)

    watch("_open", lambda path, *_: f"open {short(path)}")
    for name in ("_write", "_fsync", "_close", "_ftruncate"):
        watch(name, lambda fd, *_, name=name: f"{name[1:]} {names[fd]}")
    for name in ("_replace", "_link"):
        watch(name, lambda a, b, name=name: f"{name[1:]} {short(a)} {short(b)}")
    for name in ("_unlink", "_mkdir"):
        watch(name, lambda path, name=name: f"{name[1:]} {short(path)}")
    return made


def test_what_lasts_is_written_in_the_order_that_makes_it_last(tmp_path: Path, calls: list[str]) -> None:
    """The content before the name, and the name before the call returns; folders likewise."""
    home = tmp_path / "home"
    folder = ["open home", "fsync home", "close home"]
    durable.write_bytes(home / "x", b"1")
    made = ["mkdir home", f"open {tmp_path.name}", f"fsync {tmp_path.name}", f"close {tmp_path.name}"]
    written = ["open TEMPORARY", "write TEMPORARY", "fsync TEMPORARY", "close TEMPORARY", "replace TEMPORARY x"]
    assert calls == [*made, *written, *folder]
    calls.clear()
    durable.link(home / "x", home / "y")
    assert calls == ["link x TEMPORARY", "replace TEMPORARY y", *folder]
    calls.clear()
    durable.link(home / "x", home / "y")  # a rename onto the same file leaves both names
    assert calls == ["link x TEMPORARY", "replace TEMPORARY y", "unlink TEMPORARY", *folder]
    calls.clear()
    durable.remove(home / "y")
    assert calls == ["unlink y", *folder]
    calls.clear()
    durable.remove(home / "y")
    assert calls == []


def test_a_log_lasts_piece_by_piece(tmp_path: Path, calls: list[str]) -> None:
    folder = [f"{name} {tmp_path.name}" for name in ("open", "fsync", "close")]
    log = durable.Log(tmp_path / "log", 0)
    assert calls == ["open log", "ftruncate log", "fsync log", *folder]
    calls.clear()
    log.append(b"one")
    log.append(b"two")
    assert calls == ["write log", "fsync log"] * 2 and log.size == 6
    calls.clear()
    log.close()
    assert calls == ["close log"]
    again = durable.Log(tmp_path / "log", 4)
    again.append(b"!")
    assert (tmp_path / "log").read_bytes() == b"onet!" and again.size == 5
    durable.Log(tmp_path / "new" / "folder" / "log", 0).append(b"x")
    assert (tmp_path / "new" / "folder" / "log").stat().st_mode & 0o777 == 0o644


def test_files_and_what_they_say(tmp_path: Path) -> None:
    durable.write_text(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"
    durable.write_json(tmp_path / "b.json", {"x": [1]})
    assert (tmp_path / "b.json").read_text() == '{\n  "x": [\n    1\n  ]\n}\n'
    with durable.writing(tmp_path / "c") as file:
        assert (file.write(b"12345"), file.tell(), file.write(memoryview(b"67")), file.tell()) == (5, 5, 2, 7)
        assert not (tmp_path / "c").exists()
    for name in ("a", "b.json", "c"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o644


def test_a_copy_takes_the_place_of_a_link_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(durable, "_link", refused)
    durable.write_bytes(tmp_path / "a", b"a")
    durable.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"a" and (tmp_path / "b").stat().st_ino != (tmp_path / "a").stat().st_ino
    with pytest.raises(DataError, match="cannot write"):
        durable.link(tmp_path / "gone", tmp_path / "c")


def test_what_the_system_refuses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot remove .*folder: "):
        durable.remove(tmp_path / "folder")
    with pytest.raises(DataError, match=r"cannot write .*folder: "):
        durable.write_bytes(tmp_path / "folder", b"x")
    with pytest.raises(DataError, match=r"cannot write .*folder: "):
        durable.Log(tmp_path / "folder", 0)
    assert not list(tmp_path.glob(".*"))

    refuses = [errno.EIO]

    def broken(fd: int) -> None:
        raise OSError(refuses[0], "?")

    monkeypatch.setattr(durable, "_fsync", broken)
    (tmp_path / "x").touch()
    with pytest.raises(DataError, match="Input/output error"):
        durable.remove(tmp_path / "x")
    for refuses[0] in (errno.EINVAL, errno.EBADF):  # of a file system that knows no fsync of folders
        (tmp_path / "x").touch()
        durable.remove(tmp_path / "x")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not tell when a process began")
def test_a_temporary_name_tells_whose_it_is(tmp_path: Path) -> None:
    """This process's number and when it began, by /proc; a leftover that another process of this number left is not
    living, nor is one of a process that is gone."""
    began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    with durable.writing(tmp_path / "x"):
        (mine,) = tmp_path.iterdir()
        assert mine.name == f".x.vidcvae-{os.getpid()}-{began}.tmp"
        other = tmp_path / f".y.vidcvae-{os.getpid()}-{began + 1}.tmp"
        gone = tmp_path / ".z.vidcvae-4194305-1.tmp"  # above the highest process number
        for path in (other, gone, tmp_path / f"y.vidcvae-{os.getpid()}-1.tmp", tmp_path / ".vidcvae-1-1.tmp"):
            path.write_text("")
        assert sorted(durable.leftovers(tmp_path)) == [other, gone]
        assert sorted(durable.clean_leftovers(tmp_path)) == [other, gone]
        assert mine.exists() and not other.exists() and not gone.exists()
    assert (tmp_path / "x").exists()


@pytest.mark.parametrize("fails", ["_write", "_fsync", "_replace"])
def test_a_failed_write_closes_its_own_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    closed: list[int] = []
    mine: list[int] = []

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "?")

    def close(fd: int) -> None:
        closed.append(fd)
        if fd in mine:
            os.close(fd)

    monkeypatch.setattr(durable, fails, refuse)
    monkeypatch.setattr(durable, "_close", close)
    monkeypatch.setattr(durable, "_open", lambda *given: mine.append(os.open(*given)) or mine[-1])
    with pytest.raises(DataError, match="cannot write"):
        durable.write_bytes(tmp_path / "x", b"1")
    assert len(mine) == 1 and closed == mine
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_cut_is_closed_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "?")

    monkeypatch.setattr(durable, "_ftruncate", refuse)
    monkeypatch.setattr(durable, "_close", lambda fd: (closed.append(fd), os.close(fd)))
    with pytest.raises(DataError, match=r"cannot write .*Input/output error"):
        durable.Log(tmp_path / "log", 0)
    assert len(closed) == 1


def test_what_lies_where_a_temporary_file_is_made_is_another_name_of_a_good_file(tmp_path: Path) -> None:
    """Left by a link that failed: it is taken away, not written over."""
    durable.write_bytes(tmp_path / "good", b"good")
    with durable.writing(tmp_path / "x"):
        (name,) = (path.name for path in tmp_path.iterdir() if path.name != "good")
    x = tmp_path / "x"
    for make in (lambda: durable.write_bytes(x, b"new"), lambda: durable.link(x, x)):
        os.link(tmp_path / "good", tmp_path / name)
        make()
        assert (tmp_path / "good").read_bytes() == b"good" and (tmp_path / "x").read_bytes() == b"new"
        assert not (tmp_path / name).exists()
        assert x.stat().st_mode & 0o777 == 0o644
    durable.write_bytes(tmp_path / "y", b"y")
    os.link(tmp_path / "good", tmp_path / name.replace(".x.", ".z."))
    durable.link(tmp_path / "y", tmp_path / "z")
    assert (tmp_path / "z").samefile(tmp_path / "y")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(durable, "_write", lambda fd, data: real(fd, data[:3]))
    durable.write_bytes(tmp_path / "x", b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_a_block_that_raises_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mid"), durable.writing(tmp_path / "x") as file:
        file.write(b"half")
        raise ValueError("mid")
    assert list(tmp_path.iterdir()) == []


def test_link_replaces_and_repeats(tmp_path: Path) -> None:
    a, b, last = tmp_path / "a", tmp_path / "b", tmp_path / "last"
    durable.write_bytes(a, b"a")
    durable.write_bytes(b, b"b")
    for source in (a, a, b, b):
        durable.link(source, last)
        assert last.read_bytes() == source.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "last"]


def test_only_leftovers_of_dead_writers_are_removed(tmp_path: Path) -> None:
    """A real process is killed in the middle of a write; another one is still writing."""
    code = f"""
import os, signal
from pathlib import Path
from vidcvae.storage import durable
with durable.writing(Path({str(tmp_path / "dead")!r})) as f:
    f.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (tmp_path / ".mine.tmp").write_text("somebody else's")
    with durable.writing(tmp_path / "living") as file:
        file.write(b"x")
        removed = durable.clean_leftovers(tmp_path)
        assert [p.name.split(".vidcvae")[0] for p in removed] == [".dead"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine.tmp", "living"]


def test_a_new_folder_is_told_from_an_old_one(tmp_path: Path) -> None:
    durable.make_folder(tmp_path / "a" / "b", new=True)
    durable.make_folder(tmp_path / "a" / "b")
    with pytest.raises(FileExistsError):
        durable.make_folder(tmp_path / "a" / "b", new=True)
    (tmp_path / "file").write_text("")
    for wrong in ("file", "file/below"):
        with pytest.raises(DataError, match="cannot create the folder"):
            durable.make_folder(tmp_path / wrong)


def test_many_files_wait_for_the_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_fsync", lambda fd: time.sleep(0.01))
    files = [(tmp_path / "new" / f"{k}.txt", str(k).encode) for k in range(64)]
    began = time.monotonic()
    assert list(durable.write_many(files)) == [path for path, _ in files]
    assert time.monotonic() - began < 0.7, "one after the other they wait for 1.28 seconds"
    assert {p.name: p.read_text() for p in (tmp_path / "new").iterdir()} == {f"{k}.txt": str(k) for k in range(64)}


def test_a_failure_among_many_files_is_raised_and_leaves_no_rest(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*3: Is a directory"):
        list(durable.write_many([(tmp_path / str(k), str(k).encode) for k in range(6)]))
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    durable.check_writable(tmp_path / "file")
    durable.check_writable(tmp_path / "new/newer/x.gif")
    durable.check_writable(tmp_path)
    with pytest.raises(DataError, match=r"cannot write .*file/x\.gif: .*file is not a folder"):
        durable.check_writable(tmp_path / "file/x.gif")
    for refused in (os.W_OK, os.X_OK):  # root may write everywhere
        monkeypatch.setattr(os, "access", lambda path, mode, refused=refused: not mode & refused)
        for wrong in (tmp_path, tmp_path / "file", tmp_path / "new/x"):
            with pytest.raises(DataError, match="Permission denied"):
                durable.check_writable(wrong)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
