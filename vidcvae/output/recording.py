"""The steps of a live session, and its recording: a video, its input, and the command that reproduces it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as serialise

from vidcvae.data import images, trajectories
from vidcvae.errors import UsageError, typed
from vidcvae.evaluation.free_run import sequence_noise
from vidcvae.models.loading import Loaded
from vidcvae.output import pictures, video
from vidcvae.output.generation import latent_shape
from vidcvae.storage import durable

MOST_FRAMES = 6_000  # frames of a recording: three minutes at 30 frames a second


@dataclass(frozen=True)
class Step:
    """One generated frame: its compressed condition, and how z was chosen; ``scale`` multiplies eps."""

    condition: bytes | None
    latent: str
    scale: float
    seed: int


@dataclass
class Take:
    """A run since its start.

    past: uint8 (P, 3, H, W); rows: their conditions (P, ...), or None. exact: one model made all of it. frames: of the
    recording, which began at step ``mark``; None if nothing is recorded.
    """

    past: np.ndarray
    rows: np.ndarray | None
    steps: list[Step] = field(default_factory=list)
    exact: bool = True
    frames: list[np.ndarray] | None = None
    mark: int = 0

    @property
    def next(self) -> int:
        """The number of the next frame, counting the given ones."""
        return len(self.past) + len(self.steps)

    def add(self, condition: np.ndarray | None, latent: str, scale: float, seed: int, frame: np.ndarray) -> None:
        packed = None if condition is None else zlib.compress(np.ascontiguousarray(condition).tobytes(), 1)
        self.steps.append(Step(packed, latent, scale, seed))
        if self.frames is not None and len(self.frames) < MOST_FRAMES:
            self.frames.append(frame)

    def record(self) -> None:
        """Record the frames from here on; at the start of a run, the given ones too."""
        self.mark = len(self.steps)
        self.frames = [] if self.mark else list(self.past)

    def cut(self) -> Take:
        """A copy of the run so far; its recording ends here. Raises ``UsageError`` if that is empty."""
        frames, self.frames = self.frames, None
        if not frames:
            raise UsageError("this recording is empty.", "Record, and move.")
        return replace(self, steps=[*self.steps], frames=frames)

    def conditions(self) -> Iterator[np.ndarray]:
        """The condition of every frame, from frame 0 on."""
        if self.rows is not None:
            yield from self.rows
            for step in self.steps:
                assert step.condition is not None
                yield np.frombuffer(zlib.decompress(step.condition), self.rows.dtype).reshape(self.rows.shape[1:])


def save(take: Take, loaded: Loaded, kind: str, fps: float, folder: Path) -> dict[str, Any]:
    """Write the recording into ``folder``, as ``kind`` ("gif" or "mp4"); returns a description of it for the page.

    The video has the recorded frames only. first.png (past, in robot pushing) and poses (actions.csv ..) cover the
    whole run, as each frame depends on the one before; the command reproduces the run from them.
    """
    target, frames = folder / f"recording.{kind}", take.frames or []
    scale = pictures.fitting_scale(loaded.config.data.frame_size[0])
    video.save(target, (pictures.enlarge(frame, scale) for frame in frames), fps)
    options, exact = _write_latents(take, loaded, folder)
    command = typed("generate", loaded.run.path if loaded.run else loaded.path, *_write_input(take, loaded, folder),
                    *options, "--weights", loaded.weights,
                    "--precision", "bf16" if loaded.dtype == torch.bfloat16 else "float32",
                    *(["--batch-stats"] if loaded.batch_stats else []), "-o", folder / f"again.{kind}")  # fmt: skip
    durable.write_text(folder / "command.txt", f"{command}\n")
    first = take.mark + len(take.past) if take.mark else 0
    about = {"folder": str(folder), "frames": len(frames), "command": command, "exact": exact}
    return {**about, "first": first, "last": first + len(frames) - 1, "path": str(target)}


def _write_input(take: Take, loaded: Loaded, folder: Path) -> list[str | Path]:
    """Write the given frames and the conditions; returns the options of ``generate`` that read them."""
    if loaded.config.model.condition_kind == "pose":
        durable.write_bytes(folder / "first.png", images.encode_png(take.past[0]))
        poses = folder / "poses"
        files = ((poses / f"{t:06d}.png", partial(images.encode_png, pose)) for t, pose in enumerate(take.conditions()))
        for _ in durable.write_many(files):
            pass
        return ["--first-frame", folder / "first.png", "--poses", poses]
    for t, frame in enumerate(take.past):
        durable.write_bytes(folder / "past" / f"{t}.png", images.encode_png(frame))
    options: list[str | Path] = ["--past-frames", folder / "past"]
    if take.rows is None:
        return [*options, "--future", str(len(take.steps))]
    rows = np.stack(list(take.conditions()))  # (T, A)
    if loaded.config.data.condition == "source":  # row t-1 leads to frame t
        rows = np.concatenate([rows[1:], rows[-1:]])
    for track, values in {"action": rows[:, :4], "position": rows[:, 4:]}.items():
        if values.shape[1]:
            path = folder / trajectories.TRACK_FILES[track]
            durable.write_text(path, "".join(",".join(f"{x:.9g}" for x in row) + "\n" for row in values))
            options += [f"--{track}s", path]
    return options


def _write_latents(take: Take, loaded: Loaded, folder: Path) -> tuple[list[str | Path], bool]:
    """The options of ``generate`` for z, and whether they reproduce the run exactly.

    If z was not chosen in the same way throughout, its noise is written into a file.
    """
    latents = {step.latent for step in take.steps}
    if latents <= {"zero"}:
        return ["--latent", "zero"], take.exact
    draws = {(step.latent, step.scale, step.seed) for step in take.steps}
    if len(draws) == 1 and take.steps[0].scale == 1:
        return ["--latent", "prior", "--seed", str(take.steps[0].seed)], take.exact
    noise = torch.stack([_noise(take, t, loaded) for t in range(1, take.next)])
    durable.write_bytes(folder / "eps.safetensors", serialise({"eps": noise}))
    exact = take.exact and not (loaded.config.model.learned_prior and "zero" in latents)
    return ["--latents", folder / "eps.safetensors"], exact


def _noise(take: Take, t: int, loaded: Loaded) -> torch.Tensor:
    """eps of the step into frame t; 0 if the frame was given, or its z was 0."""
    shape, step = latent_shape(loaded), take.steps[max(0, t - len(take.past))]
    if t < len(take.past) or step.latent != "prior":
        return torch.zeros(shape)
    return sequence_noise(shape, step.seed, [0])(t)[0] * step.scale
