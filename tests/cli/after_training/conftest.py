"""A run that was trained, and the commands that a person types then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vidcvae import config as settings
from vidcvae.cli import command, evaluate, export, generate, plot
from vidcvae.data import images
from vidcvae.errors import VidcvaeError
from vidcvae.models import build_model
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.run import RunFolder

H, W, FRAMES = 8, 16, 7
FRAME = "data/test/test_img/0/0.png"
MODEL = {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8}

app = command.App()
app.command("evaluate")(evaluate.evaluate)
app.command("generate")(generate.generate)
app.command("export")(export.export)
app.add_typer(plot.app, name="plot")
runner = CliRunner()


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, as ``vidcvae.cli.app.main`` makes them of errors."""
    result = runner.invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, VidcvaeError):
        return result.exception.exit_code, result.stdout, result.stderr + str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def _write_images(folder: Path, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    for index in range(count):
        frame = random.integers(0, 256, (3, H, W), dtype=np.uint8)
        durable.write_bytes(folder / f"{index}.png", images.encode_png(frame))


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset (``data``) and a run that was trained on it (``runs/tiny-001``)."""
    place = tmp_path_factory.mktemp("place")
    for split, seed in (("train", 0), ("val", 2)):
        _write_images(place / f"data/{split}/{split}_img", FRAMES, seed)
        _write_images(place / f"data/{split}/{split}_label", FRAMES, seed + 1)
    for name in ("0", "1", "10"):
        _write_images(place / f"data/test/test_img/{name}", 1, int(name) + 10)
        _write_images(place / f"data/test/test_label/{name}", FRAMES + (name == "1"), int(name) + 20)
    run_folder = RunFolder(place / "runs/tiny-001")
    config = settings.resolve(
        {"model": MODEL, "data": {"size": [H, W], "path": str(place / "data")}, "training": {"epochs": 2}}
    )
    durable.write_text(run_folder.config, settings.to_toml(config))
    torch.manual_seed(0)
    weights = {f"model.{name}": tensor for name, tensor in build_model(config).state_dict().items()}
    meta = CheckpointMeta(config=settings.to_table(config), step=8, epoch=2)
    run_folder.checkpoints.mkdir()
    checkpoint.commit(run_folder.checkpoints, weights, meta, best=True, keep=1)
    terms = {"total": 3.0, "reconstruction": 2.0, "kl": 1.0, "beta": 0.1, "teacher_forcing": 0.0, "forced": 0.0}
    lines: list[dict[str, Any]] = []
    for step in range(1, 9):
        record = {"step": step, "epoch": (step - 1) // 4, "lr": 1e-3, "predicted": 15.0, **terms}
        lines.append({"kind": "step", **record})
        if step % 4 == 0:
            lines.append({"kind": "epoch", **record})
    scores = {f"psnr_{z}{part}": v for z in ("zero", "prior") for part, v in (("", 9.0), ("_per_frame", [9.5, 8.5]))}
    lines.append({"kind": "validation", "step": 8, "epoch": 1, "baseline_copy_first_psnr": 7.5, **scores})
    durable.write_text(run_folder.history, "".join(json.dumps(line) + "\n" for line in lines))
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def poses(name: str = "0") -> tuple[str, ...]:
    return ("--first-frame", f"data/test/test_img/{name}/0.png", "--poses", f"data/test/test_label/{name}")
