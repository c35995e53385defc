"""``vidcvae report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import choice, command, scored, trained, ui
from vidcvae.config import schema
from vidcvae.errors import UsageError, VidcvaeError

if TYPE_CHECKING:
    import numpy as np

    from vidcvae.data.clips import Sequence, VideoData
    from vidcvae.evaluation.drift import Drift
    from vidcvae.output.player import Scene
    from vidcvae.output.report import Entry
    from vidcvae.storage.run import RunFolder


def report(
    runs: trained.Runs = None,
    output: Annotated[Path, typer.Option("-o", "--output", help=f"A name in .html. {command.REPLACED}")] = Path(
        "report.html"
    ),
    data: trained.Data = None,
    split: trained.Split = "val",
    drift: Annotated[bool, typer.Option("--drift", help="Also measure what the age of a run costs.")] = False,
    videos: Annotated[bool, typer.Option("--videos/--no-videos", help="Make the videos; they take the time.")] = True,
    device: Annotated[
        schema.Device | None,
        choice.option(schema.Device, "--device", help="Where to compute.", show_default="as each run was trained"),
    ] = None,
    json: command.Json = False,
) -> None:
    """Runs side by side on one page: scores, videos frame by frame, losses, schedules, settings and their origin.

    The page is one file that asks nothing of the network. Scores that are missing are taken, and kept with their runs.
    All of them are of z = 0, for which nothing is drawn, so that there is no --seed.

    Examples:
      vidcvae report
      vidcvae report runs/course-001 runs/anchor-001 -o compared.html
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{output} is no name of a web page.", "Choose one that ends in .html: -o report.html")
    trained.check_file(output)
    from datetime import date

    from vidcvae.output import plots
    from vidcvae.output import report as page
    from vidcvae.storage import durable
    from vidcvae.storage.run import find_run

    folders = list(dict.fromkeys(map(find_run, runs))) if runs else [find_run(None)]
    found = [_gather(folder, data, split, drift, videos, device, json) for folder in folders]
    labels = plots.labels([entry.run for entry, _ in found])
    scenes = _scenes([(label, clip) for label, (_, clip) in zip(labels, found, strict=True) if clip])
    entries = tuple(entry for entry, _ in found)
    made = page.Report(entries, tuple(scenes), _environment(), ui.command(), date.today().isoformat())
    durable.write_text(output, page.render(made))
    if json:
        told = [{"run": str(entry.run.name), "psnr_mean": (entry.record or {}).get("psnr_mean")} for entry in entries]
        ui.emit({"output": str(output), "runs": told})
        return
    ui.say(f"{output}: {len(entries)} run{'s' if len(entries) > 1 else ''}, {output.stat().st_size / 1e6:.1f} MB")


@dataclass(frozen=True)
class Clip:
    """A generated video beside the sequence it was made from."""

    data: VideoData
    sequence: Sequence
    past: int
    frames: np.ndarray
    psnr: list[float]


def _gather(
    folder: RunFolder,
    given: str | None,
    split: str,
    drift: bool,
    videos: bool,
    where: schema.Device | None,
    quiet: bool,
) -> tuple[Entry, Clip | None]:
    """All that the page tells of a run; what cannot be had is told as a note, unless it was asked for by name."""
    from vidcvae.evaluation.drift import drift as measure_drift
    from vidcvae.output import generation, plots
    from vidcvae.output.report import Entry

    run, name = plots.read_run(folder, trained=False), folder.path.name
    info = _read_info(folder)
    try:
        loaded, data = scored.load(folder.path, data=given, device=where, quiet=quiet)
        record = scored.record_of(loaded, data, f"scoring {name}", split, quiet)
    except VidcvaeError as error:
        if given:
            raise
        ui.warn(f"{name}: {error.message}")
        return Entry(run, info, notes=(error.message,)), None
    latents = next((kept for kept in scored.kept(loaded, data, split) if "latents" in kept), None)
    device = str(next(loaded.model.parameters()).device)

    def measure() -> dict[str, Any]:
        with ui.progress(f"drift of {name}", quiet) as advance:
            return measure_drift(loaded, data, split, device=device, progress=advance).to_json()

    aged = scored.measured(loaded, data, f"{split}-drift", measure if drift else None)
    clip = None
    if videos:
        sequence = data.split(split)[0]
        with ui.progress(f"video of {name}", quiet) as advance:
            (frames,) = generation.export_frames(
                loaded, [sequence], latent="zero", seed=0, device=device, progress=advance
            )
        known = min(len(frames), len(sequence))
        own = record.get("sequences", [record])[0]
        clip = Clip(data, sequence, loaded.config.training.past, frames[:known], own["psnr_per_frame"])
    return Entry(run, info, record, _drift(aged) if aged else None, latents), clip


def _drift(found: dict[str, Any]) -> Drift:
    """What ``Drift.to_json`` told, as it was before."""
    from vidcvae.evaluation.drift import AgeTest, Drift

    age = {key: found["age_test"][key] for key in ("tail", "restart", "from_start", "from_restart")}
    told = {key: found[key] for key in ("frames", "free", "restarted", "every")}
    return Drift(**told, age_test=AgeTest(**age))


def _scenes(clips: list[tuple[str, Clip]]) -> list[Scene]:
    """Videos of the same sequence in one scene, after its truth and poses."""
    from vidcvae.output.player import Scene, Video

    together: dict[object, list[tuple[str, Clip]]] = {}
    for label, clip in clips:
        key = (str(clip.data.source), clip.sequence.name, clip.frames.shape, clip.past)
        together.setdefault(key, []).append((label, clip))
    scenes = []
    for group in together.values():
        clip = group[0][1]
        length = len(clip.frames)
        shown = [Video("truth", clip.sequence.frames[:length])]
        if "pose" in clip.sequence.tracks:
            shown.append(Video("pose", clip.sequence.tracks["pose"][:length]))
        shown += [Video(label, made.frames, made.psnr) for label, made in group]
        name = f"{clip.data.name}, sequence {clip.sequence.name}"
        scenes.append(Scene(name, clip.data.fps, clip.past, tuple(shown)))
    return scenes


def _read_info(folder: RunFolder) -> dict[str, Any]:
    """run.json, as far as it can be read: older or damaged ones only leave a gap in the page."""
    from vidcvae.storage.run import read_info

    try:
        return read_info(folder)
    except (OSError, ValueError):
        return {}


def _environment() -> dict[str, str]:
    """The machine and the versions that this page's own numbers come from."""
    import platform

    import torch

    from vidcvae import __version__
    from vidcvae.device import processor

    gpu = {"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "vidcvae": __version__,
        "PyTorch": torch.__version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "processor": f"{processor()}, {torch.get_num_threads()} threads",
        **gpu,
    }
