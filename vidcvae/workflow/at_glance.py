"""Runs at a glance: which there are, how far each came, and what it takes on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data import numbered
from vidcvae.errors import DataError, VidcvaeError, typed
from vidcvae.evaluation import records
from vidcvae.storage import checkpoint, lock
from vidcvae.storage.history import read_history
from vidcvae.storage.run import ROOT, RunFolder, find_checkpoint, find_run, is_run, runs_in, was_made
from vidcvae.workflow.voice import SILENT, Voice

if TYPE_CHECKING:
    from vidcvae.data.clips import VideoData


@dataclass(frozen=True)
class Overview:
    """A run at a glance. state: "running", "finished", "resumable", "no checkpoint" or "damaged"; size in bytes."""

    path: str
    state: str
    model: str = "-"
    data: str = "-"
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    minutes: float = 0.0
    best_psnr: float | None = None
    size: int = 0
    problem: str = ""

    def next_commands(self) -> list[str]:
        """What to type next."""
        match self.state:
            case "running":
                return [typed("plot", "loss", self.path, "--terminal")]
            case "damaged":
                return [typed("checkpoint", "verify", self.path)]
            case "no checkpoint":
                return [typed("config", "show", self.path)]
        # without a score there may be no val split to take it from
        score = [] if self.best_psnr is None else [typed("evaluate", self.path)]
        if self.state == "resumable":
            return [typed("resume", self.path), *score]
        more = "--more-minutes" if self.epoch < self.epochs else "--more-epochs"  # its time was up before its epochs
        return [*score, typed("plot", "loss", self.path), typed("resume", self.path, more, 10)]


def find(given: Sequence[Path] | None, started: bool = True) -> list[RunFolder]:
    """The runs that the arguments mean, the newest last; a folder of runs stands for all in it.

    Unless ``started``, folders that ``create_run`` made and no training began in are among them. Raises ``DataError``
    for a name that is neither.
    """
    found: list[Path] = []
    for place in given or [ROOT]:
        if is_run(place) or (not started and was_made(place)):
            found.append(place)
        elif inside := runs_in(place, started):
            found += inside
        elif given:
            found.append(find_run(place).path)
        else:
            raise DataError(f"there is no run yet under {ROOT}.", "Train one: vidcvae train")

    def age(path: Path) -> int:
        run = RunFolder(path)
        return (run.config if run.config.exists() else run.info).stat().st_mtime_ns

    return [RunFolder(path) for path in sorted(set(found), key=age)]


def overview(run: RunFolder) -> Overview:
    """What there is to know of a run without loading it; a damaged file is told, not raised."""
    size = disk_use([run.path])
    path = str(run.path)
    try:
        config = config_of(run)
        history = read_history(run.history) if run.history.exists() else []
        at = position(run.checkpoints / checkpoint.LAST)
    except VidcvaeError as error:
        return Overview(path, "damaged", size=size, problem=" ".join(error.message.split()))
    scores = [record["psnr_zero"] for record in history if record.get("kind") == "validation"]
    epoch, progress = int(at.get("epoch", 0)), at.get("progress") or {}
    minutes = float(progress.get("minutes", 0.0))
    limit = config.training.max_minutes
    if lock.holder(run.path):
        state = "running"
    elif not at:
        state = "no checkpoint"
    elif epoch >= config.training.epochs or (limit and minutes >= limit):
        state = "finished"
    else:
        state = "resumable"
    return Overview(
        path=path,
        state=state,
        model=config.model.name,
        data=config.data.path,
        epoch=epoch,
        epochs=config.training.epochs,
        step=int(at.get("step", 0)),
        minutes=minutes,
        best_psnr=max(scores, default=None),
        size=size,
    )


def with_history(given: Sequence[Path] | None, voice: Voice = SILENT) -> list[RunFolder]:
    """The run folders that the arguments mean, the newest if none; a checkpoint file stands for the run it lies in."""
    if not given:
        newest = find_run(None)
        voice.note(f"no RUN given: using the newest, {newest.path}")
        return [newest]
    found = []
    for path in given:
        folder = find_checkpoint(path)[1] if path.is_file() else find_run(path)
        if folder is None:
            raise DataError(f"{path} lies outside its run, so there is no history to draw.", "Give the run's folder.")
        found.append(folder)
    return found


def config_of(run: RunFolder) -> Config:
    return settings.resolve_saved(settings.read_toml(run.config))


def settings_of(path: Path) -> Config:
    """The settings of a run, or those in a checkpoint file."""
    if path.is_file() or path.suffix == ".safetensors":
        return settings.resolve_saved(checkpoint.read(find_checkpoint(path)[0]).meta["config"])
    return config_of(find_run(path))


def changed_settings(run: RunFolder) -> dict[str, Any]:
    """The settings of a run that are not the defaults of its model."""
    config = config_of(run)
    default = settings.resolve_saved({"model": {"name": config.model.name}})
    return {key: value for key, (_, value) in settings.differences(default, config).items()}


def position(path: Path) -> dict[str, Any]:
    """What a checkpoint's header says, without reading its tensors; empty if there is none."""
    return checkpoint.read_header(path)[0] if path.exists() else {}


def score_of(run: RunFolder) -> str:
    """The ordinary score of the checkpoint that the run's folder stands for, and how that was chosen, in words."""
    try:
        path, _ = find_checkpoint(run.path)
        record = records.ordinary_without_data(run, *checkpoint.read_header(path))
    except VidcvaeError:
        return "none"
    if record is None:
        return "none yet"
    return f"{record['psnr_mean']:.2f} dB, z = 0; checkpoint: {records.selection_text(record)}"


def disk_use(places: Sequence[Path]) -> int:
    """Bytes below the paths; a file with several names counts once."""
    files = [f for place in places for f in ([place] if place.is_file() else place.rglob("*")) if f.is_file()]
    stats = [file.stat() for file in files]
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())


def next_commands(run: RunFolder, data: VideoData) -> list[str]:
    """What to type after a training: to score it, to look at its losses, and to make a video.

    The video is of the first test sequence where that lies in files, else of a whole split.
    """
    split = () if data.has_split("val") else ("--split", "train")
    return [typed("evaluate", run.path, *split), typed("plot", "loss", run.path), _video(run, data, split)]


def _video(run: RunFolder, data: VideoData, split: tuple[str, ...]) -> str:
    test = data.splits.get("test", ())
    folder, name = data.source / "test", test[0].name if test else ""
    if test and (folder / "test_img" / name).is_dir():
        frames = numbered.sort(numbered.visible(folder / "test_img" / name), (".png",)).by_number
        if frames:
            first = frames[min(frames)]
            return typed("generate", run.path, "--first-frame", first, "--poses", folder / "test_label" / name)
    if test and (folder / name).is_dir():
        return typed("generate", run.path, "--trajectory", folder / name)
    split = () if test else split or ("--split", "val")
    return typed("export", run.path, *split, "-o", run.path / "videos.csv", "--gifs", run.path / "videos")
