"""What an earlier version made, today's reads: a run with its checkpoints, history and score, and a packed dataset.

made/README.md tells how they were made. They are never made anew: a version that cannot read them has broken a format.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.frozen import anchor, texts
from tests.frozen.place import MADE
from tests.nets.opened import opened

NUMBERS = json.loads((MADE / "numbers.json").read_text("utf-8"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with packed and runs/tiny."""
    shutil.copytree(MADE / "packed", tmp_path / "packed")
    shutil.copytree(MADE / "run", tmp_path / "runs" / "tiny")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "makes"),
    [
        ("runs show runs/tiny", ""),
        ("runs list", ""),
        ("config show runs/tiny", ""),
        ("checkpoint verify runs/tiny/checkpoints/best.safetensors", ""),
        ("checkpoint verify runs/tiny/checkpoints/last.safetensors", ""),
        ("evaluate runs/tiny", "runs/tiny/scores/val-zero.json"),
        ("compare runs/tiny", ""),
        ("plot loss runs/tiny -o loss.svg", "loss.svg"),
        ("plot psnr runs/tiny -o psnr.svg", "psnr.svg"),
        ("report runs/tiny --no-videos -o report.html", "report.html"),
        ("export runs/tiny --split val -o out.csv", "out.csv"),
        ("train packed --config runs/tiny/config.toml --init runs/tiny --epochs 1 --run new", "new/run.json"),
        ("dataset inspect packed", ""),
    ],
)
def test_today_s_commands_read_it(line: str, makes: str, place: Path) -> None:
    result = texts.run(line, place)
    assert (result.code, result.fault) == (0, ""), result.err
    if makes:
        assert opened(place / makes)


def test_a_run_goes_on_where_it_stands(place: Path) -> None:
    before = (place / "runs/tiny/history.jsonl").read_text()
    result = texts.run("resume runs/tiny --more-epochs 1 --plain", place)
    assert result.code == 0, result.err + result.fault
    assert (place / "runs/tiny/history.jsonl").read_text().startswith(before)
    shown = _json("checkpoint show runs/tiny/checkpoints/last.safetensors", place)
    assert shown["epoch"] == NUMBERS["epoch"] + 1 and shown["step"] > NUMBERS["step"]


@pytest.mark.parametrize("name", ["best", "last"])
def test_the_weights_are_those_that_were_kept(name: str, place: Path) -> None:
    shown = _json(f"checkpoint show runs/tiny/checkpoints/{name}.safetensors", place)
    assert shown["digest"] == NUMBERS["digest"][name]
    assert shown["sizes"]["model"]["numbers"] == NUMBERS["parameters"]


@pytest.mark.parametrize("latent", ["zero", "posterior"])
def test_the_score_is_what_it_was(latent: str, place: Path) -> None:
    scores = _json(f"evaluate runs/tiny --latent {latent} --device cpu", place)
    assert scores["psnr_mean"] == pytest.approx(NUMBERS["psnr"][latent], abs=0.01)  # dB; processors differ
    assert scores["baseline_copy_last_past_psnr"] == pytest.approx(NUMBERS["psnr"]["copy"], abs=1e-4)


@pytest.mark.parametrize("latent", ["zero", "posterior"])
def test_an_anchor_model_is_what_it_was(latent: str, place: Path) -> None:
    wanted = json.loads((MADE / "anchor.json").read_text("utf-8"))
    anchor.write(place / "anchor.safetensors", wanted["weights"])
    scores = _json(f"evaluate anchor.safetensors --data packed --latent {latent} --device cpu", place)
    assert scores["psnr_mean"] == pytest.approx(wanted["psnr"][latent], abs=0.01)


def test_the_packed_data_are_what_they_were(place: Path) -> None:
    report = _json("dataset inspect packed", place)
    counts = {split: [found["sequences"], found["frames"]] for split, found in report["splits"].items()}
    assert counts == NUMBERS["frames"] and report["faults"] == []


def _json(line: str, place: Path) -> dict[str, Any]:
    result = texts.run(f"{line} --json", place)
    assert result.code == 0, result.err + result.fault
    return json.loads(result.out)  # type: ignore[no-any-return]
