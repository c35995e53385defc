"""A file layer that fails on purpose, and what a disk could hold after a crash.

It stands under ``storage.durable`` in place of the os functions, does the real thing in a real folder, and keeps the
books of what has been made to last: a file's bytes by fsync of the file; names (creations, links, renames, removals)
by fsync of their folder. A crash keeps all that, and of the rest whatever it likes. The method is SQLite's
(sqlite.org/atomiccommit.html, section 9; sqlite.org/testing.html, section 3.3).
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vidcvae.errors import VidcvaeError
from vidcvae.storage import durable

OPERATIONS = ("open", "write", "fsync", "close", "replace", "unlink", "link", "ftruncate", "mkdir")
TAKES_SPACE = ("create", "write", "replace", "link", "fsync", "mkdir")
SHORT, ENOSPC, EIO = "short write", "ENOSPC", "EIO"


class Killed(BaseException):
    """The process is gone: no handler of its may do anything more."""


@dataclass(eq=False)
class Node:
    """A file (``data``) or a folder (``names``): how it is now, and how it surely is after a crash."""

    is_folder: bool
    data: bytes = b""
    lasting: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    lasting_names: dict[str, Node] = field(default_factory=dict)
    # what fsync of the folder would make last: each change of names, whole or not at all
    changes: list[dict[str, Node | None]] = field(default_factory=list)

    def rename(self, change: dict[str, Node | None]) -> None:
        self.changes.append(change)
        _apply(self.names, change)


class Disk:
    """The layer: ``kill_at`` the operation of that number, or let it fail (``fault``), once or from then on."""

    def __init__(
        self, root: Path, *, kill_at: int = -1, fault: str = "", fail_at: int = -1, persistent: bool = False
    ) -> None:
        self.root_path = root
        self.kill_at, self.fault, self.fail_at, self.persistent = kill_at, fault, fail_at, persistent
        self.operations: list[str] = []
        self.dead = False
        self.failed = False
        self._descriptors: dict[int, Node] = {}
        self.root = self._adopt(root, {})

    def _adopt(self, path: Path, seen: dict[int, Node]) -> Node:
        """What is on the real disk now, as lasting."""
        number = path.stat().st_ino
        if number not in seen:
            if path.is_dir():
                names = {child.name: self._adopt(child, seen) for child in sorted(path.iterdir())}
                seen[number] = Node(True, names=names, lasting_names=dict(names))
            else:
                seen[number] = Node(False, path.read_bytes(), path.read_bytes())
        return seen[number]

    def mount(self, patch: pytest.MonkeyPatch) -> None:
        for name in OPERATIONS:
            patch.setattr(durable, f"_{name}", getattr(self, name))

    # --- the operations: fail here if it is their turn, do the real thing, keep the books --------------

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        folder, name = self._find(path)
        new = bool(name) and name not in folder.names
        self._turn("create" if flags & os.O_CREAT and new else "open")
        fd = os.open(path, flags, mode)
        if new:
            folder.rename({name: Node(False)})
        node = folder.names[name] if name else folder
        if flags & os.O_TRUNC:
            node.data = b""
        self._descriptors[fd] = node
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        size = len(data) // 2 if self._turn("write", splittable=len(data) > 1) else len(data)
        written = os.write(fd, data[:size])
        self._descriptors[fd].data += bytes(data[:written])
        if self.dead:
            raise Killed
        return written

    def ftruncate(self, fd: int, size: int) -> None:
        self._turn("ftruncate")
        os.ftruncate(fd, size)
        self._descriptors[fd].data = self._descriptors[fd].data[:size].ljust(size, b"\0")

    def fsync(self, fd: int) -> None:
        self._turn("fsync")  # the real one would only take time
        node = self._descriptors[fd]
        node.lasting = node.data
        node.lasting_names = dict(node.names)
        node.changes.clear()

    def close(self, fd: int) -> None:
        if self.dead:
            raise Killed
        os.close(fd)  # even a close that fails has closed
        del self._descriptors[fd]
        self._turn("close")

    def replace(self, source: Path, target: Path) -> None:
        self._turn("replace")
        source.replace(target)
        (folder, old), (other, new) = self._find(source), self._find(target)
        assert folder is other, "renaming across folders is not modelled"
        if folder.names.get(new) is not folder.names[old]:  # else POSIX does nothing
            folder.rename({old: None, new: folder.names[old]})

    def link(self, source: Path, target: Path) -> None:
        self._turn("link")
        os.link(source, target)
        folder, name = self._find(target)
        source_folder, source_name = self._find(source)
        folder.rename({name: source_folder.names[source_name]})

    def unlink(self, path: Path) -> None:
        self._turn("unlink")
        path.unlink()
        folder, name = self._find(path)
        folder.rename({name: None})

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        self._turn("mkdir")
        path.mkdir(mode)
        folder, name = self._find(path)
        folder.rename({name: Node(True)})

    def _turn(self, name: str, splittable: bool = False) -> bool:
        """Count an operation and fail if it is its turn; returns whether a write is to be cut short."""
        if self.dead:
            raise Killed
        number = len(self.operations)
        self.operations.append(name)
        if number == self.kill_at:
            self.dead = True
            if splittable:
                return True  # it dies in the middle of writing
            raise Killed
        now = self.fault and (number >= self.fail_at if self.persistent else number == self.fail_at)
        if not now or (self.fault == ENOSPC and name not in TAKES_SPACE):
            return False
        if self.fault == SHORT:
            self.failed |= splittable
            return splittable
        self.failed = True
        raise OSError(getattr(errno, self.fault), os.strerror(getattr(errno, self.fault)))

    def _find(self, path: Path) -> tuple[Node, str]:
        """The folder that a path is in, and its name there; the root's own name is empty."""
        parts = Path(path).relative_to(self.root_path).parts
        if not parts:
            return self.root, ""
        node = self.root
        for part in parts[:-1]:
            node = node.names[part]
        if parts[-1] in node.names and node.names[parts[-1]].is_folder:
            return node.names[parts[-1]], ""
        return node, parts[-1]

    # --- after a crash -------------------------------------------------------------------------------

    def check_books(self) -> None:
        """That nothing was written past this layer."""
        assert _contents(self.root) == real_contents(self.root_path), "something was written past this layer"

    def images(self, chance: random.Random) -> Iterator[tuple[str, Image]]:
        """What can be found after the crash: nothing that was not made to last; everything; and some between."""
        plain: list[tuple[str, Callable[[Node], bytes], Callable[[int], list[int]]]] = [
            ("only what was fsynced", lambda f: f.lasting, lambda n: []),
            ("everything", lambda f: f.data, lambda n: list(range(n))),
            ("names without their data", lambda f: f.lasting, lambda n: list(range(n))),
            ("data without their names", lambda f: f.data, lambda n: []),
            ("names, and data of zeros", lambda f: _torn(f, 0, b"\0"), lambda n: list(range(n))),
            ("names, and torn data", lambda f: _torn(f, chance.random(), b"\xa5\n"), lambda n: list(range(n))),
            ("some names, and torn data", lambda f: _torn(f, chance.random(), b"\0"), lambda n: _some(n, chance)),
            ("some names, and all data", lambda f: f.data, lambda n: _some(n, chance)),
            ("the first names, and cut data", lambda f: _torn(f, chance.random(), b""),
             lambda n: list(range(chance.randint(0, n)))),
        ]  # fmt: skip
        for title, data_of, changes_of in plain:
            yield title, _image(self.root, data_of, changes_of, {})


Image = dict[str, "Image | tuple[int, bytes]"]  # names to folders and files; a file with the number of its node


def _apply(names: dict[str, Node], change: dict[str, Node | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _image(
    folder: Node, data_of: Callable[[Node], bytes], changes_of: Callable[[int], list[int]], seen: dict[int, bytes]
) -> Image:
    names = dict(folder.lasting_names)
    for index in changes_of(len(folder.changes)):
        _apply(names, folder.changes[index])
    found: Image = {}
    for name, node in names.items():
        if node.is_folder:
            found[name] = _image(node, data_of, changes_of, seen)
        else:
            found[name] = (id(node), seen.setdefault(id(node), data_of(node)))
    return found


def _torn(file: Node, share: float, filling: bytes) -> bytes:
    """Of what was not fsynced, the first share; the rest filled up with what lay on the disk before."""
    differing = (i for i, (a, b) in enumerate(zip(file.lasting, file.data, strict=False)) if a != b)
    same = next(differing, min(len(file.lasting), len(file.data)))
    rest = len(file.data) - same
    kept = int(rest * share)
    filled = (filling * (rest - kept))[: rest - kept]
    return file.data[: same + kept] + filled


def _some(n: int, chance: random.Random) -> list[int]:
    return [i for i in range(n) if chance.random() < 0.5]


def _contents(folder: Node) -> dict[str, object]:
    return {name: _contents(node) if node.is_folder else node.data for name, node in folder.names.items()}


def real_contents(folder: Path) -> dict[str, object]:
    return {p.name: real_contents(p) if p.is_dir() else p.read_bytes() for p in folder.iterdir()}


def lay_out(image: Image, folder: Path) -> None:
    """Write what a crash left into a real, empty folder; names of one file are links."""
    first: dict[int, Path] = {}

    def write(part: Image, place: Path) -> None:
        place.mkdir(exist_ok=True)
        for name, entry in part.items():
            if isinstance(entry, dict):
                write(entry, place / name)
            elif entry[0] in first:
                (place / name).hardlink_to(first[entry[0]])
            else:
                (place / name).write_bytes(entry[1])
                first[entry[0]] = place / name

    write(image, folder)


# --- trying all of it --------------------------------------------------------------------------------


@dataclass
class Scenario:
    """A piece of work on files and what must hold of them, whatever happens.

    prepare: makes the old state in a folder. work: what is being tried. check: raises AssertionError unless the
    folder holds the old state or the new one, and certainly the new one where ``done``.
    """

    prepare: Callable[[Path], None]
    work: Callable[[Path], None]
    check: Callable[[Path, bool], None]


def try_every_crash(scenario: Scenario, place: Path, patch: pytest.MonkeyPatch) -> int:
    """Kill the work at each of its operations, and after the last; returns how many crashes were looked at."""
    points = 0
    for kill_at in itertools.count():
        folder = _fresh(place, f"kill-{kill_at}")
        scenario.prepare(folder)
        disk = Disk(folder, kill_at=kill_at)
        done = _work(scenario, folder, disk, patch)
        if done:
            disk.check_books()
        for title, image in disk.images(random.Random(kill_at)):
            after = _fresh(place, "after")
            lay_out(image, after)
            with patch.context() as dead:
                dead.setattr(durable, "_started", lambda pid: 0)  # the writer is no more
                try:
                    scenario.check(after, done)
                    _check_leftovers(after)
                except Exception as error:
                    where = f"killed at operation {kill_at} {disk.operations[-1:]}" if not done else "after it returned"
                    raise AssertionError(f"{where}; on the disk: {title}: {error}") from error
            points += 1
        if done:
            return points
    raise AssertionError


def try_every_fault(scenario: Scenario, place: Path, patch: pytest.MonkeyPatch) -> int:
    """Let each operation fail, once and from then on; then try again with everything in order."""
    points = 0
    for fault, persistent in itertools.product((ENOSPC, EIO, SHORT), (False, True)):
        for fail_at in itertools.count():
            folder = _fresh(place, f"{fault}-{persistent}-{fail_at}".replace(" ", "-"))
            scenario.prepare(folder)
            disk = Disk(folder, fault=fault, fail_at=fail_at, persistent=persistent)
            where = f"{fault}, {'from' if persistent else 'at'} operation {fail_at}"
            done = _work(scenario, folder, disk, patch)
            try:
                disk.check_books()
                scenario.check(folder, done)
                if not done:
                    assert fault != SHORT, "a short write is to be continued"
                    scenario.work(folder)  # the same process tries again
                scenario.check(folder, True)
                with patch.context() as dead:
                    dead.setattr(durable, "_started", lambda pid: 0)
                    _check_leftovers(folder)
            except Exception as error:
                raise AssertionError(f"{where} {disk.operations[fail_at : fail_at + 1]}: {error}") from error
            if fail_at >= len(disk.operations):
                break
            points += disk.failed
    return points


def _work(scenario: Scenario, folder: Path, disk: Disk, patch: pytest.MonkeyPatch) -> bool:
    """Whether the work returned. It may fail with an error that users can read, and with no other."""
    done = False
    with patch.context() as mounted:
        disk.mount(mounted)
        try:
            scenario.work(folder)
            done = True
        except VidcvaeError:
            assert disk.failed or disk.dead
        except Killed:
            pass
        finally:
            left_open = list(disk._descriptors)
            for fd in left_open:
                os.close(fd)
    assert disk.dead or not left_open, "a file was left open"
    return done


def _check_leftovers(folder: Path) -> None:
    """Nothing may lie around but what ``clean_leftovers`` knows and removes."""
    for inside in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        before = {path.name for path in inside.iterdir() if not path.name.startswith(".")}
        durable.clean_leftovers(inside)
        assert {path.name for path in inside.iterdir()} == before, "leftovers that nobody cleans"


def _fresh(place: Path, name: str) -> Path:
    folder = place / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
