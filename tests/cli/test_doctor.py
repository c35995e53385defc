"""``vidcvae doctor``: says what is there, what is broken, and what mends it."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from vidcvae.device import processor
from vidcvae.workflow import doctor

from .conftest import Cli

pytestmark = pytest.mark.usefixtures("workplace")


def checks(cli: Cli) -> tuple[int, dict[str, dict[str, Any]]]:
    done = cli("doctor", "--json")
    report = json.loads(done.out)
    assert report["ok"] is (done.code == 0)
    return done.code, {check["name"]: check for check in report["checks"]}


def test_a_sound_machine_passes(cli: Cli, tiny_dance: Path) -> None:
    Path("my-dance").symlink_to(tiny_dance)
    code, found = checks(cli)
    assert code == 0
    assert found["python"]["value"].startswith(platform.python_version())
    assert found["torch"]["value"] == torch.__version__
    assert f"{torch.get_num_threads()} thread" in found["threads"]["value"]
    assert "my-dance (dance)" in found["data"]["value"]
    assert not Path("runs").exists()  # looking changes nothing
    text = cli("doctor").out
    assert "good   torch" in text and len(text.splitlines()) >= len(found)


def test_every_extra_of_the_package_is_looked_for(cli: Cli) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = {name: needs for name, needs in project["optional-dependencies"].items() if name != "dev"}
    _, found = checks(cli)
    for extra, (requirement,) in extras.items():
        check = found[re.split("[^a-z]", requirement)[0]]
        missing = check["value"] == "not installed"
        assert check["state"] == ("note" if missing else "good")
        assert check["mend"] == (f"pip install 'vidcvae[{extra}]'" if missing else "")


def test_every_problem_has_a_sentence_and_a_command(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """No PyTorch and no matplotlib, a folder that cannot be written, a full disk, and a bad project file."""
    real = importlib.import_module

    def fail(name: str, *rest: Any) -> Any:
        if name in ("torch", "matplotlib"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    def refuse(**options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: _Usage(free=1000))
    Path("vidcvae.toml").write_text("[kl]\ntpye = 'none'\n")
    code, found = checks(cli)
    assert code == 1
    broken = {name for name, check in found.items() if check["state"] == "broken"}
    assert broken == {"torch", "matplotlib", "disk", "run folder", "vidcvae.toml"}
    for check in found.values():
        assert check["state"] == "good" or (check["says"][-1] in ".?" and check["mend"])
        assert "\n" not in check["says"]
    assert "kl.tpye" in found["vidcvae.toml"]["says"]


def test_a_loaded_machine_is_told_about_threads(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 1.0, 1.0))
    code, found = checks(cli)
    assert code == 0 and found["threads"]["state"] == "note"
    assert found["threads"]["mend"] == "OMP_NUM_THREADS=1 vidcvae train ..."
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 1.0, 1.0))
    assert checks(cli)[1]["threads"]["state"] == "good"


def test_what_auto_has_measured_is_told(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "nothing yet" in checks(cli)[1]["precision"]["value"]
    found = {"precision": "bf16", "threads": 2, "seconds": {"float32, 2 threads": 0.2, "bf16, 2 threads": 0.1}}
    (tmp_path / "vidcvae").mkdir()
    (tmp_path / "vidcvae" / "speed.json").write_text(json.dumps({f"svg-fp 64x64 training, {processor()}, ab": found}))
    said = cli("doctor").out
    assert "auto, svg-fp 64x64 training: bf16, 2 threads (float32, 2 threads 200 ms; bf16, 2 threads 100 ms)" in said
    assert f"1 measurement, in {tmp_path}" in said


def test_one_look_that_fails_hides_no_other(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("broken driver")

    monkeypatch.setattr(doctor, "_driver", fail)
    code, found = checks(cli)
    assert code == 0 and "broken driver" in found["gpu"]["says"]
    assert "disk" in found and "torch" in found


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free
