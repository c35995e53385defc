"""Overviews of runs without loading them: progress, settings, scores, and space on disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
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
    """The overview of a run. state: "running", "finished", "resumable", "no checkpoint" or "damaged"; size in bytes."""

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
        """The commands to type next."""
        match self.state:
            case "running":
                return [typed("plot", "loss", self.path, "--terminal")]
            case "damaged":
                return [typed("checkpoint", "verify", self.path)]
            case "no checkpoint":
                return [typed("config", "show", self.path)]
        # a run without a score may have no val split
        score = [] if self.best_psnr is None else [typed("evaluate", self.path)]
        if self.state == "resumable":
            return [typed("resume", self.path), *score]
        more = "--more-minutes" if self.epoch < self.epochs else "--more-epochs"  # its minutes ended first
        return [*score, typed("plot", "loss", self.path), typed("resume", self.path, more, 10)]


def find(given: Sequence[Path] | None, started: bool = True) -> list[RunFolder]:
    """The runs that the arguments name, the newest last; a folder of runs stands for all runs in it.

    Unless ``started``, they include folders that ``create_run`` made but in which no training began. Raises
    ``DataError`` for a name that is neither.
    """
    places: set[Path] = set()
    for place in given or [ROOT]:
        if is_run(place) or (not started and was_made(place)):
            places.add(place)
        elif inside := runs_in(place, started):
            places.update(inside)
        elif given:
            places.add(find_run(place).path)
        else:
            raise DataError(
                f"there is no run yet under {ROOT}.",
                "Train one, on a synthetic dance: vidcvae train --preset anchor-cpu --max-minutes 3",
            )

    def age(path: Path) -> int:
        run = RunFolder(path)
        return (run.config if run.config.exists() else run.info).stat().st_mtime_ns

    return [RunFolder(path) for path in sorted(places, key=age)]


def overview(run: RunFolder) -> Overview:
    """The overview of a run; raises nothing for a damaged file, but reports it."""
    size = disk_use([run.path])
    path = str(run.path)
    try:
        config = config_of(run)
        history = read_history(run.history) if run.history.exists() else []
        last = run.checkpoints / checkpoint.LAST
        meta = checkpoint.read_header(last)[0] if last.exists() else None
    except VidcvaeError as error:
        return Overview(path, "damaged", size=size, problem=" ".join(error.message.split()))
    scores = [record["psnr_zero"] for record in history if record.get("kind") == "validation"]
    if lock.holder(run.path):
        state = "running"
    elif meta is None:
        state = "no checkpoint"
    else:
        state = "finished" if is_finished(config, meta) else "resumable"
    return Overview(
        path=path,
        state=state,
        model=config.model.name,
        data=config.data.path,
        epoch=meta.epoch if meta else 0,
        epochs=config.training.epochs,
        step=meta.step if meta else 0,
        minutes=meta.minutes or 0.0 if meta else 0.0,
        best_psnr=max(scores, default=None),
        size=size,
    )


def is_finished(config: Config, meta: checkpoint.CheckpointMeta) -> bool:
    """Whether a checkpoint with metadata ``meta`` has had all its epochs, or its minutes and the last validation."""
    limit = config.training.max_minutes
    in_epoch = bool((meta.progress or {}).get("epoch", {}).get("count"))
    return meta.epoch >= config.training.epochs or (0 < limit <= (meta.minutes or 0.0) and not in_epoch)


def with_history(given: Sequence[Path] | None, voice: Voice = SILENT) -> list[RunFolder]:
    """The run folders that the arguments name, or the newest one; a checkpoint file stands for its run."""
    if not given:
        newest = find_run(None)
        voice.note(f"no RUN given: using the newest, {newest.path}")
        return [newest]
    folders = []
    for path in given:
        folder = find_checkpoint(path)[1] if path.is_file() else find_run(path)
        if folder is None:
            raise DataError(f"{path} lies outside its run, so there is no history to draw.", "Give the run's folder.")
        folders.append(folder)
    return folders


def config_of(run: RunFolder) -> Config:
    return settings.resolve_saved(settings.read_toml(run.config))


def settings_of(path: Path) -> Config:
    """The settings of a run or of a checkpoint file."""
    if path.is_file() or path.suffix == ".safetensors":
        return settings.resolve_saved(checkpoint.read(find_checkpoint(path)[0]).meta.config)
    return config_of(find_run(path))


def changed_settings(run: RunFolder) -> dict[str, Any]:
    """The settings of a run that differ from the defaults of its model."""
    config = config_of(run)
    default = settings.resolve_saved({"model": {"name": config.model.name}})
    return {key: value for key, (_, value) in settings.differences(default, config).items()}


def score_of(run: RunFolder) -> str:
    """The ordinary score of the run's best (else last) checkpoint, and how that was chosen, in words."""
    try:
        path, _ = find_checkpoint(run.path)
        record = records.ordinary_without_data(run, *checkpoint.read_header(path))
    except VidcvaeError:
        return "none"
    if record is None:
        return "none yet"
    return f"{record['psnr_mean']:.2f} dB, z = 0; checkpoint: {records.selection_text(record)}"


def disk_use(places: Sequence[Path]) -> int:
    """The bytes that files and folders take; a file with several hard links counts once."""
    inside = (Path(folder, name) for place in places for folder, _, names in os.walk(place) for name in names)
    sizes: dict[tuple[int, int], int] = {}
    for file in (*places, *inside):
        with contextlib.suppress(OSError):  # a training may have removed it in the meantime
            stat = file.stat()
            if S_ISREG(stat.st_mode):
                sizes[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(sizes.values())


def checkpoints_of(run: RunFolder) -> list[dict[str, Any]]:
    """The name, size and step of each checkpoint file. A running training may remove files meanwhile; these are left
    out. Raises ``DataError`` for a damaged one."""
    found = []
    for path in sorted(run.checkpoints.glob("*.safetensors")):
        try:
            found.append({"file": path.name, "size": path.stat().st_size, "step": checkpoint.read_header(path)[0].step})
        except (FileNotFoundError, DataError):
            if path.exists():
                raise
    return found


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
