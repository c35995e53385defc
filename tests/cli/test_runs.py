"""``vidcvae runs``: what there is, how far it came, and what can go."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from vidcvae.data.packed import open_packed
from vidcvae.storage import checkpoint, durable, lock, upkeep
from vidcvae.storage.history import read_history
from vidcvae.storage.run import RunFolder, create_run
from vidcvae.workflow.datasets import open_dataset

from .conftest import TINY, Cli


@pytest.fixture(scope="module")
def trained(tiny_dance: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/long-001``, a finished run of 4 epochs that kept every checkpoint."""
    import subprocess

    folder = tmp_path_factory.mktemp("place")
    options = [*map(str, TINY), "--epochs", "4", "--set", "checkpoint.keep=9", "--run", "runs/long-001"]
    command = [sys.executable, "-m", "vidcvae", "train", str(tiny_dance), *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``trained`` (hard links stay links), which is the current folder."""
    names: dict[int, Path] = {}
    for path in sorted(trained.rglob("*")):
        copy = tmp_path / path.relative_to(trained)
        if path.is_dir():
            copy.mkdir(parents=True)
        elif path.stat().st_ino in names:
            os.link(names[path.stat().st_ino], copy)
        else:
            shutil.copy2(path, copy)
            names[path.stat().st_ino] = copy
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(cli: Cli, *arguments: object) -> dict[str, dict[str, Any]]:
    done = cli("runs", "list", *arguments, "--json")
    assert done.code == 0, done.err
    return {run["path"]: run for run in json.loads(done.out)["runs"]}


def with_epochs(run: Path, epochs: int) -> None:
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("epochs = 4\n", f"epochs = {epochs}\n", 1))


def test_list_tells_what_the_history_and_the_checkpoint_say(cli: Cli, place: Path, tiny_dance: Path) -> None:
    run = listed(cli)["runs/long-001"]
    history = read_history(Path("runs/long-001/history.jsonl"))
    assert run["best_psnr"] == max(h["psnr_zero"] for h in history if h["kind"] == "validation")
    assert (run["epoch"], run["epochs"], run["state"]) == (4, 4, "finished")
    assert run["step"] == checkpoint.read(Path("runs/long-001/checkpoints/last.safetensors")).meta.step
    assert run["minutes"] == pytest.approx(max(h["minutes"] for h in history if "minutes" in h), rel=0.5)
    assert run["data"] == str(tiny_dance) and run["model"] == "pose-cvae"
    # du counts a file with two names once, too
    files = {f.stat().st_ino: f.stat().st_size for f in Path("runs/long-001").rglob("*") if f.is_file()}
    assert run["size"] == sum(files.values()) < sum(f.stat().st_size for f in Path("runs").rglob("*") if f.is_file())


def test_every_state_is_told(cli: Cli, place: Path) -> None:
    for name in ("resumable", "empty", "damaged", "torn"):
        shutil.copytree("runs/long-001", f"runs/{name}")
    with_epochs(Path("runs/resumable"), 9)
    shutil.rmtree("runs/empty/checkpoints")
    Path("runs/damaged/config.toml").write_text("[kl]\ntpye = 1\n")
    last = Path("runs/torn/checkpoints/last.safetensors")
    last.write_bytes(last.read_bytes()[:100])
    found = listed(cli)
    assert {path.removeprefix("runs/"): run["state"] for path, run in found.items()} == {
        "long-001": "finished",
        "resumable": "resumable",
        "empty": "no checkpoint",
        "damaged": "damaged",
        "torn": "damaged",
    }
    assert "kl.tpye" in found["runs/damaged"]["problem"] and "last.safetensors" in found["runs/torn"]["problem"]
    done = cli("runs", "list")
    assert done.code == 0 and "runs/resumable" in done.out and "kl.tpye" in done.err


def test_runs_of_a_study_are_found_and_the_newest_stands_last(cli: Cli, place: Path) -> None:
    shutil.copytree("runs/long-001", "runs/sweep-type/kl-none")
    os.utime("runs/sweep-type/kl-none/config.toml", (1, 1))
    assert list(listed(cli)) == ["runs/sweep-type/kl-none", "runs/long-001"]
    assert list(listed(cli, "runs/sweep-type")) == ["runs/sweep-type/kl-none"]
    assert list(listed(cli, "long-001")) == ["runs/long-001"]


def test_show_names_settings_checkpoints_and_the_next_command(cli: Cli, place: Path) -> None:
    shown = json.loads(cli("runs", "show", "--json").out)
    assert shown["settings"]["model.frame_channels"] == 8 and "kl.type" not in shown["settings"]
    steps = {entry["file"]: entry["step"] for entry in shown["checkpoints"]}
    assert steps["last.safetensors"] == shown["step"] and all(
        steps[f"step-{n:08d}.safetensors"] == n for n in (3, 6)
    )  # 10 clips, 4 a step
    assert shown["next"][0] == "vidcvae evaluate runs/long-001"
    text = cli("runs", "show", "long-001").out
    assert "runs/long-001: finished" in text and "--set checkpoint.keep=9" in text and "kl.type" not in text
    with_epochs(Path("runs/long-001"), 9)
    assert "Next: vidcvae resume runs/long-001" in cli("runs", "show").out


@pytest.mark.parametrize("command", ["show", "list", "prune"])
def test_a_misspelt_run_is_asked_for(cli: Cli, place: Path, command: str) -> None:
    done = cli("runs", command, "lnog-001")
    assert done.code == 4 and "Did you mean 'long-001'?" in done.err


def test_nothing_there_is_an_answer(cli: Cli, workplace: Path) -> None:
    done = cli("runs", "list")
    assert done.code == 4 and "no run yet" in done.err and "vidcvae train" in done.err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_score_tells_of_how_many_validations_its_checkpoint_is_the_best(cli: Cli, place: Path) -> None:
    assert cli("resume", "long-001", "--epochs", 5, "--plain").code == 0
    last = checkpoint.read(Path("runs/long-001/checkpoints/last.safetensors"))
    history = read_history(Path("runs/long-001/history.jsonl"))
    assert last.meta.validation["count"] == sum(line["kind"] == "validation" for line in history) == 5
    record = json.loads(cli("evaluate", "long-001", "--json").out)
    assert record["protocol"]["data_digest"] == last.meta.validation["data_digest"]
    expected = {"chosen": "best", "of": 5, "metric": "psnr_zero", "split": "val", "on_scored_data": True}
    assert record["selection"] == expected
    assert "checkpoint: best of 5 validations by psnr_zero on val" in cli("runs", "show", "long-001").out


def test_prune_only_names_what_it_would_remove(cli: Cli, place: Path) -> None:
    before = contents(place)
    done = cli("runs", "prune")
    assert done.code == 0 and "nothing was removed" in done.out
    assert contents(place) == before


def test_prune_frees_what_is_of_no_use_and_nothing_else(cli: Cli, place: Path, tiny_dance: Path) -> None:
    folder = Path("runs/long-001/checkpoints")
    kept = {name: (folder / name).read_bytes() for name in (checkpoint.LAST, checkpoint.BEST)}
    same = {path.name for path in checkpoint.steps(folder) if any(path.samefile(folder / name) for name in kept)}
    useless = {path.name for path in checkpoint.steps(folder)} - same
    assert len(useless) >= 2
    dead = folder / ".last.safetensors.vidcvae-1-1.tmp"  # process 1 began at another time
    living = Path(durable.Writer(folder / "x")._temporary)
    dead.write_bytes(b"half")
    used = list(Path("runs/.cache").iterdir())
    open_dataset(tiny_dance, (8, 8), Path("runs/.cache"))  # nobody's size
    assert len(used) == 1 and len(list(Path("runs/.cache").iterdir())) == 2

    done = cli("runs", "prune", "--yes")
    assert done.code == 0 and "freed" in done.out
    assert {path.name for path in folder.iterdir()} == {*kept, *same, living.name}
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert list(Path("runs/.cache").iterdir()) == used
    assert "nothing to remove" in cli("runs", "prune", "--yes").out
    assert cli("checkpoint", "verify", "long-001").code == 0
    assert cli("resume", "long-001", "--epochs", 5, "--plain").code == 0


def test_a_run_without_last_loses_no_checkpoint(cli: Cli, place: Path) -> None:
    """They may be all that is left to go on from."""
    folder = Path("runs/long-001/checkpoints")
    (folder / checkpoint.LAST).unlink()
    steps = checkpoint.steps(folder)
    assert cli("runs", "prune", "--yes").code == 0
    assert checkpoint.steps(folder) == steps


def test_a_running_run_is_said_to_run_and_is_not_touched(cli: Cli, place: Path) -> None:
    run = Path("runs/long-001")
    with lock.holding(run):
        before = contents(place)
        assert listed(cli)["runs/long-001"]["state"] == "running"
        done = cli("runs", "prune", "--yes")
        assert done.code == 0 and f"in use by process {os.getpid()}" in done.err and "nothing to remove" in done.out
        assert contents(place) == before
    assert listed(cli)["runs/long-001"]["state"] == "finished"
    assert "removed" in cli("runs", "prune", "--yes").out
    assert not (run / lock.FILE).exists()


# --- what is not ours stays -------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, tuple[int, str | bytes]]:
    """Mode, and content or target, of everything below; nothing is reached through a link."""
    found: dict[str, tuple[int, str | bytes]] = {}
    for path in sorted(folder.rglob("*")):
        mode, name = path.lstat().st_mode, path.relative_to(folder).as_posix()
        content: str | bytes = str(path.readlink()) if path.is_symlink() else "" if path.is_dir() else path.read_bytes()
        found[name] = (mode, content)
    return found


def put(path: str | Path, content: str = "") -> Path:
    """A file of ``content``, or of random bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() or os.urandom(300))
    return path


def failed_start(name: str) -> Path:
    """What a training leaves that ended before its first checkpoint."""
    run = create_run("", Path("runs") / name)
    shutil.copy("runs/long-001/config.toml", run.config)
    put(run.history, '{"kind": "step", "step": 1}\n')
    return run.path


def test_prune_takes_nothing_that_vidcvae_did_not_write(cli: Cli, place: Path, tiny_dance: Path) -> None:
    cache, checkpoints = Path("runs/.cache"), Path("runs/long-001/checkpoints")
    open_dataset(tiny_dance, (8, 8), cache)  # nobody's size: the one cache that may go
    (unused,) = (p for p in cache.iterdir() if open_packed(p).size == (8, 8))
    kept = [checkpoints / name for name in (checkpoint.LAST, checkpoint.BEST)]
    useless = [p for p in checkpoint.steps(checkpoints) if not any(p.samefile(other) for other in kept)]
    gone = [*useless, unused, *unused.iterdir(), failed := failed_start("failed-001"), *failed.iterdir()]

    # 1. caches of others, and what looks like ours
    precious = put("elsewhere/precious.bin")
    for name in ("pip/wheel.bin", "huggingface-hub/blobs/0", "dance-0123456789ab/data-00000.bin", "a.txt"):
        put(cache / name)
    put(cache / "other-aaaaaaaaaaaa/manifest.json", '{"format": "vidcvae-packed", "version": 1}')
    put(cache / "other-aaaaaaaaaaaa/data-00000.bin")
    for kind in ("packed", "copied", "letter", "linked"):
        shutil.copytree(unused, cache / f"{kind}-bbbbbbbbbbbb")
    for path in cache.glob("*-bbbbbbbbbbbb/cache.json"):
        path.write_text(path.read_text().replace(unused.name, path.parent.name))
    (cache / "packed-bbbbbbbbbbbb/cache.json").unlink()  # as dataset pack leaves it
    shutil.copy(unused / "cache.json", cache / "copied-bbbbbbbbbbbb")
    put(cache / "letter-bbbbbbbbbbbb/letter.txt")
    shutil.move(cache / "linked-bbbbbbbbbbbb/data-00000.bin", "elsewhere/data.bin")
    (cache / "linked-bbbbbbbbbbbb/data-00000.bin").symlink_to(place / "elsewhere/data.bin")
    shutil.copytree(unused, f"elsewhere/{unused.name}")
    (cache / "link-cccccccccccc").symlink_to(place / "elsewhere" / unused.name)
    shutil.copytree(cache, "other/.cache-of-another", symlinks=True)
    shutil.copytree("runs/long-001", "other/run")
    Path("other/.cache").symlink_to(".cache-of-another")

    # 2. folders that are no runs of ours
    for number, info in enumerate((None, '{"name": "app"}', "[", '["vidcvae"]')):
        put(f"runs/app-{number}/config.toml", "[server]\nport = 1\n")
        for name in ("last", "step-00000001", "step-00000002"):
            put(f"runs/app-{number}/checkpoints/{name}.safetensors")
        put(f"runs/app-{number}/checkpoints/.last.safetensors.vidcvae-1-1.tmp")
        if info:
            put(f"runs/app-{number}/run.json", info)
    shutil.copytree("runs/long-001", "elsewhere/run")
    Path("runs/link").symlink_to(place / "elsewhere/run")
    shutil.copytree("runs/long-001", "runs/half")
    shutil.move("runs/half/checkpoints", "elsewhere/half")
    Path("runs/half/checkpoints").symlink_to(place / "elsewhere/half")

    # 3. files of a person in a run of ours
    for name in ("step-1", "step-mine", "step-00000099", "best-of-all"):
        put(checkpoints / f"{name}.safetensors")
    (checkpoints / "step-00000098.safetensors").symlink_to(precious)
    put(checkpoints / "old/step-00000001.safetensors")
    put(checkpoints / ".notes.txt.vidcvae-1-1.tmp")
    put(checkpoints / ".last.safetensors.vidcvae-1-1.tmp" / "folder.txt")
    put(failed_start("failed-letter") / "letter.txt")
    put(failed_start("failed-scored") / "scores/val-zero.json")
    put(failed_start("failed-late") / "history.jsonl", '{"kind": "epoch", "step": 1}\n')
    precious.chmod(0o640)

    before = snapshot(place)
    names = {path.as_posix() for path in gone}
    assert names <= before.keys()
    named = cli("runs", "prune")
    assert named.code == 0 and snapshot(place) == before, named.err
    for folder in ([], ["other/run"], ["other"], ["runs/link"], ["runs/app-0"]):
        assert cli("runs", "prune", *folder, "--yes").code == 0
    others = {name for name in before if name.startswith("other/run/checkpoints/step-")}  # copies are nobody's links
    assert len(others) == 4
    assert snapshot(place) == {name: entry for name, entry in before.items() if name not in names | others}


def test_every_run_beside_a_cache_is_asked(cli: Cli, place: Path, tiny_dance: Path) -> None:
    """Also those that were not named: one that is running, one whose data are away, and one that cannot be read."""
    shutil.copytree("runs/long-001", "runs/other")
    open_dataset(tiny_dance, (8, 8), Path("runs/.cache"))
    caches = sorted(Path("runs/.cache").iterdir())
    config = Path("runs/other/config.toml")
    resized = config.read_text().replace("size = [16, 16]", "size = [8, 8]")
    assert resized != config.read_text()

    def kept(*arguments: str) -> bool:
        assert cli("runs", "prune", "long-001", *arguments).code == 0
        return sorted(Path("runs/.cache").iterdir()) == caches

    for folder in ("runs/other", "runs"):  # a training, and a study
        with lock.holding(Path(folder)):
            assert kept("--yes")
    config.write_text(resized)
    assert kept("--yes"), "it is in use"
    config.write_text(resized.replace(str(tiny_dance), "/away/dance"))
    assert kept("--yes"), "its data may come back"
    config.write_text("[kl]\ntpye = 1\n")
    assert kept("--yes"), "it does not tell"
    shutil.rmtree("runs/other")
    assert not kept("--yes")


def test_rm_removes_a_run_and_leaves_what_is_not_its_own(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("evaluate", "long-001").code == 0
    before = snapshot(place)
    unasked = cli("runs", "rm", "long-001")
    assert unasked.code == 2 and "--yes" in unasked.err
    with lock.holding(Path("runs/long-001")):
        used = cli("runs", "rm", "long-001", "--yes")
        assert used.code == 2 and f"in use by process {os.getpid()}" in used.err
    put("runs/app/config.toml")
    Path("runs/link").symlink_to(place / "runs/long-001")
    for name, says in (
        ("runs/app", "was not made by vidcvae"),
        ("runs/link", "is a link"),
        ("lnog-001", "Did you mean"),
    ):
        refused = cli("runs", "rm", "long-001", name, "--yes")
        assert refused.code in (2, 4) and says in refused.err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for answer, gone in (("n\n", False), ("y\n", True)):
        monkeypatch.setattr("typer.confirm", lambda question, answer=answer: answer == "y\n")
        put("runs/long-001/notes.txt")
        assert ("runs/app/config.toml" in snapshot(place)) and set(before) <= set(snapshot(place))
        done = cli("runs", "rm", "long-001")
        assert done.code == 0 and Path("runs/long-001/config.toml").exists() != gone, done.err
    assert sorted(snapshot(Path("runs/long-001"))) == ["notes.txt"] and "still holds" in done.err
    run = create_run("gone").path  # nothing but run.json
    assert cli("runs", "rm", run.name, "--yes").code == 0 and not run.exists()


def test_every_file_that_vidcvae_writes_into_a_run_is_known_as_its_own(
    cli: Cli, workplace: Path, tiny_dance: Path
) -> None:
    options = [*TINY, "--precision", "auto", "--epochs", "1", "--tensorboard", "--run", "r"]
    for line in (["train", tiny_dance, *options], ["report", "r", "--drift", "--no-videos"]):
        assert (done := cli(*line)).code == 0, done.err
    assert {"precision.json", "tensorboard", "scores"} <= {path.name for path in Path("r").iterdir()}
    assert upkeep.foreign(RunFolder(Path("r"))) == []
    assert cli("runs", "rm", "r", "--yes").err == "" and not Path("r").exists()


def test_a_folder_of_runs_is_not_mistaken_for_one(cli: Cli, place: Path) -> None:
    shutil.copytree("runs/long-001", "runs/kl/a")
    refused = cli("runs", "rm", "kl", "--yes")
    assert refused.code == 2 and "runs/kl holds 1 run." in refused.err
    assert "vidcvae runs rm runs/kl/*" in refused.err and Path("runs/kl/a/config.toml").exists()


def test_every_checkpoint_of_a_run_is_verified(cli: Cli, place: Path) -> None:
    """Not only the one that other commands would load."""
    done = cli("checkpoint", "verify", "long-001")
    assert done.code == 0
    assert all(f"{path}: good" in done.out for path in Path("runs/long-001/checkpoints").glob("*.safetensors"))
    old = sorted(Path("runs/long-001/checkpoints").glob("step-*.safetensors"))[0]
    old.write_bytes(old.read_bytes()[:-100])
    done = cli("checkpoint", "verify", "long-001")
    assert done.code == 4 and f"{old} is damaged" in done.err


def test_the_newest_run_is_the_newest_with_a_checkpoint(cli: Cli, place: Path) -> None:
    failed = failed_start("failed-001")
    os.utime(failed / "config.toml", (1 << 31, 1 << 31))
    assert "runs/long-001" in cli("runs", "show").out
    assert cli("evaluate").code == 0
    shutil.rmtree("runs/long-001")
    assert "runs/failed-001: no checkpoint" in cli("runs", "show").out
    done = cli("evaluate")
    assert done.code == 4 and "has no checkpoint yet" in done.err


def test_a_training_that_begins_this_moment_is_no_failed_start(cli: Cli, place: Path) -> None:
    run = create_run("new")
    assert cli("runs", "prune", "--yes").code == 0 and run.info.exists()
    os.utime(run.info, (1, 1))
    assert "runs/new-001" in cli("runs", "prune", "--yes").out and not run.path.exists()
