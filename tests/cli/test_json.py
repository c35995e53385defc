"""With --json a command's standard output is JSON and nothing else; what is said to people goes to standard error."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.cli.conftest import TINY
from vidcvae.__main__ import main
from vidcvae.cli.app import app

LINES = ("train", "resume")  # one document a line, an event each
QUIET = tuple(word for word in TINY if word != "--plain")
SETTINGS = tuple(word for pair in itertools.pairwise(TINY) if pair[0] == "--set" for word in pair)
MOVING = ("--set", "kl.cycles=10", "--set", "kl.ratio=1.0")  # beta does not reach its stop: a warning
CASES: dict[str, list[tuple[object, ...]]] = {
    "train": [
        ("DATA", *QUIET, *MOVING, "--epochs", 1, "--run", "new"),
        ("DATA", *QUIET, *MOVING, "--dry-run"),
    ],
    "resume": [("copy", "--epochs", 2), ("copy",)],
    "evaluate": [("RUN",), (), ("RUN", "--latent", "all", "--elbo", "--importance-samples", 1, "-o", "score.json")],
    "compare": [("RUN", "RUN", "--csv", "table.csv"), ("RUN", "--evaluate")],
    "bench": [
        ("generate", "--model", "anchor-cvae", "--batch-size", 1, "--frames", 2, "--repeats", 1, "--size", "16x16"),
    ],
    "doctor": [()],
    "dataset inspect": [("DATA", "--preview", "sheet.png")],
    "plot drift": [("RUN",), ("RUN", "-o", "drift.png"), ("RUN", "--terminal"), ("RUN", "--age-test")],
    "checkpoint show": [("RUN",)],
    "config show": [(), ("RUN",), ("--preset", "course")],
    "config explain": [(), ("kl",), ("kl.ratio",)],
    "generate": [("RUN", "--first-frame", "DATA/test/test_img/0/0.png", "--poses", "DATA/val/val_label")],
    "export": [("RUN", "-o", "export.csv", "--split", "val", "--latent", "prior-mean")],
    "report": [("RUN", "-o", "page.html", "--no-videos")],
    "sweep": [("DATA", *SETTINGS, "--vary", "optimizer.lr=1e-3,1e-4", "--dry-run")],
    "ablate": [("DATA", "--steps", 4, "--dry-run")],
    "dataset pack": [("DATA", "-o", "packed")],
    "dataset synth dance": [("-o", "synth", "--frames", 8, "--val", 4, "--test", 1, "--size", "16x16")],
    "dataset synth push": [("-o", "push", "--clips", 2, "--val", 1, "--test", 1, "--frames", 3)],
    "plot loss": [("RUN",), ("RUN", "-o", "loss.png")],
    "plot psnr": [("RUN",)],
    "plot lr": [("RUN", "--terminal")],
    "plot kl": [("RUN",)],
    "plot schedule": [("--preset", "course")],
    "plot latents": [("RUN", "-o", "latents.png")],
    "checkpoint verify": [("RUN",)],
    "config check": [("--preset", "course")],
    "config init": [("-o", "new.toml")],
    "presets": [()],
    "runs list": [(), ("RUN",)],
    "runs prune": [(), ("copy", "--yes")],
    "runs rm": [("gone", "--yes")],
    "runs show": [(), ("RUN",)],
}


def _with_json(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, child in getattr(command, "commands", {}).items():
        yield from _with_json(child, (*path, name))
    if any("--json" in parameter.opts for parameter in command.params):
        yield " ".join(path)


# Time, a page, a clip and its joints, TFRecords, the course's checkpoint: their own tests read what they tell
NEEDS_MORE = {
    *("demo", "dataset import video", "dataset import frames", "dataset import gif", "dataset import bair"),
    *("checkpoint import", "play"),
}


def test_every_command_with_json_is_in_the_table() -> None:
    assert sorted(_with_json(typer.main.get_command(app))) == sorted([*CASES, *NEEDS_MORE])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_dance: Path) -> Path:
    """A current folder with a run of one epoch, and another to go on with."""
    folder = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("runs/one", "copy", "gone"):
            words = ["train", tiny_dance, *TINY, "--epochs", 1, "--run", name]
            patch.setattr(sys, "argv", ["vidcvae", *map(str, words)])
            with pytest.raises(SystemExit, match="0"):
                main()
    return folder


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        pytest.param(command, case, id=f"{command} {i}")
        for command, cases in CASES.items()
        for i, case in enumerate(cases)
    ],
)
def test_standard_output_is_json_and_nothing_else(
    command: str,
    arguments: tuple[object, ...],
    folder: Path,
    tiny_dance: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    places = {"DATA": str(tiny_dance), "RUN": "runs/one"}
    words = [re.sub(r"^DATA(?=$|/)|^RUN$", lambda found: places[found[0]], str(word)) for word in arguments]
    monkeypatch.setattr(sys, "argv", ["vidcvae", *command.split(), *words, "--json"])
    capfd.readouterr()
    try:
        main()
    except SystemExit as leaving:
        assert leaving.code in (0, None)
    said = capfd.readouterr()
    if command in LINES:
        assert all(isinstance(json.loads(line), dict) for line in said.out.splitlines())
        if MOVING[1] in arguments:
            assert "warning: beta never reaches" in said.err or '"kind": "warning"' in said.out
    else:
        assert isinstance(json.loads(said.out), dict)
    if "--dry-run" in arguments and command == "train":
        (plan,) = map(json.loads, said.out.splitlines())
        assert (plan["kind"], plan["config"]["data"]["size"], plan["steps"] > 0) == ("plan", [16, 16], True)
    for word, kept in itertools.pairwise(words):  # what was to be written is there
        if word in ("-o", "--csv", "--preview"):
            assert (folder / kept).stat().st_size
