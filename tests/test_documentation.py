"""Every command in README and docs is run here, on tiny data; every Python example too.

Fenced ``bash`` blocks are taken line by line. ``<!-- not run: why -->`` before a block, or ``# not run: why`` after a
command, excuses it; how many there are is counted.
"""

from __future__ import annotations

import glob
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vidcvae.__main__ import main
from vidcvae.cli import ui

from . import video_clips as clips
from .conftest import SHARED

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = 9  # the two commands with set-up, BAIR, which is 30 GB, what needs a GPU, and five that serve a page

# What makes a command small: more options, of which the last one counts
DANCE_MODEL = "--set model.frame_channels=8 --set model.pose_channels=4 --set model.latent_channels=4"
SMALL_TRAINING = "--size 16x16 --epochs 1 --clip-length 4 --batch-size 4 --device cpu --plain"
SMALL = [
    (r"dataset synth dance", "--frames 40 --val 12 --test 1 --size 16x16"),
    (r"dataset synth push", "--clips 4 --val 2 --frames 12"),
    (r"dataset import video", "--size 16x16"),
    (r"train .*(svg-bair|svg-lp)",
     "--epochs 1 --batch-size 2 --device cpu --plain --set training.steps_per_epoch=1 --set model.backbone=dcgan64"
     " --set model.frame_dim=8 --set model.latent_dim=4 --set model.hidden_dim=8"),
    (r"train .*(anchor|clip)", f"{SMALL_TRAINING} --set model.channels=8 --set training.clip_length_start=0"),
    (r"train ", f"{SMALL_TRAINING} {DANCE_MODEL} --set model.decoder_channels=8"),
    (r"sweep ",
     f"--epochs 1 {DANCE_MODEL} --set model.decoder_channels=8 --set data.size=16x16 --set training.clip_length=4"
     " --set training.device=cpu --set training.batch_size=4"),
    (r"resume .*--epochs", "--epochs 2 --device cpu --plain"),
    (r"evaluate .*--samples", "--samples 3"),
]  # fmt: skip


class Command(NamedTuple):
    line: str
    not_run: str = ""


def commands(text: str) -> Iterator[Command]:
    """Every line of every ``bash`` block, with the excuse it may have."""
    for excuse, block in re.findall(
        r"(?:<!-- not run: (.*?) -->\n(?:<!--.*?-->\n)*)?```bash\n(.*?)```", text, re.DOTALL
    ):
        for line in block.replace("\\\n", " ").splitlines():
            code, _, comment = line.partition(" #")
            if code.strip():
                own = re.match(r" not run: (.*)", comment)
                yield Command(code.strip(), own[1] if own else excuse)


def shrunk(line: str) -> list[str]:
    """The words of a command after ``vidcvae``, wildcards expanded, with the options that make it small."""
    words = shlex.split(line)
    while re.fullmatch(r"\w+=\S*", words[0]):  # OMP_NUM_THREADS=1 vidcvae ...
        words.pop(0)
    assert words.pop(0) == "vidcvae", f"only vidcvae commands can be run: {line}"
    words = [w for word in words for w in (sorted(glob.glob(word)) if "*" in word else [word])]  # noqa: PTH207
    more = next((options for pattern, options in SMALL if re.search(rf"vidcvae {pattern}", line)), "")
    return words + shlex.split(more)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[str], None]]:
    """Run a documented command in a sandbox folder; it must succeed."""
    monkeypatch.chdir(tmp_path)

    def go(line: str) -> None:
        monkeypatch.setattr(sys, "argv", ["vidcvae", *shrunk(line)])
        capsys.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as leaving:
            code = leaving.code or 0
        assert code == 0, f"{line}\n{capsys.readouterr()}"

    yield go
    ui.speak("normal")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_documented_command_runs(page: Path, run: Callable[[str], None], tmp_path: Path) -> None:
    text = page.read_text()
    found = [command for command in commands(text) if not command.not_run]
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, joints in (("clip", "keypoints"), ("other", "other")):
        clip = clips.make_clip(40, (32, 32))
        clips.write_video(tmp_path / f"{name}.mp4", clip.frames)
        clips.write_coco(tmp_path / f"{joints}.json", clip.joints)
    if page.stem == "README":
        if (SHARED / "golden").is_dir():
            shutil.copy(SHARED / "golden/course_pose.ckpt", tmp_path / "course.ckpt")
        else:
            found = [
                command
                for command in found
                if "course.ckpt" not in command.line and "course.safetensors" not in command.line
            ]
    elif found or examples:
        run("vidcvae dataset synth dance -o my-dance")
        run("vidcvae train my-dance --preset course")
    for command in found:
        run(command.line)
    for example in examples:
        exec(compile(example, page.name, "exec"), {})


def test_what_is_not_run_is_excused_and_counted() -> None:
    excused = [command for page in PAGES for command in commands(page.read_text()) if command.not_run]
    assert len(excused) == NOT_RUN, excused


def test_no_block_of_commands_escapes() -> None:
    """Commands stand in ``bash`` blocks; other blocks show files, formulas and Python."""
    for page in PAGES:
        kinds = re.findall(r"(?m)^```(\w*)$", page.read_text())
        assert set(kinds[::2]) <= {"bash", "toml", "python"}, page
        assert not re.findall(r"(?m)^\$ ", page.read_text()), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_commands_named_in_the_text_exist() -> None:
    """``vidcvae X Y`` in backticks and indented lines names a command that there is, with options that it has."""
    from .test_cli_surface import surface

    known = surface()
    for page in PAGES:
        text = page.read_text()
        examples = re.findall(r"(?m)^    (?:\w+=\S+ )?(?:torchrun .* )?(vidcvae [a-z].*)$", text)
        for quoted in [*re.findall(r"`(?:\w+=\S+ )?(vidcvae [a-z][^`]*)`", text), *examples]:
            words = re.sub(r"[][;]|&&.*", " ", quoted.partition("  #")[0]).split()
            path = words[0]
            for word in words[1:]:
                if f"{path} {word}" not in known:
                    break
                path += f" {word}"
            assert path != "vidcvae", f"{page.name}: {quoted}"
            options = {option for entry in known[path] for option in entry.split("|")}
            used = {word.partition("=")[0] for word in words if word.startswith("-")} - {"-h", "--help"}
            assert used <= options, f"{page.name}: {quoted}: {used - options}"


def test_settings_named_in_the_text_exist() -> None:
    from vidcvae.config import describe

    known = set(describe.known())
    sections = {name.partition(".")[0] for name in known}
    for page in PAGES:
        for section, key in re.findall(r"[`( ](\w+)\.(?!png)(\w+)(?==|`)", page.read_text()):
            if section in sections - {"data"} or f"{section}.{key}" in known:
                assert f"{section}.{key}" in known, f"{page.name}: {section}.{key}"
