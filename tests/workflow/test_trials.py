"""A study from Python: it is planned as the command line plans it, and tells nobody but its voice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidcvae.workflow import trials
from vidcvae.workflow.voice import Voice

from ..cli.conftest import tiny_dance  # noqa: F401 - a fixture


class Heard(Voice):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_a_study_that_is_planned_from_python_tells_its_voice_alone(
    tiny_dance: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, variants = trials.every_combination([("kl.cycles", ["1", "2"]), ("optimizer.lr", ["0.1"])])
    assert name == "sweep-cycles-lr"
    assert [variant.settings for variant in variants] == [
        ("kl.cycles=1", "optimizer.lr=0.1"),
        ("kl.cycles=2", "optimizer.lr=0.1"),
    ]
    small = ("data.size=[16,16]", "training.clip_length=4", "training.batch_size=4", "training.epochs=1")
    study = trials.plan(tmp_path / "s", trials.Common(str(tiny_dance), None, None, small), variants, 1)
    heard = Heard()
    planned = trials.prepare(tmp_path / "s", study, command="python study.py", voice=heard)
    paths = [str(tmp_path / "s" / run) for run in ("cycles-1_lr-0.1", "cycles-2_lr-0.1")]
    assert planned == [{"run": path, "epochs": 1, "steps": 3, "minutes": None} for path in paths]
    assert any(text.startswith("cycles-1_lr-0.1: beta never reaches") for text in heard.warnings)
    assert json.loads((tmp_path / "s/sweep.json").read_text())["command"] == "python study.py"
    assert capsys.readouterr() == ("", "")
