"""Run folders are numbered, never overwritten, and found again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vidcvae.errors import DataError, UsageError
from vidcvae.storage.run import RunFolder, command_of, create_run, find_checkpoint, find_run, known_info, was_made


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_numbers_go_up_and_names_stand_apart() -> None:
    names = [str(create_run(name).path) for name in ("course", "course", "demo", "course")]
    assert names == ["runs/course-001", "runs/course-002", "runs/demo-001", "runs/course-003"]


def test_a_folder_with_something_in_it_is_not_taken() -> None:
    Path("mine").mkdir()
    assert create_run("x", Path("mine")).path == Path("mine")
    Path("mine/config.toml").write_text("")
    with pytest.raises(UsageError, match="never overwritten") as caught:
        create_run("x", Path("mine"))
    assert "vidcvae resume mine" in caught.value.hint


def test_the_newest_run_is_found_by_default_and_others_by_name() -> None:
    for age, name in enumerate(["a", "b", "c"]):
        run = create_run(name)
        run.config.write_text("")
        os.utime(run.config, (1000 - age, 1000 - age))
    assert find_run(None).path == Path("runs/a-001")
    assert find_run(Path("b-001")).path == Path("runs/b-001")
    with pytest.raises(DataError, match="Did you mean 'c-001'"):
        find_run(Path("c-01"))


def test_no_run_and_no_checkpoint_say_what_to_do() -> None:
    with pytest.raises(DataError, match="no run yet") as caught:
        find_run(None)
    assert caught.value.hint == "Train one, on a synthetic dance: vidcvae train --preset anchor-cpu --max-minutes 3"
    run = create_run("x")
    run.config.write_text("")
    with pytest.raises(DataError, match="no checkpoint yet"):
        find_checkpoint(None)
    with pytest.raises(DataError, match=r"no checkpoint .*nowhere\.safetensors"):
        find_checkpoint(Path("nowhere.safetensors"))


def test_best_comes_before_last() -> None:
    run = create_run("x")
    run.config.write_text("")
    run.checkpoints.mkdir()
    (run.checkpoints / "last.safetensors").write_text("")
    assert find_checkpoint(None)[0].name == "last.safetensors"
    (run.checkpoints / "best.safetensors").write_text("")
    assert find_checkpoint(None)[0].name == "best.safetensors"
    assert find_checkpoint(run.path, "last")[0].name == "last.safetensors"
    assert find_checkpoint(run.checkpoints / "last.safetensors")[1] == run


@pytest.mark.parametrize("content", [None, b"", b'{"vidcvae": "0.1', b"[1, 2]", b"\xff", b"[" * 100_000])
def test_a_missing_or_damaged_run_json_is_a_gap(content: bytes | None) -> None:
    run = RunFolder(Path("r"))
    run.path.mkdir()
    if content is not None:
        run.info.write_bytes(content)
    assert known_info(run) == {} and not was_made(run.path)


@pytest.mark.parametrize("words", [None, [], "train", {"a": 1}])
def test_a_command_that_is_none_is_not_told(words: object) -> None:
    assert command_of({"command": words}) == command_of({}) == ""
    assert command_of({"command": ["/x/bin/vidcvae", "train", "my dance"]}).startswith("vidcvae train ")
