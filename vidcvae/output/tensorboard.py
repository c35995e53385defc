"""Training's events as a TensorBoard log: the scalars of the history, and a strip of each validation's free run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcvae.data import clips
from vidcvae.data.clips import VideoData
from vidcvae.errors import UsageError
from vidcvae.models.loading import load_model
from vidcvae.models.rollout import rollout
from vidcvae.output import pictures, video
from vidcvae.output.generation import GenerationInput
from vidcvae.storage.run import RunFolder
from vidcvae.training.signals import Report

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

STRIP_FRAMES, STRIP_COLUMNS = 64, 8  # a strip covers the first frames; all frames would double the validation's cost
SCHEDULES = ("beta", "teacher_forcing", "forced", "lr")
NO_SCALARS = ("kind", "step", "epoch", "epochs_done")


def folder(run: RunFolder) -> Path:
    """RUN/tensorboard. A run logs to TensorBoard if it has this folder."""
    return run.path / "tensorboard"


def check() -> None:
    """Raise ``UsageError`` unless TensorBoard is installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError(
            "a TensorBoard log needs tensorboard, which is not installed.",
            "pip install 'vidcvae[tensorboard]', or leave out --tensorboard.",
        ) from None


@contextlib.contextmanager
def logging(run: RunFolder, data: VideoData, step: int, report: Report) -> Iterator[Report]:
    """Yield a ``report`` that also logs. Entries of an earlier log after ``step`` are hidden."""
    check()
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder(run)), purge_step=step + 1)
    log = Log(writer, data)

    def both(event: dict[str, Any]) -> None:
        report(event)
        log(event)

    try:
        yield both
    finally:
        writer.close()


class Log:
    """Writes each event of training to the log."""

    def __init__(self, writer: SummaryWriter, data: VideoData) -> None:
        self._writer = writer
        self._sequences = data.splits.get(data.split_name("val"), ())
        self._validated = False

    def __call__(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "step" | "epoch" | "validation" as kind:
                for key, value in event.items():
                    if key not in NO_SCALARS and isinstance(value, int | float):
                        group = "schedule" if kind == "step" and key in SCHEDULES else kind
                        self._writer.add_scalar(f"{group}/{key}", value, event["step"])
                self._validated |= kind == "validation"
            case "checkpoint" if self._validated and self._sequences:
                self._validated = False
                strip = _strip(Path(event["path"]), self._sequences[0])
                self._writer.add_image("validation/free run", strip, event["step"])
        if event["kind"] != "step":
            self._writer.flush()


def _strip(checkpoint: Path, sequence: clips.Sequence) -> Any:
    """Truth, free run with z = 0, and pose, at evenly spaced times of the first frames: uint8 (3, H, W)."""
    loaded = load_model(checkpoint)
    length = min(STRIP_FRAMES, sequence.known)
    frames, given = sequence.frames[:length], GenerationInput.of(sequence, 0, length, loaded.config)
    made = rollout(loaded.model, *given.batch(1), length=length)
    shown: dict[str, Any] = {
        "truth": frames,
        "free run": [*given.past, *(video.to_bytes(frame)[0] for frame in made)],
    }
    if "pose" in sequence.tracks:
        shown["pose"] = sequence.tracks["pose"][:length]
    times = video.spread(length, STRIP_COLUMNS)
    return pictures.strip([[row[t] for t in times] for row in shown.values()], list(shown), times)
