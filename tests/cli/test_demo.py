"""``vidcvae demo``: everything that it promises is there; the full one also dances."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from vidcvae.workflow.demo import VAL

from .conftest import Cli

pytestmark = pytest.mark.usefixtures("workplace")


def check(folder: Path) -> dict[str, float]:
    with Image.open(folder / "dance.gif") as video:
        assert getattr(video, "n_frames", 0) == VAL
        assert video.width > 3 * 64 and video.info["duration"] == 40
    for name in ("loss.png", "psnr.png"):
        with Image.open(folder / name) as figure:
            assert figure.width > 500
    assert (folder / "run/checkpoints/last.safetensors").exists()
    assert (folder / "data/train/train_img/0.png").exists()
    scores: dict[str, float] = json.loads((folder / "scores.json").read_text())
    return scores


def test_a_demo_of_seconds_makes_everything(cli: Cli) -> None:
    done = cli("demo", "-o", "d", "--max-minutes", 0.02, "--json")
    assert done.code == 0, done.err
    assert len(check(Path("d"))["psnr_per_frame"]) == VAL - 1  # type: ignore[arg-type]
    told = json.loads(done.out)
    assert told["output"] == "d" and told["psnr_mean"] == check(Path("d"))["psnr_mean"]
    again = cli("demo", "d")
    assert again.code == 2 and "d is not an empty folder" in again.err


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demo_dances_in_three_minutes(cli: Cli) -> None:
    began = time.monotonic()
    assert cli("demo", "d", "--plain").code == 0
    assert time.monotonic() - began < 180
    scores = check(Path("d"))
    assert scores["psnr_mean"] > scores["baseline_copy_first_psnr"] + 3
