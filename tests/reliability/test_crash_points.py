"""Every crash point: each write of ours is killed, and made to fail, at each of its file operations."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vidcvae.data import packed, pose_folder
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.errors import DataError
from vidcvae.output import submission
from vidcvae.scenes import dancing
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.history import History, read_history
from vidcvae.storage.run import RunFolder, create_run
from vidcvae.workflow.datasets import open_dataset

from .crashes import Scenario, try_every_crash, try_every_fault

pytestmark = pytest.mark.reliability
Count = Callable[[str, int], None]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests do between crashes need not outlast a crash of this machine."""
    monkeypatch.setattr(durable, "_fsync", lambda fd: None)


def save(folder: Path, step: int, best: bool, history_size: int = 0) -> None:
    tensors = {"model.weight": torch.full((3, 4), float(step)), "optimizer.step.weight": torch.tensor(float(step))}
    meta = CheckpointMeta(step=step, history_size=history_size)
    checkpoint.commit(folder, tensors, meta, best=best, keep=2)


def step_of(path: Path) -> int:
    """Loads and verifies."""
    found = checkpoint.read(path)
    assert float(found.tensors["model.weight"][2, 3]) == found.meta.step
    return int(found.meta.step)


def checkpoint_scenario() -> Scenario:
    """The second best checkpoint of a run, which also sends the oldest away."""

    def prepare(folder: Path) -> None:
        save(folder, 1, best=True)
        save(folder, 2, best=False)

    def check(folder: Path, done: bool) -> None:
        last, best = step_of(folder / checkpoint.LAST), step_of(folder / checkpoint.BEST)
        assert (last, best) == (3, 3) if done else (last, best) in [(2, 1), (2, 3), (3, 3)]
        assert last in map(step_of, checkpoint.steps(folder)), "every other one is whole too"

    return Scenario(prepare, lambda folder: save(folder, 3, best=True), check)


def training_scenario() -> Scenario:
    """A whole run: its folder and settings, then lines of history and checkpoints that point into it."""
    saved: list[int] = []

    def prepare(folder: Path) -> None:
        saved.clear()

    def work(folder: Path) -> None:
        run = create_run("x", folder / "runs" / "one") if not (folder / "runs/one").exists() else RunFolder(
            folder / "runs/one")  # fmt: skip
        durable.write_json(run.info, {"command": ["train"]})
        durable.write_text(run.config, "[data]\n")
        history = History(run.history, 0)
        try:
            for step in (1, 2, 3):
                history.append({"kind": "step", "step": step})
                save(run.checkpoints, step, step == 2, history.size)
                saved.append(step)
        finally:
            history.close()

    def check(folder: Path, done: bool) -> None:
        run = RunFolder(folder / "runs/one")
        if run.config.exists():
            assert run.config.read_text() == "[data]\n"
            assert run.info.read_text().startswith('{\n  "command"')
        steps = [line["step"] for line in read_history(run.history)] if run.history.exists() else []
        assert steps == [1, 2, 3][: len(steps)]
        if (run.checkpoints / checkpoint.LAST).exists():
            last = checkpoint.read(run.checkpoints / checkpoint.LAST)
            assert last.meta.step in {max(saved, default=0), max(saved, default=0) + 1}
            rewound = History(run.history, last.meta.history_size)
            rewound.append({"step": "next"})
            rewound.close()
            told = [line["step"] for line in read_history(run.history)]
            assert told == [*range(1, last.meta.step + 1), "next"]
            run.history.write_bytes(b"".join(run.history.read_bytes().splitlines(keepends=True)[:-1]))
        else:
            assert not saved, "a save had returned"
        if (run.checkpoints / checkpoint.BEST).exists():
            assert step_of(run.checkpoints / checkpoint.BEST) == 2
        else:
            assert not done and 2 not in saved

    return Scenario(prepare, work, check)


def history_scenario(rewind: bool) -> Scenario:
    """Lines at the end of a history, perhaps after it was cut back to where a checkpoint was taken."""
    acknowledged: list[int] = []

    def prepare(folder: Path) -> None:
        acknowledged.clear()
        history = History(folder / "history.jsonl")
        for step in (1, 2, 3):
            history.append({"step": step, "loss": 0.5})
        history.close()

    def work(folder: Path) -> None:
        path = folder / "history.jsonl"
        history = History(path, sum(map(len, path.read_bytes().splitlines(keepends=True)[:2])) if rewind else None)
        there = [line["step"] for line in read_history(path)]
        acknowledged[:] = [step for step in there if step >= 10]
        try:
            for step in (10, 11, 12):
                if step not in there:
                    history.append({"step": step, "loss": 0.25})
                    acknowledged.append(step)
        finally:
            history.close()

    def check(folder: Path, done: bool) -> None:
        path = folder / "history.jsonl"
        steps = [line["step"] for line in read_history(path)]
        kept = [1, 2] if rewind else [1, 2, 3]
        possible = [kept + [10, 11, 12][:n] for n in range(len(acknowledged), 4)]
        assert steps in possible or (not acknowledged and steps == [1, 2, 3]), steps
        assert not done or steps == [*kept, 10, 11, 12]
        again = History(path)
        again.append({"step": 99})
        again.close()
        assert [line["step"] for line in read_history(path)] == [*steps, 99]
        durable.Log(path, len(path.read_bytes()) - len('{"step": 99}\n')).close()

    return Scenario(prepare, work, check)


def data(seed: int = 0) -> VideoData:
    chance = np.random.default_rng(seed)
    image = lambda n: chance.integers(0, 256, (n, 3, 8, 8), np.uint8)  # noqa: E731
    train = tuple(Sequence(str(i), image(2), {"pose": image(2)}) for i in range(2))
    return VideoData("made", "dance", 25, Path("made"), {"train": train, "test": (Sequence("t", image(1)),)})


def pack_scenario() -> Scenario:
    """A pack into the rest of an interrupted one, in three data files."""

    def prepare(folder: Path) -> None:
        packed.write(data(1), folder / "out", shard_bytes=1)
        (folder / "out" / packed.MANIFEST).unlink()
        (folder / "out" / "data-00003.bin").write_bytes(b"of a longer one")

    def work(folder: Path) -> None:
        if not packed.is_packed(folder / "out"):
            packed.write(data(), folder / "out", shard_bytes=1)

    def check(folder: Path, done: bool) -> None:
        out = folder / "out"
        if packed.is_packed(out):
            found = packed.open_packed(out, verify=True)
            assert np.array_equal(found.split("train")[1].frames, data().split("train")[1].frames)
        else:
            assert not done and packed.is_unfinished(out)

    return Scenario(prepare, work, check)


def cache_scenario(source: Path) -> Scenario:
    """Decoded images that are kept, found damaged, and made anew: never may old and new be mixed."""

    def prepare(folder: Path) -> None:
        open_dataset(source, (16, 16), folder / "cache")
        (found,) = (folder / "cache").iterdir()
        manifest = found / packed.MANIFEST
        manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 0'))

    def work(folder: Path) -> None:
        open_dataset(source, (16, 16), folder / "cache")

    def check(folder: Path, done: bool) -> None:
        (found,) = (folder / "cache").iterdir()
        try:
            opened = packed.open_packed(found, verify=True)
        except DataError as error:
            assert not done, error
            assert "version 0" in error.message or "not a packed dataset" in error.message, error
        else:
            assert len(opened.split("train")[0]) == 6

    return Scenario(prepare, work, check)


def export_scenario() -> Scenario:
    """The Kaggle file, written over an old one."""
    frames = np.arange(3 * 3 * 2 * 2, dtype=np.uint8).reshape(3, 3, 2, 2)
    row = lambda i: ",".join(map(str, [i, *frames[i].reshape(-1)]))  # noqa: E731
    new = "\n".join([",".join(["id", *map(str, range(12))]), row(0), row(1), row(2)]) + "\n"

    def work(folder: Path) -> None:
        with submission.writing(folder / "submission.csv") as add:
            for frame in frames:
                add(frame)

    def check(folder: Path, done: bool) -> None:
        text = (folder / "submission.csv").read_text()
        assert text == new if done else text in ("old\n", new)

    return Scenario(lambda folder: durable.write_text(folder / "submission.csv", "old\n"), work, check)


def settings_scenario() -> Scenario:
    """The settings of a run that is trained for longer."""
    old, new = "epochs = 2\n" * 9, "epochs = 3\n" * 9

    def check(folder: Path, done: bool) -> None:
        text = (folder / "config.toml").read_text()
        assert text == new if done else text in (old, new)

    return Scenario(
        lambda folder: durable.write_text(folder / "config.toml", old),
        lambda folder: durable.write_text(folder / "config.toml", new),
        check,
    )


def new_history_scenario() -> Scenario:
    """The first lines of a history: its name has to last as well."""
    acknowledged: list[int] = []

    def work(folder: Path) -> None:
        history = History(folder / "history.jsonl", 0)
        acknowledged.clear()
        try:
            for step in (1, 2, 3):
                history.append({"step": step})
                acknowledged.append(step)
        finally:
            history.close()

    def check(folder: Path, done: bool) -> None:
        path = folder / "history.jsonl"
        steps = [line["step"] for line in read_history(path)] if path.exists() else []
        assert steps in [[1, 2, 3][:n] for n in range(len(acknowledged), 4)]

    return Scenario(lambda folder: acknowledged.clear(), work, check)


def removal_scenario() -> Scenario:
    def check(folder: Path, done: bool) -> None:
        assert not done or list(folder.iterdir()) == []

    return Scenario(
        lambda folder: durable.write_text(folder / "old", "old"), lambda folder: durable.remove(folder / "old"), check
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "dance"
    pose_folder.write_folder(dancing.dance(6, 2, 1, 0, (16, 16)), folder)
    return folder


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "checkpoint": checkpoint_scenario,
    "training": training_scenario,
    "history": lambda: history_scenario(rewind=False),
    "rewound history": lambda: history_scenario(rewind=True),
    "new history": new_history_scenario,
    "removal": removal_scenario,
    "pack": pack_scenario,
    "export": export_scenario,
    "settings": settings_scenario,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_at_any_crash(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Count) -> None:
    count("crash points tried", try_every_crash(SCENARIOS[name](), tmp_path, monkeypatch))


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_at_any_failure(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    count("failing file operations tried", try_every_fault(SCENARIOS[name](), tmp_path, monkeypatch))


def test_a_cache_is_never_a_mixture(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    count("crash points tried", try_every_crash(cache_scenario(images), tmp_path, monkeypatch))
    count("failing file operations tried", try_every_fault(cache_scenario(images), tmp_path, monkeypatch))


# --- the check itself can fail -------------------------------------------------------------------------


def in_place(path: Path, data: bytes) -> None:
    fd = durable._open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    durable._write_all(fd, data)
    durable._fsync(fd)
    durable._close(fd)


def by_rename(path: Path, data: bytes, fsync: str, fsync_folder: bool = True) -> None:
    """As ``durable`` does it, with one thing left out or at the wrong place."""
    temporary = path.with_name("temporary")
    fd = durable._open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    durable._write_all(fd, data)
    if fsync == "before":
        durable._fsync(fd)
    durable._replace(temporary, path)
    if fsync == "after":
        durable._fsync(fd)
    durable._close(fd)
    if fsync_folder:
        durable._fsync_folder(path.parent)


@pytest.mark.parametrize(
    ("write", "caught"),
    [
        (in_place, "cut short"),
        (lambda path, data: by_rename(path, data, "never"), "names without their data"),
        (lambda path, data: by_rename(path, data, "after"), "killed at operation"),
        (lambda path, data: by_rename(path, data, "before", fsync_folder=False), "after it returned"),
        (lambda path, data: path.write_bytes(data), "past this layer"),
        (lambda path, data: by_rename(path, data, "before"), ""),
    ],
    ids=["in place", "no fsync", "rename before fsync", "folder not fsynced", "past the layer", "right"],
)  # fmt: skip
def test_careless_writers_are_caught(
    write: Callable[[Path, bytes], None], caught: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = b"old" * 20, b"new!" * 20

    def check(folder: Path, done: bool) -> None:
        found = (folder / "file").read_bytes()
        assert found in ((new,) if done else (old, new)), "cut short"

    scenario = Scenario(
        lambda folder: durable.write_bytes(folder / "file", old), lambda folder: write(folder / "file", new), check
    )
    if not caught:
        assert try_every_crash(scenario, tmp_path, monkeypatch) > 0
        return
    with pytest.raises(AssertionError, match=caught):
        try_every_crash(scenario, tmp_path, monkeypatch)


def test_a_writer_that_opens_whatever_lies_there_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours once did: what a failed link left is another name of a checkpoint, and that was cut to nothing."""

    def create(writer: durable.Writer) -> int:
        return durable._open(writer._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def link(source: Path, target: Path) -> None:
        try:
            durable._link(source, durable._temporary(target))
            durable._replace(durable._temporary(target), target)
            durable._fsync_folder(target.parent)
        except OSError:
            durable.write_bytes(target, source.read_bytes())

    monkeypatch.setattr(durable.Writer, "_create", create)
    monkeypatch.setattr(durable, "link", link)
    with pytest.raises(AssertionError, match=r"(at|from) operation \d+ \['replace'\]: .* is damaged"):
        try_every_fault(checkpoint_scenario(), tmp_path, monkeypatch)


def test_a_writer_that_leaves_its_leftovers_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable.Writer, "abandon", lambda writer: None)
    with pytest.raises(AssertionError, match="left open"):
        try_every_fault(export_scenario(), tmp_path, monkeypatch)
    monkeypatch.setattr(durable, "clean_leftovers", lambda folder: [])
    with pytest.raises(AssertionError, match="leftovers that nobody cleans"):
        try_every_crash(export_scenario(), tmp_path, monkeypatch)
