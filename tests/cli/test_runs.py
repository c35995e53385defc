"""``vidcvae runs``: what there is, how far it came, and what can go."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from vidcvae.data import open_dataset
from vidcvae.storage import checkpoint, durable, lock
from vidcvae.storage.history import read_history

from .conftest import TINY, Cli


@pytest.fixture(scope="module")
def trained(tiny_dance: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/long-001``, a finished run of 4 epochs that kept every checkpoint."""
    import subprocess
    import sys

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
    assert run["step"] == checkpoint.read(Path("runs/long-001/checkpoints/last.safetensors")).meta["step"]
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
