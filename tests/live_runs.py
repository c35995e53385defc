"""Small runs that can be played at once: models of random weights, large enough for conditions to show."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vidcvae import config as settings
from vidcvae.data import pose_folder
from vidcvae.models import build_model
from vidcvae.output.live import Server
from vidcvae.output.session import Session
from vidcvae.scenes import dancing, pushing
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.run import RunFolder

SIZE = (32, 64)


def make_dance(place: Path, step: int = 8) -> RunFolder:
    """``place/data``, a drawn dance, and ``place/runs/dance-001``, a run on it."""
    if not (place / "data").exists():
        pose_folder.write_folder(dancing.dance(48, 40, 1, 0, SIZE), place / "data")
    model = {"name": "anchor-cvae", "channels": 8, "latent_channels": 2}
    return make_run(place / "runs/dance-001", model, {"size": [*SIZE], "path": str(place / "data")}, {}, step)


def make_push(place: Path, **model: Any) -> RunFolder:
    """``place/push``, drawn clips, and ``place/runs/push-001``, a run on them."""
    if not (place / "push").exists():
        pushing.write_folder(pushing.push(3, 2, 1, 12, 0), place / "push")
    table = {"name": "svg-fp", "backbone": "dcgan64", "frame_dim": 4, "latent_dim": 2, "hidden_dim": 8, **model}
    data = {"size": [64, 64], "path": str(place / "push")}
    return make_run(place / f"runs/push-{table['name']}", table, data, {"past": 2}, 8)


def make_run(path: Path, model: dict[str, Any], data: dict[str, Any], training: dict[str, Any], step: int) -> RunFolder:
    run, config = RunFolder(path), settings.resolve({"model": model, "data": data, "training": training})
    torch.manual_seed(step)
    # the anchor's blocks begin as their skips, and svg's as nearly nothing: with more in them, all inputs show
    weights = {
        f"model.{name}": t if "stages" in name or not t.is_floating_point() else t * 20 if "svg" in model["name"]
        else t + 0.1 * torch.randn(t.shape) for name, t in build_model(config).state_dict().items()
    }  # fmt: skip
    durable.write_json(run.info, {"vidcvae": "0"})
    durable.write_text(run.config, settings.to_toml(config))
    meta = CheckpointMeta(config=settings.to_table(config), step=step, epoch=1)
    checkpoint.save(run.checkpoints / checkpoint.LAST, weights, meta)
    return run


def environment(place: Path) -> dict[str, str]:
    """Of a process that keeps nothing at this user's home."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(place / "cache")}


@contextlib.contextmanager
def serving(session: Session) -> Iterator[Server]:
    """The server of the live page, in a thread of this process, at ``/a-secret/``."""
    with contextlib.closing(session):
        server = Server(session, "a-secret", 0)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@contextlib.contextmanager
def playing(place: Path, *arguments: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``vidcvae play`` as a process of its own; yields the page's address. It is killed when the block ends."""
    words = [sys.executable, "-m", "vidcvae", "play", *map(str, arguments), "--no-browser", "--json"]
    process = subprocess.Popen(
        words, cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate()[1])
        yield json.loads(line)["address"], process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
