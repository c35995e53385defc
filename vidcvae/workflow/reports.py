"""The content of a report: scores, measurements and a video of each run, made if they are missing."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np
import torch

from vidcvae import __version__
from vidcvae.config.schema import Device
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.device import processor
from vidcvae.errors import DataError, VidcvaeError
from vidcvae.evaluation import drift
from vidcvae.evaluation.records import Record
from vidcvae.models.loading import Loaded
from vidcvae.output import generation, plots
from vidcvae.output.player import Scene, Video
from vidcvae.output.report import Entry, Report
from vidcvae.storage.run import RunFolder, known_info
from vidcvae.workflow import opening, scores
from vidcvae.workflow.voice import SILENT, Voice


@dataclass(frozen=True)
class Clip:
    """A generated video beside the sequence it was made from."""

    data: VideoData
    sequence: Sequence
    past: int
    frames: np.ndarray
    psnr: list[float]


def gather(
    folders: Iterable[RunFolder],
    command: str,
    *,
    data: str | None = None,
    split: str = "val",
    with_drift: bool = False,
    videos: bool = True,
    device: Device | None = None,
    voice: Voice = SILENT,
) -> Report:
    """The report of several runs. Missing scores are made, and kept with their runs.

    data, device: None means those of each run's training. command: the command that the page names as its origin.
    Raises ``VidcvaeError`` if a run cannot be scored on named ``data``; without ``data``, the page reports it.
    """
    entries: list[Entry] = []
    clips: list[Clip | None] = []
    for folder in folders:
        run, info, name = plots.read_run(folder, trained=False), known_info(folder), folder.path.name
        try:
            loaded, dataset = opening.load_with_data(folder.path, data=data, device=device, voice=voice)
            record = scores.record_of(loaded, dataset, f"scoring {name}", split, voice)
        except VidcvaeError as error:
            if data:
                raise
            voice.warn(f"{name}: {error.message}")
            entries.append(Entry(run, info, notes=(error.message,)))
            clips.append(None)
            continue
        measure = partial(drift.drift, loaded, dataset, split) if with_drift else None
        notes: tuple[str, ...] = ()
        try:
            measured = scores.measured(loaded, dataset, split, f"{split}-drift", f"drift of {name}", measure, voice)
        except DataError as error:  # its sequences are too short, for example
            voice.warn(f"{name}: {error.message}")
            measured, notes = None, (error.message,)
        drifted = drift.Drift.from_json(measured) if measured else None
        entries.append(Entry(run, info, record, drifted, scores.kept_latents(loaded, dataset, split), notes))
        clips.append(_clip(loaded, dataset, split, record, voice) if videos else None)
    labels = plots.labels([entry.run for entry in entries])
    scenes = _scenes([(label, clip) for label, clip in zip(labels, clips, strict=True) if clip])
    return Report(tuple(entries), tuple(scenes), _environment(), command, date.today().isoformat())


def _clip(loaded: Loaded, data: VideoData, split: str, record: Record, voice: Voice) -> Clip:
    """The free run of the first sequence of a split."""
    sequence = data.split(split)[0]
    name = loaded.run.path.name if loaded.run else loaded.path.name
    with voice.progress(f"video of {name}") as advance:
        (frames,) = generation.export_frames(loaded, [sequence], latent="zero", seed=0, progress=advance)
    known = min(len(frames), len(sequence))
    own = record.get("sequences", [record])[0]
    return Clip(data, sequence, loaded.config.training.past, frames[:known], own["psnr_per_frame"])


def _scenes(made: Iterable[tuple[str, Clip]]) -> list[Scene]:
    """Videos of the same sequence in one scene, after its truth and poses."""
    groups: dict[object, list[tuple[str, Clip]]] = {}
    for label, clip in made:
        key = (str(clip.data.source), clip.sequence.name, clip.frames.shape, clip.past)
        groups.setdefault(key, []).append((label, clip))
    scenes = []
    for group in groups.values():
        clip = group[0][1]
        length = len(clip.frames)
        shown = [Video("truth", clip.sequence.frames[:length])]
        if "pose" in clip.sequence.tracks:
            shown.append(Video("pose", clip.sequence.tracks["pose"][:length]))
        shown += [Video(label, made.frames, made.psnr) for label, made in group]
        name = f"{clip.data.name}, sequence {clip.sequence.name}"
        scenes.append(Scene(name, clip.data.fps, clip.past, tuple(shown)))
    return scenes


def _environment() -> dict[str, str]:
    """The machine and the versions that made this page."""
    gpu = {"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "vidcvae": __version__,
        "PyTorch": torch.__version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "processor": f"{processor()}, {torch.get_num_threads()} threads",
        **gpu,
    }
