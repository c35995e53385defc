"""``vidcvae dataset``: what a person types, what is printed, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import pytest
from typer.testing import CliRunner

from vidcvae.cli import dataset
from vidcvae.errors import DataError, UsageError, VidcvaeError
from vidcvae.scenes import dancing, pushing

runner = CliRunner()


def run(*arguments: str | Path) -> str:
    """The standard output of a command that succeeds; its error, as an exception, of one that does not."""
    result = runner.invoke(dataset.app, [str(a) for a in arguments])
    if result.exception:
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "dance"
    run("synth", "dance", out, "--frames", "130", "--val", "10", "--test", "1", "--seed", "3")
    return out


def test_synth_writes_the_courses_layout(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["dataset.toml", "test", "train", "val"]
    assert (
        len(list((folder / "train/train_img").iterdir())) == len(list((folder / "train/train_label").iterdir())) == 130
    )
    assert [p.name for p in (folder / "test/test_img/0").iterdir()] == ["0.png"]
    assert len(list((folder / "test/test_label/0").iterdir())) == 10
    assert iio.imread(folder / "val/val_img/9.png").shape == (32, 64, 3)
    assert "starts = [0, 65]" in (folder / "dataset.toml").read_text()


def test_the_same_seed_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    run("synth", "dance", tmp_path / "a", "--frames", 130, "--val", 10, "--test", 1, "--seed", 3)
    for path in folder.rglob("*.*"):
        assert (tmp_path / "a" / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_inspect_for_a_person(folder: Path, tmp_path: Path) -> None:
    text = run("inspect", folder, "--preview", tmp_path / "sheet.png")
    assert "synthetic-dance: dance, image files, 32x64, 25 frames per second" in text
    assert "train sequences: 0-64 (65 frames, 65 poses), 65-129 (65 frames, 65 poses)" in text
    assert "32x64 (130)" in text and "RGB (130)" in text
    assert iio.imread(tmp_path / "sheet.png").shape[2] == 3
    assert "sheet.png, with 2 of 2 train, 1 of 1 val, 1 of 1 test sequences" in text


def test_pack_and_inspect_agree(folder: Path, tmp_path: Path) -> None:
    assert "train 130 frames in 2 sequences; val 10 frames in 1 sequence" in run("pack", folder, tmp_path / "pack")
    reports = [json.loads(run("inspect", root, "--json")) for root in (folder, tmp_path / "pack")]
    assert [r["layout"] for r in reports] == ["dance", "packed"]
    for split in ("train", "val", "test"):
        for measure in ("frames", "mean", "motion", "copy_first_psnr", "copy_previous_psnr", "stretches"):
            assert reports[0]["splits"][split][measure] == reports[1]["splits"][split][measure]


def test_pack_at_another_size(folder: Path, tmp_path: Path) -> None:
    run("pack", folder, tmp_path / "pack", "--size", "16x32")
    assert json.loads(run("inspect", tmp_path / "pack", "--json"))["size"] == [16, 32]


def test_synth_push(tmp_path: Path) -> None:
    run("synth", "push", tmp_path / "push", "--clips", 2, "--val", 1, "--test", 1, "--frames", 13)
    report = json.loads(run("inspect", tmp_path / "push", "--json"))
    assert report["splits"]["train"]["rows"] == {"action": 26, "position": 26}
    assert len(report["splits"]["train"]["ranges"]["action"][0]) == 4
    assert "copy last" in run("inspect", tmp_path / "push")


def test_faults_are_named_and_end_with_4(tmp_path: Path) -> None:
    run("synth", "dance", tmp_path / "d", "--frames", 8, "--val", 4, "--test", 0)
    (tmp_path / "d/train/train_label/3.png").unlink()
    cut = tmp_path / "d/val/val_img/2.png"
    cut.write_bytes(cut.read_bytes()[:200])
    for option in ([], ["--json"]):
        result = runner.invoke(
            dataset.app, ["inspect", str(tmp_path / "d"), *option, "--preview", str(tmp_path / "x.png")]
        )
        assert isinstance(result.exception, DataError) and result.exception.exit_code == 4
        assert "2 faults" in result.exception.message
        assert "train_img/3.png has no pose" in result.stdout and "val_img/2.png is damaged or cut off" in result.stdout
        assert not (tmp_path / "x.png").exists()


WRONG: dict[str, tuple[list[str], type[VidcvaeError], str]] = {
    "no folder": (["inspect", "{tmp}/nowhere"], DataError, "there is no dataset .*nowhere"),
    "a GIF": (["inspect", "{tmp}/a.gif"], DataError, r"a\.gif is a GIF, but a dataset is a folder"),
    "an empty folder": (["pack", "{tmp}/empty", "{tmp}/out"], DataError, "not in any known layout"),
    "size": (["inspect", "{folder}", "--size", "32"], UsageError, "--size 32 is not a frame size"),
    "size not of 8": (["pack", "{folder}", "{tmp}/out", "--size", "30x64"], UsageError, "30x64.*multiples of 8"),
    "size 0": (["pack", "{folder}", "{tmp}/out", "--size", "0x64"], UsageError, "multiples of 8, from 8"),
    "out not empty": (["pack", "{folder}", "{tmp}"], UsageError, "is not an empty folder, nor half a pack"),
    "synth not empty": (["synth", "dance", "{tmp}"], UsageError, "is not an empty folder"),
    "out is a file": (["synth", "push", "{tmp}/a.gif"], UsageError, "is a file, not a folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(folder: Path, tmp_path: Path, case: str) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    (tmp_path / "empty").mkdir()
    arguments, error, message = WRONG[case]
    with pytest.raises(error, match=message) as caught:
        run(*(a.format(tmp=tmp_path, folder=folder) for a in arguments))
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--frames", "0"], ["--val", "-3"], ["--frames", "x"], ["--sed", "1"]])
def test_wrong_options_end_with_2(tmp_path: Path, arguments: list[str]) -> None:
    result = runner.invoke(dataset.app, ["synth", "dance", str(tmp_path / "out"), *arguments])
    error = result.exception  # an error of ours is given its exit code by main
    assert (error.exit_code if isinstance(error, UsageError) else result.exit_code) == 2
    assert not (tmp_path / "out").exists()


def test_help_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, vidcvae.cli.dataset; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["dance", "push"])
def test_a_target_that_cannot_be_written_is_refused_before_the_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "file").write_text("")
    for drawing in (dancing.dance, pushing.push):
        monkeypatch.setattr(drawing.__module__ + "." + drawing.__name__, lambda *_: pytest.fail("drawn before"))
    with pytest.raises(DataError, match=r"cannot write .*file/out: .*file is not a folder"):
        run("synth", kind, tmp_path / "file/out")
