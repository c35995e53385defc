"""Live play of a run: open its model and dataset, and follow its checkpoints while it is trained."""

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

POLL_SECONDS = 0.5  # between two checks for the first checkpoint
PATIENCE = 30.0  # seconds that a training has to start


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
    """A session with the model of ``run``; if the run is being trained, the session takes its new checkpoints.

    poses: pose images, a folder or a GIF, to be played beside those of the dataset. Raises ``VidcvaeError`` as
    ``opening.load`` does.
    """
    in_training = run.is_dir() and bool(lock.holder(run))
    if in_training:
        loaded = load_model(run, which="last", device=pick_device(device), batch_stats=batch_stats, weights=weights)
    else:
        loaded = opening.load(run, device, batch_stats, weights, voice)
    loaded = opening.computing(loaded, precision, voice=voice)
    dataset = opening.open_data(loaded, data, voice)
    if poses:
        dataset = _with_poses(dataset, poses)
    renew = _newer(loaded, weights) if in_training and loaded.run else None
    return Session(loaded, dataset, recordings, torch.get_num_threads(), renew)


def _with_poses(data: VideoData, path: Path) -> VideoData:
    """The dataset with one more sequence of poses, which starts from the dataset's first frame."""
    if data.kind != "dance":
        raise UsageError("--poses needs a model of poses.", "Leave it out.")
    first = next(s for split in ("val", "test", "train") for s in data.splits.get(split, ()))
    poses = video.read_poses(path, data.size)
    return replace(data, splits={"poses": (Sequence(path.name, first.frames[:1], {"pose": poses}),), **data.splits})


def _newer(loaded: Loaded, weights: Weights) -> Renew:
    """A function that loads the run's last checkpoint if it is new since the previous call, else returns None."""
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
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_ino
    return 0, 0


def wait_for_checkpoint(run: Path, alive: Callable[[], bool] | None = None) -> None:
    """Wait for the first checkpoint of a run in training. alive: tells whether its process still runs.

    Raises ``DataError`` if the training has ended without a checkpoint.
    """
    began = time.monotonic()
    while not has_checkpoint(RunFolder(run)):
        young = time.monotonic() - began < PATIENCE
        if not (alive() if alive else young or lock.holder(run)):
            raise DataError(
                f"the training in {run} has ended without a checkpoint.", f"See its messages, and what is in {run}."
            )
        time.sleep(POLL_SECONDS)


def secret_of(run: Path) -> str:
    """The secret in the page's address.

    It is derived from a key that only the user can read, so that it stays the same for a run, and an open page finds
    a new server. If no key can be stored, it is random.
    """
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
    """Train the demo in another process, which is stopped at the end of the block; yields the run."""
    with _beside("demo", "-o", DEMO, "--quiet", quietly=True) as process:
        wait_for_checkpoint(DEMO / "run", lambda: process.poll() is None)
        yield DEMO / "run"


@contextlib.contextmanager
def page_beside(run: Path, stays: bool, voice: Voice = SILENT) -> Iterator[None]:
    """Play a run in another process while this block trains it. stays: afterwards, wait until the user stops it."""
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
