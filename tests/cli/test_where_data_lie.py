"""Datasets, runs and current folders that move; data without validation; and commands that can be pasted."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from vidcvae.data import images, pose_folder
from vidcvae.scenes import dancing, pushing

from .conftest import TINY, Cli, Result

pytestmark = pytest.mark.usefixtures("workplace")


def next_commands(done: Result) -> list[list[str]]:
    """The arguments in the "Next:" lines, as a shell takes them."""
    lines = re.findall(r"^Next: vidcvae (.*)$", done.out + done.err, re.MULTILINE)
    assert lines
    return [shlex.split(line) for line in lines]


def train(cli: Cli, data: object, *more: object) -> Result:
    done = cli("train", data, *TINY, "--epochs", 1, *more)
    assert done.code == 0, done.err
    return done


def test_what_to_type_next_can_be_pasted_though_names_have_spaces(cli: Cli, tiny_dance: Path) -> None:
    data = Path("my data/it's a dance")
    shutil.copytree(tiny_dance, data)
    done = train(cli, data, "--run", "my runs/a b")
    typed = next_commands(done) + next_commands(cli("runs", "show", "my runs/a b"))
    assert [words[0] for words in typed[:3]] == ["evaluate", "plot", "generate"]
    assert [words for words in typed if words[0] in ("plot", "resume")] == [
        ["plot", "loss", "my runs/a b"], ["plot", "loss", "my runs/a b"],
        ["resume", "my runs/a b", "--more-epochs", "10"],
    ]  # fmt: skip
    for words in (typed[0], typed[2]):
        assert cli(*words).code == 0, words
    refused = cli("train", data, "--run", "my runs/a b")
    (hint,) = re.findall(r"vidcvae (resume .*)$", refused.err, re.MULTILINE)
    assert shlex.split(hint) == ["resume", "my runs/a b"]


def test_robot_pushing_says_next_what_can_be_pasted(cli: Cli) -> None:
    pushing.write_folder(pushing.push(2, 1, 1, 6, 0), Path("a push"))
    small = ("backbone=dcgan64", "frame_dim=4", "latent_dim=2", "hidden_dim=8")
    model = [word for text in small for word in ("--set", f"model.{text}")]
    steps = ("--epochs", 1, "--set", "training.steps_per_epoch=1", "--clip-length", 4, "--batch-size", 2)
    done = cli("train", "a push", "--preset", "svg-bair", *model, *steps, "--plain")
    assert done.code == 0, done.err
    (video,) = [words for words in next_commands(done) if words[0] == "generate"]
    assert cli(*video, "-o", "x.gif").code == 0


def test_data_without_validation_is_told_before_and_after(cli: Cli, tiny_dance: Path) -> None:
    shutil.copytree(tiny_dance / "train", "data/train")
    for done in (cli("train", "data", *TINY, "--epochs", 1, "--dry-run"), train(cli, "data", "--run", "r")):
        assert "data has no val split: nothing is validated" in done.err and "--split train" in done.err
    score, _, video = next_commands(done)
    assert score == ["evaluate", "r", "--split", "train"]
    assert cli(*score).code == 0 and cli(*video).code == 0
    assert "evaluate" not in cli("runs", "show", "r").out
    refused = cli("evaluate", "r")
    assert refused.code == 4 and "It has train (--split train, or other data: --data DATASET)" in refused.err
    assert "no val split" not in train(cli, "data", "--set", "validation.every=0").err


def test_a_model_that_is_not_for_the_data_makes_no_run(cli: Cli, tiny_dance: Path) -> None:
    pushing.write_folder(pushing.push(1, 1, 0, 6, 0), Path("push"))
    short = Path("short")
    shutil.copytree(tiny_dance, short)
    for part in ("val_img", "val_label"):
        for number in range(1, 8):
            (short / "val" / part / f"{number}.png").unlink()
    wrong: list[tuple[tuple[object, ...], str]] = [
        (("push", "--preset", "course", "--clip-length", 4), "has no poses, but the model is conditioned on pose"),
        ((tiny_dance, "--preset", "svg-bair", "--clip-length", 4), r"has no actions\.csv, but the model"),
        ((short, *TINY), r"val: sequence 0-0 has 1 frame with truth, of which 1 is given"),
    ]
    for arguments, message in wrong:
        for more in ((), ("--dry-run",)):
            refused = cli("train", *arguments, *more)
            assert refused.code == 4 and re.search(message, refused.err), refused.err
    assert not Path("runs").exists() or not [p for p in Path("runs").iterdir() if p.name != ".cache"]


def test_the_kind_of_the_data_is_looked_at_before_they_are_read(
    cli: Cli, tiny_dance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushing.write_folder(pushing.push(1, 1, 0, 6, 0), Path("push"))
    monkeypatch.setattr(images, "open_image", lambda path: pytest.fail(f"{path} was read"))
    for command in (("train", "push", "--preset", "anchor-cpu"), ("sweep", "push", "--preset", "course", "--vary",
                    "kl.type=none")):  # fmt: skip
        refused = cli(*command)
        assert refused.code == 4 and "push has no poses, but the model is conditioned on pose" in refused.err
    refused = cli("train", tiny_dance, "--preset", "svg-bair")
    assert refused.code == 4 and "has no actions.csv, but the model is conditioned on actions" in refused.err


def test_weights_that_do_not_fit_make_no_run(cli: Cli, tiny_dance: Path) -> None:
    train(cli, tiny_dance, "--run", "small")
    refused = cli("train", tiny_dance, *TINY, "--set", "model.frame_channels=16", "--init", "small", "--run", "r")
    assert refused.code == 4 and "is a checkpoint of another model" in refused.err
    assert not Path("r").exists()


def test_from_another_current_folder(cli: Cli, tiny_dance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_dance, "data")
    train(cli, "data", "--run", "runs/r")
    assert json.loads(Path("runs/r/run.json").read_text())["data"] == "data"
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert cli("evaluate", "../runs/r").code == 0
    assert cli("resume", "../runs/r", "--epochs", 2, "--plain").code == 0


def test_a_project_that_was_moved_as_a_whole(cli: Cli, tiny_dance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_dance, "old/data")
    monkeypatch.chdir("old")
    train(cli, "data", "--run", "runs/r")
    monkeypatch.chdir("..")
    Path("old").rename("new")
    assert cli("resume", "new/runs/r", "--epochs", 2, "--plain").code == 0
    monkeypatch.chdir("new")
    assert cli("evaluate", "runs/r").code == 0


def test_a_dataset_that_was_moved(cli: Cli, tiny_dance: Path) -> None:
    shutil.copytree(tiny_dance, "data")
    train(cli, "data", "--run", "runs/r")
    settings = Path("runs/r/config.toml").read_text()
    Path("data").rename("moved data")
    for command in (("evaluate", "r"), ("resume", "r", "--epochs", 2), ("plot", "drift", "r")):
        lost = cli(*command)
        assert (
            lost.code == 4 and "there is no dataset " in lost.err and "/data, which runs/r was trained on" in lost.err
        ), lost.err
        assert "vidcvae resume runs/r --data DATASET" in lost.err
    assert cli("evaluate", "r", "--data", "moved data").code == 0
    pose_folder.write_folder(dancing.dance(36, 8, 1, 0, (16, 16)), Path("other"))
    other = cli("resume", "r", "--epochs", 2, "--data", "other")
    assert (
        other.code == 4
        and "other is not the dataset that runs/r began with: it has 36 training frames in 1 sequence" in other.err
    )
    assert Path("runs/r/config.toml").read_text() == settings
    done = cli("resume", "r", "--epochs", 2, "--data", "moved data", "--plain")
    assert done.code == 0, done.err
    moved = [str(Path(name).absolute()) for name in ("data", "moved data")]
    assert f"data.path {moved[0]} -> {moved[1]}" in " ".join(done.err.split())
    assert cli("evaluate", "r").code == 0, "the run knows from now on"
    assert cli("evaluate", "runs/r/checkpoints/best.safetensors").code == 0


def test_a_dataset_that_is_missing_is_not_to_be_drawn_under_its_name(cli: Cli) -> None:
    refused = cli("train", "squats", *TINY)
    assert refused.code == 4 and "there is no dataset squats" in refused.err
    assert "vidcvae dataset synth dance -o my-dance" in refused.err
