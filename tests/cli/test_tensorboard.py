"""TensorBoard logs, read back by TensorBoard itself."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidcvae.storage.history import read_history

from .conftest import TINY, Cli

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
pytestmark = pytest.mark.usefixtures("workplace")


def read(folder: Path) -> event_accumulator.EventAccumulator:  # type: ignore[name-defined]
    found = event_accumulator.EventAccumulator(str(folder), {"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_a_log_holds_what_the_history_holds_over_a_resume_too(cli: Cli, tiny_dance: Path) -> None:
    done = cli("train", tiny_dance, *TINY, "--epochs", 1, "--run", "r", "--tensorboard")
    assert done.code == 0, done.err
    assert cli("resume", "r", "--epochs", 2, "--plain").code == 0
    history, log = read_history(Path("r/history.jsonl")), read(Path("r/tensorboard"))
    for kind, tag, key in (
        *(("step", f"step/{key}", key) for key in ("total", "reconstruction", "kl", "clips_per_second")),
        *(("step", f"schedule/{key}", key) for key in ("beta", "lr", "teacher_forcing")),
        *(("validation", f"validation/{key}", key) for key in ("psnr_zero", "ssim_prior")),
        ("epoch", "epoch/total", "total"),
    ):
        expected = [(line["step"], line[key]) for line in history if line["kind"] == kind]
        scalars = [(event.step, event.value) for event in log.Scalars(tag)]
        assert [step for step, _ in scalars] == [step for step, _ in expected], tag
        assert [value for _, value in scalars] == pytest.approx([value for _, value in expected], rel=1e-5), tag
    pictures = log.Images("validation/free run")
    assert [event.step for event in pictures] == [line["step"] for line in history if line["kind"] == "validation"]
    last = np.asarray(Image.open(io.BytesIO(pictures[-1].encoded_image_string)).convert("RGB"))
    assert last.std() > 10, "there is something to see"

    first = sorted(Path("r/checkpoints").glob("step-*.safetensors"))[0]
    assert cli("resume", "r", "--resume-from", first, "--plain").code == 0
    steps = [line["step"] for line in read_history(Path("r/history.jsonl")) if line["kind"] == "step"]
    found = [event.step for event in read(Path("r/tensorboard")).Scalars("step/total")]
    assert found == steps, "what a resume gives up is hidden, and stands there once"


def test_training_is_the_same_with_and_without(cli: Cli, tiny_dance: Path) -> None:
    for name, options in (("plain", []), ("logged", ["--tensorboard"])):
        assert cli("train", tiny_dance, *TINY, "--epochs", 2, "--run", name, *options).code == 0
    totals = [
        [r["total"] for r in read_history(Path(n) / "history.jsonl") if "total" in r] for n in ("plain", "logged")
    ]
    assert totals[0] == totals[1]
    assert not Path("plain/tensorboard").exists()


def test_without_the_extra_nothing_is_started(cli: Cli, tiny_dance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = cli("train", tiny_dance, *TINY, "--epochs", 1, "--run", "r", "--tensorboard")
    assert done.code == 2 and "pip install 'vidcvae[tensorboard]'" in done.err
    assert not Path("r").exists()
