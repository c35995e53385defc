"""A run that is played live: its model and dataset opened, its newest checkpoints taken while it is trained."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from vidcvae import reading
from vidcvae.config.schema import Device, Precision, Weights
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.errors import DataError, UsageError
from vidcvae.models.arithmetic import cache_file
from vidcvae.models.loading import Loaded, load_model, pick_device
from vidcvae.output import live, video
from vidcvae.output.session import Renew, Session
from vidcvae.storage import checkpoint, lock
from vidcvae.storage.run import RunFolder, has_checkpoint
from vidcvae.workflow import opening
from vidcvae.workflow.voice import SILENT, Voice

LOOKS = 0.5  # seconds between two looks for the first checkpoint
PATIENCE = 30.0  # seconds for a training that was only just started


def open_session(
    run: Path,
    recordings: Path,
    data: str | None = None,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    weights: Weights = "auto",
    batch_stats: bool = False,
    poses: Path | None = None,
    voice: Voice = SILENT,
) -> Session:
    """A session with the model that ``run`` means; of a run in training, with its newest checkpoint and those to come.

    poses: pose images, a folder or a GIF, to be played beside the dataset's. Raises ``VidcvaeError`` as
    ``opening.load`` does.
    """
    trained = run.is_dir() and bool(lock.holder(run))
    if trained:
        loaded = load_model(run, which="last", device=pick_device(device), batch_stats=batch_stats, weights=weights)
    else:
        loaded = opening.load(run, device, batch_stats, weights, voice)
    loaded = opening.computing(loaded, precision, voice=voice)
    found = opening.open_data(loaded, data, voice)
    if poses:
        found = _with_poses(found, poses)
    renew = _newer(loaded, weights) if trained and loaded.run else None
    return Session(loaded, found, recordings, torch.get_num_threads(), renew)


def _with_poses(data: VideoData, path: Path) -> VideoData:
    """The dataset with one more sequence, which begins from the dataset's own first frame."""
    if data.kind != "dance":
        raise UsageError("--poses is for a model of poses.", "Leave it out.")
    first = next(s for split in ("val", "test", "train") for s in data.splits.get(split, ()))
    poses = video.read_poses(path, data.size)
    return replace(data, splits={"poses": (Sequence(path.name, first.frames[:1], {"pose": poses}),), **data.splits})


def _newer(loaded: Loaded, weights: Weights) -> Renew:
    """Looks whether the run has a newer checkpoint than the last time, and loads it."""
    run = loaded.run
    assert run
    path = run.checkpoints / checkpoint.LAST
    seen = _stamp(path)

    def renew() -> Loaded | None:
        nonlocal seen
        stamp = _stamp(path)
        if stamp == seen:
            return None
        newer = load_model(path, device=str(loaded.device), batch_stats=loaded.batch_stats, weights=weights)
        seen = stamp
        return replace(newer, dtype=loaded.dtype)

    return renew


def _stamp(path: Path) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_ino
    return 0, 0


def wait_for_checkpoint(run: Path, alive: Callable[[], bool] | None = None) -> None:
    """Wait until a run that is being trained has something to load. alive: whether whoever trains it still does.

    Raises ``DataError`` where the training has ended without a checkpoint.
    """
    began = time.monotonic()
    while not has_checkpoint(RunFolder(run)):
        young = time.monotonic() - began < PATIENCE
        if not (alive() if alive else young or lock.holder(run)):
            raise DataError(f"the training in {run} has ended without a checkpoint.", f"Look at what it said: {run}")
        time.sleep(LOOKS)


def secret_of(run: Path) -> str:
    """The secret in the page's address: the same for a run whenever it is played by this user, so that an open page
    finds a new server; of a key that only the user can read, or made up where there is no place for one."""
    key = secrets.token_bytes(32)
    cache = cache_file()
    if cache:
        path = cache.with_name("play.key")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(fd, "wb") as file:
                    file.write(key)
            kept = reading.read_bytes(path)
            key = kept if len(kept) == len(key) else key
    return hmac.new(key, str(run.resolve()).encode(), hashlib.sha256).hexdigest()[:32]


DEMO = Path("demo")


@contextlib.contextmanager
def demo_training() -> Iterator[Path]:
    """Train the demo in a process of its own, for as long as this block lasts; yields its run."""
    with _beside("demo", "-o", DEMO, "--quiet") as process:
        wait_for_checkpoint(DEMO / "run", lambda: process.poll() is None)
        yield DEMO / "run"


@contextlib.contextmanager
def page_beside(run: Path, stays: bool, voice: Voice = SILENT) -> Iterator[None]:
    """Play a run in a process of its own while it is trained in this block. stays: until the user ends it."""
    port = live.free_port()
    voice.note(f"from the first checkpoint on: {live.address(secret_of(run), port)}")
    with _beside("play", run, "--wait", "--port", port, quietly=True) as process:
        yield
        if stays and process.poll() is None:
            voice.note("The page stays; Ctrl-C ends it.")
            process.wait()


@contextlib.contextmanager
def _beside(*command: object, quietly: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-m", "vidcvae", *map(str, command)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if quietly else None)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
