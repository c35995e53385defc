"""Every command takes a dataset at its own size, and says what another size does to the picture."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import vidcvae
from vidcvae import config as settings
from vidcvae.storage import checkpoint

from .. import video_clips as clips
from .conftest import TINY, Cli

pytestmark = pytest.mark.usefixtures("workplace")

UNSIZED = (*(word for word in TINY[2:] if word != "--plain"), "--epochs", 1, "--set", "training.steps_per_epoch=1",
           "--set", "validation.every=0")  # fmt: skip
SHRUNK = "24x48, taken at 16x16: 67% of the height and 33% of the width, so that everything looks 2 times as tall"


@pytest.fixture
def mine(cli: Cli) -> Path:
    """A person's clip, imported at 24x48."""
    clip = clips.make_clip(24, (48, 96))
    clips.write_video(Path("clip.mp4"), clip.frames)
    clips.write_openpose(Path("openpose"), clip.joints)
    command = ("dataset", "import", "video", "clip.mp4", "--keypoints", "openpose", "-o", "mine", "--size", "24x48")
    done = cli(*command, "--val-fraction", 0.3)
    assert done.code == 0, done.err
    assert "Next: vidcvae train mine\n" in done.err and "Next: vidcvae dataset inspect mine --preview" in done.err
    return Path("mine")


def forget(dataset: Path) -> None:
    """Make a dataset.toml say what it said before datasets knew their size."""
    file = dataset / "dataset.toml"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("size")))


def said(text: str) -> str:
    return " ".join(text.split())


def test_what_is_imported_is_inspected_packed_and_trained_at_its_size(cli: Cli, mine: Path) -> None:
    done = cli("dataset", "inspect", mine)
    assert "image files, 24x48," in done.out and "taken at" not in said(done.out)
    assert json.loads(cli("dataset", "inspect", mine, "--json").out)["size"] == [24, 48]
    assert cli("dataset", "pack", mine, "-o", "pack").code == 0
    assert "packed, 24x48," in cli("dataset", "inspect", "pack").out

    for data in (mine, "pack"):
        done = cli("train", data, *UNSIZED, "--run", f"run-{data}")
        assert done.code == 0 and "taken at" not in said(done.err), done.err
        saved = tomllib.loads(Path(f"run-{data}/config.toml").read_text())
        assert saved["data"]["size"] == [24, 48], "the saved config has numbers"
        meta = checkpoint.read(Path(f"run-{data}/checkpoints/last.safetensors")).meta
        assert meta.config["data"]["size"] == [24, 48]
    done = cli("evaluate", "run-mine", "--json")
    assert done.code == 0 and json.loads(done.out)["protocol"]["size"] == "24x48"
    poses = ("--first-frame", "mine/test/test_img/0/0.png", "--poses", "mine/test/test_label/0")
    assert cli("generate", "run-mine", *poses, "-o", "out.gif", "--upscale", 1).code == 0
    assert cli("export", "run-mine", "-o", "out.csv").code == 0
    assert len(Path("out.csv").read_text().splitlines()[1].split(",")) == 1 + 3 * 24 * 48
    assert cli("resume", "run-mine", "--more-epochs", 1).code == 0


def test_a_dry_run_and_studies_plan_with_the_dataset_s_size(cli: Cli, mine: Path) -> None:
    done = cli("train", mine, *UNSIZED, "--dry-run", "--json")
    assert json.loads(done.out)["config"]["data"]["size"] == [24, 48]
    study = ("--set", "model.decoder_channels=8", "--set", "training.clip_length=4", "--device", "cpu")
    done = cli("sweep", mine, "--vary", "kl.type=none,cyclical", *study, "--epochs", 1, "-o", "study", "--set",
               "training.steps_per_epoch=1", "--set", "model.frame_channels=8")  # fmt: skip
    assert done.code == 0, done.err
    plan = json.loads(Path("study/sweep.json").read_text())
    assert {tuple(run["data"]["size"]) for run in plan["runs"].values()} == {(24, 48)}
    done = cli("ablate", mine, "--steps", 2, *study[2:], "--set", "data.size=16x16", "--dry-run")
    assert done.code == 0 and said(done.err).count(SHRUNK) == 1, done.err
    assert "--set data.size=24x48 takes them as they are" in said(done.err)


def test_another_size_says_what_it_does_to_the_picture(cli: Cli, mine: Path) -> None:
    for command in (("train", mine, *TINY, "--dry-run"), ("dataset", "pack", mine, "-o", "pack", "--size", "16x16"),
                    ("dataset", "inspect", mine, "--size", "16x16")):  # fmt: skip
        done = cli(*command)
        assert done.code == 0, done.err
        assert said(done.out + done.err).count(SHRUNK) == 1, done.err
        assert "--size 24x48 takes them as they are" in said(done.out + done.err)
    done = cli("train", mine, *TINY, "--epochs", 1, "--set", "training.steps_per_epoch=1", "--run", "small")
    assert done.code == 0 and said(done.err).count(SHRUNK) == 1, done.err
    done = cli("evaluate", "small")  # told when it was trained
    assert done.code == 0 and "taken at" not in said(done.err), done.err
    done = cli("evaluate", "small", "--data", mine)
    assert done.code == 0 and said(done.err).count(SHRUNK) == 1 and "takes them as they are" not in said(done.err)


def test_a_folder_that_says_nothing_is_taken_at_the_lab_s_size_with_a_word(cli: Cli, mine: Path) -> None:
    forget(mine)
    sentence = (
        "The image files are 24x48, and dataset.toml says no size: taken at 32x64, enlarged to 133%, which adds no "
        "detail. --size 24x48 takes them as they are."
    )
    done = cli("train", mine, *UNSIZED, "--dry-run")
    assert done.code == 0 and said(done.err).count(sentence) == 1, done.err
    assert "size = [32, 64]" in done.out
    done = cli("dataset", "inspect", mine)
    assert "image files, 32x64," in done.out and sentence in said(done.out)


def test_svg_needs_no_size(cli: Cli) -> None:
    assert settings.resolve({"model": {"name": "svg-lp"}, "training": {"past": 2}}).data.frame_size == (64, 64)
    done = cli("train", "synthetic:push", "--model", "svg-lp", "--dry-run")
    assert done.code == 0 and "size = [64, 64]" in done.out


def test_python_trains_data_at_their_own_size(mine: Path) -> None:
    small = {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8}
    training = {"epochs": 1, "steps_per_epoch": 1, "clip_length": 4, "device": "cpu"}
    config = vidcvae.resolve({"model": small, "training": training, "validation": {"every": 0}})
    vidcvae.train(config, vidcvae.open_dataset(mine), "run")
    assert vidcvae.load_model("run").config.data.frame_size == (24, 48)


def test_the_default_is_told_in_words(cli: Cli) -> None:
    assert "dataset's size" in said(cli("config", "explain", "data.size").out)
    assert 'default:  "auto"' in cli("config", "explain", "data.size").out
    assert 'size = "auto"' in cli("config", "show").out
    assert cli("config", "init", "-o", "my.toml").code == 0
    assert '# size = "auto"' in Path("my.toml").read_text()
    assert "auto, or the preset's" in said(cli("train", "--help").out)
