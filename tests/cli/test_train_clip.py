"""``vidcvae train CLIP``: one command from a video to a run, whose dataset the other commands then find."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vidcvae import config as settings
from vidcvae.data import pose_folder
from vidcvae.workflow import own_clip

from .. import video_clips as clips
from .conftest import TINY, Cli

pytestmark = pytest.mark.usefixtures("workplace")

SMALL = ("--preset", "course", *TINY[2:], "--epochs", 1, "--keypoints", "k.json")


@pytest.fixture
def clip(workplace: Path) -> clips.Clip:
    made = clips.make_clip(48, (40, 80))
    clips.write_video(Path("me too.mp4"), made.frames)
    clips.write_coco(Path("k.json"), made.joints)
    return made


def test_a_clip_is_trained_on_and_known_to_the_other_commands(cli: Cli, clip: clips.Clip) -> None:
    done = cli("train", "me too.mp4", *SMALL, "--size", "16x32", "--run", "here/run")
    assert done.code == 0, done.err
    assert "here/me-too-data: made from me too.mp4; train 31 frames, val 16 frames, test 1 frame" in done.err
    with Image.open("here/me-too-data-preview.png") as preview:
        assert preview.size == (960, 480)
    config = settings.resolve(settings.read_toml(Path("here/run/config.toml")))
    assert config.data.path == str(Path("here/me-too-data").absolute())
    assert tuple(config.data.size) == (16, 32)
    assert cli("evaluate", "here/run").code == 0
    assert cli("resume", "here/run", "--more-epochs", 1, "--plain").code == 0
    assert cli("runs", "rm", "here/run", "--yes").code == 0
    assert not Path("here/run").exists() and Path("here/me-too-data").is_dir()  # other runs may be trained on it


def test_the_same_clip_with_the_same_options_is_imported_once(cli: Cli, clip: clips.Clip) -> None:
    folder = Path("runs/me-too-data")
    assert cli("train", "me too.mp4", *SMALL, "--size", "16x32").code == 0
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    again = cli("train", "me too.mp4", *SMALL, "--size", "16x32", "--lr", "1e-4")
    assert again.code == 0 and f"{folder}: used again" in again.err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == made
    other = cli("train", "me too.mp4", *SMALL, "--size", "16x32", "--crop", "person")
    assert other.code == 0 and "runs/me-too-data-2: made from" in other.err
    clips.write_coco(Path("k.json"), clip.joints + 3)  # the joints were found anew
    other = cli("train", "me too.mp4", *SMALL, "--size", "16x32")
    assert other.code == 0 and "runs/me-too-data-3: made from" in other.err
    assert sorted(path.name for path in Path("runs").glob("course-*")) == [f"course-00{n}" for n in (1, 2, 3, 4)]


def test_a_dry_run_tells_and_makes_nothing(cli: Cli, clip: clips.Clip) -> None:
    """The size is the clip's shape, 2:1 in 2,048 pixels; the preset is clip, or anchor-cpu for small frames."""
    done = cli("train", "me too.mp4", "--keypoints", "k.json", "--size", "small", "--crop", "none", "--dry-run")
    assert done.code == 0, done.err
    assert "size = [32, 64]" in done.out and 'name = "anchor-cvae"' in done.out
    assert "no preset named: training with --preset anchor-cpu" in done.err and "patch = 2" in done.out
    assert not Path("runs").exists()
    done = cli("train", "me too.mp4", "--keypoints", "k.json", "--dry-run")
    assert "no preset named: training with --preset clip" in done.err and "patch = 4" in done.out
    set_ = ("--set", "data.size=24x48")
    done = cli("train", "me too.mp4", "--keypoints", "k.json", *set_, "--dry-run", "--json")
    assert json.loads(done.out)["config"]["data"]["size"] == [24, 48]


def test_an_import_that_is_broken_off_leaves_nothing(
    cli: Cli, clip: clips.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        (Path("runs/me-too-data") / "train").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(pose_folder, "write_folder", stop)
    assert cli("train", "me too.mp4", *SMALL).code == 130
    assert not Path("runs/me-too-data").exists()


WRONG = {
    "no joints": (("me too.mp4",), 2, "pip install 'vidcvae[pose]'"),
    "no joints, and where to get them": (("me too.mp4",), 2, "--keypoints FILE"),
    "no such clip": (("nowhere.MP4", "--keypoints", "k.json"), 4, "there is no video nowhere.MP4"),
    "a size": (("me too.mp4", "--keypoints", "k.json", "--size", "larg"), 2, "--size larg is not a frame size"),
    "no clip": (("synthetic:dance", "--keypoints", "k.json"), 2, "synthetic:dance is not a clip"),
    "a model of pushing": (
        ("me too.mp4", "--keypoints", "k.json", "--preset", "svg-bair"), 2, "is not a model of poses"),
    "a run that is there": (("me too.mp4", "--keypoints", "k.json", "--run", "full"), 2, "already holds something"),
}  # fmt: skip


def test_wrong_input_is_one_sentence_and_makes_nothing(cli: Cli, clip: clips.Clip) -> None:
    Path("full").mkdir()
    Path("full/a").touch()
    before = set(Path.cwd().rglob("*"))
    for case, (arguments, code, words) in WRONG.items():
        done = cli("train", *arguments)
        assert (done.code, words in done.err) == (code, True), (case, done)
        assert "Traceback" not in done.err and set(Path.cwd().rglob("*")) == before, case


def test_what_is_a_clip() -> None:
    Path("folder.mp4").mkdir()
    assert [own_clip.is_clip(p) for p in ("a.mp4", "b.GIF", "folder.mp4", "c", "d.toml")] == [True, True] + [False] * 3
