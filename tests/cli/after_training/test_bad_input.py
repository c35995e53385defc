"""Wrong input to them: one sentence, and nothing changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidcvae.output import video

from .conftest import FRAME, H, W, run


def _damage(place: Path, tmp_path: Path) -> None:
    """Files of every wrong kind, for the table below."""
    whole = (place / "data/test/test_img/0/0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    video.save(tmp_path / "video.gif", np.zeros((3, 3, H, W), np.uint8), 25)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.png").write_bytes(whole)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    save_file({"eps": torch.zeros(3, 4, H, W)}, tmp_path / "short.safetensors")
    save_file({"z": torch.zeros(6, 4, H, W)}, tmp_path / "z.safetensors")
    save_file({"eps": torch.full((6, 4, H, W), float("nan"))}, tmp_path / "nan.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    best = (place / "runs/tiny-001/checkpoints/best.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(best[:-100])


GENERATE = ("generate", "--poses", "data/test/test_label/0", "--first-frame")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((*GENERATE, "nowhere.png"), 4, "nowhere.png"),
        (("generate",), 2, "is a pose-cvae, and --first-frame is missing"),
        (("generate", "--first-frame", FRAME), 2, "is a pose-cvae, and --poses is missing"),
        ((*GENERATE, FRAME, "--future", "5"), 2, "pose-cvae, which does not take --future"),
        (("generate", "--trajectory", "data"), 2, "pose-cvae, which does not take --trajectory"),
        (("evaluate", "--past", "2"), 2, "a pose-cvae starts from one given frame, not from 2"),
        (("evaluate", "--shuffle-actions"), 2, "not conditioned on actions"),
        ((*GENERATE, "TMP/cut.png"), 4, "cut.png is damaged or cut off"),
        ((*GENERATE, "TMP/full"), 2, "--first-frame is one image, and"),
        (("generate", "--first-frame", "TMP/one", "--poses", FRAME), 2, f"Swapped? --first-frame {FRAME}"),
        (("generate", FRAME, "--poses", "TMP/one"), 2, f"generate RUN --first-frame {FRAME}"),
        ((*GENERATE, FRAME, "--latent", "priro"), 2, "Did you mean 'prior'"),
        ((*GENERATE, FRAME, "--latents", "TMP/short.safetensors"), 4, "[3, 4, 8, 16], but 7 frames"),
        ((*GENERATE, FRAME, "--latents", "TMP/z.safetensors"), 4, "no tensor named eps, only z"),
        ((*GENERATE, FRAME, "--latents", "TMP/nan.safetensors"), 4, "eps[0]"),
        ((*GENERATE, FRAME, "--latents", "TMP/text.safetensors"), 4, "text.safetensors is not a readable"),
        ((*GENERATE, FRAME, "--latents", "TMP/none.safetensors"), 4, "there is no file"),
        ((*GENERATE, FRAME, "--latents", "TMP/z.safetensors", "--latent", "zero"), 2, "--latent zero contradicts"),
        ((*GENERATE, FRAME, "--latents", "TMP/z.safetensors", "--samples", "2"), 2, "--samples contradicts"),
        ((*GENERATE, FRAME, "--samples", "2", "--latent", "zero"), 2, "would be the same"),
        ((*GENERATE, FRAME, "-o", "TMP/full"), 2, "full is not an empty folder"),
        ((*GENERATE, FRAME, "-o", "TMP/a.avi"), 2, "a.avi is not a GIF or MP4"),
        ((*GENERATE, FRAME, "--fps", "0"), 2, "0 frames a second"),
        ((*GENERATE, FRAME, "--weights", "ema"), 2, "no moving average"),
        ((*GENERATE, FRAME, "--device", "tpu"), 2, "tpu"),
        (("generate", "--first-frame", FRAME, "--poses", "TMP/one"), 4, "has one pose only"),
        (("generate", "--first-frame", FRAME, "--poses", FRAME), 4, "is a single image"),
        (("generate", "--first-frame", FRAME, "--poses", "TMP/full"), 4, "full has no images in it"),
        (("generate", "TMP/cut.safetensors", "--first-frame", FRAME, "--poses", "TMP/one"), 4, "cut.safetensors"),
        (("evaluate", "--latent", "prior_mean"), 2, "Did you mean 'prior-mean'"),
        (("evaluate", "--split", "test"), 4, "nothing is left to score"),
        (("evaluate", "--data", "TMP/video.gif"), 4, "video.gif is a GIF, but a dataset is a folder"),
        (("evaluate", "--data", "nowhere"), 4, "there is no dataset nowhere"),
        (("evaluate", "--frames", "99"), 2, "cannot score 99 frames"),
        (("evaluate", "-o", "TMP/full"), 2, "full is a folder"),
        (("evaluate", "nowhere"), 4, "there is no run nowhere"),
        (("export", "--split", "tset"), 4, "Did you mean 'test'"),
        (("export", "-o", "TMP/full"), 2, "full is a folder"),
        (("export", "--gifs", "TMP/cut.png"), 2, "cut.png is a file, not a folder"),
        (("plot", "loss", "runs/tiny-01"), 4, "Did you mean 'tiny-001'"),
        (("plot", "kl", "-o", "TMP/a.jpg"), 2, "a.jpg is not a PNG, SVG or PDF"),
        (("plot", "schedule", "--config", "nowhere.toml"), 2, "there is no config file nowhere.toml"),
        (("plot", "schedule", "--preset", "corse"), 2, "Did you mean 'course'"),
        (("plot", "schedule", "runs/tiny-001", "--preset", "course"), 2, "excludes"),
    ],
)
def test_bad_input_is_one_clear_sentence_and_changes_nothing(
    place: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    _damage(place, tmp_path)
    if "-o" not in arguments and arguments[0] != "evaluate" and "schedule" not in arguments:
        arguments = (*arguments, "-o", "TMP/result.csv" if arguments[0] == "export" else "TMP/result.gif")
    if arguments[0] == "plot":
        arguments = tuple(a.replace("result.gif", "result.png") for a in arguments)
    before = {p: p.stat().st_mtime_ns for p in (place / "runs/tiny-001").rglob("*")}
    found, _, err = run(*(a.replace("TMP", str(tmp_path)) for a in arguments))
    assert (found, words in err) == (code, True), err
    assert {p: p.stat().st_mtime_ns for p in (place / "runs/tiny-001").rglob("*")} == before
    assert not list(tmp_path.glob("result*"))
    assert not list(place.glob("*.gif"))


def test_the_commands_load_neither_torch_nor_numpy_until_they_run() -> None:
    code = (
        "import sys; from vidcvae.cli import evaluate, export, generate, plot; "
        "sys.exit(', '.join(m for m in ('torch', 'numpy', 'PIL', 'matplotlib') if m in sys.modules) or None)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
