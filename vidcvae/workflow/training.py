"""Start and resume runs: the work of ``vidcvae train``, ``resume`` and ``demo``."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from vidcvae import __version__
from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import VideoData
from vidcvae.data.dataset import resize_note
from vidcvae.device import processor
from vidcvae.errors import DataError, UsageError, counted, typed
from vidcvae.models import loading
from vidcvae.models.loading import Loaded
from vidcvae.output import tensorboard as log
from vidcvae.storage import checkpoint, durable, lock
from vidcvae.storage.checkpoint import Checkpoint
from vidcvae.storage.run import ROOT, RunFolder, check_free, create_run, find_data, known_info, read_info
from vidcvae.training import batches, distributed, host_memory, loop, schedules
from vidcvae.training.distributed import Ranks
from vidcvae.training.loop import Outcome
from vidcvae.training.schedules import Length
from vidcvae.workflow.at_glance import is_finished
from vidcvae.workflow.datasets import check_kind, open_dataset, sized


class Audience(Protocol):
    """Receives messages, progress and the events of a training."""

    def note(self, text: str) -> None: ...
    def detail(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def tell_failures(self) -> None: ...
    def progress(self, title: str) -> contextlib.AbstractContextManager[Callable[[int, int], None]]: ...
    def watching(self) -> contextlib.AbstractContextManager[Callable[[dict[str, Any]], None]]: ...
    def trained(self, outcome: Outcome, data: VideoData) -> None: ...
    def finished(self, event: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Prepared:
    """A training whose input is checked, before anything is written."""

    config: Config
    data: VideoData
    device: str
    initial: Loaded | None
    length: Length
    tensorboard: bool
    ranks: Ranks

    @property
    def doubts(self) -> tuple[str, ...]:
        """Warnings about probable mistakes. They may take seconds to find; a training tells them as it begins."""
        return _doubts(self.config, self.data, self.length)


def prepare(
    config: Config,
    audience: Audience,
    *,
    path: Path | None = None,
    init: Path | None = None,
    data: VideoData | None = None,
    tensorboard: bool = False,
    keep_images: bool = True,
) -> Prepared:
    """Check settings, data, memory and initial weights before a folder is made. ``data`` need not be on disk."""
    if tensorboard:
        log.check()
    ranks = distributed.join(config)
    audience.tell_failures()
    if path and not distributed.started_by_torchrun():  # torchrun may restart a process whose run exists already
        check_free(path)
    device = loading.pick_device(config.training.device)
    cache = (path.parent if path else ROOT) / ".cache" if keep_images else None
    kept = ""
    if data:
        config = sized(config, data)
    else:
        check_kind(config.data.path, config.model.condition_kind)
        config = sized(config)
        data = _read_data(config, cache, ranks, audience)
        kept = f", decoded images are kept in {cache}" if cache and data.files_size else ""
        if resized := resize_note(data, "--size "):
            audience.note(resized)
    audience.detail(f"data: {data.source} ({data.kind}){kept}")
    audience.detail(f"device: {device} (training.device: {config.training.device}), {torch.get_num_threads()} threads")
    length = _checked_length(config, data, device, ranks.world)
    initial = loading.load_model(init, weights="raw") if init else None
    if initial:
        loading.check_fit(config, initial.model.state_dict(), initial.path)
    return Prepared(config, data, device, initial, length, tensorboard, ranks)


def length_and_doubts(config: Config, data: VideoData, device: str) -> tuple[Length, tuple[str, ...]]:
    """The length of a training in one process, and warnings about probable mistakes; raises as ``prepare`` does."""
    length = _checked_length(config, data, device)
    return length, _doubts(config, data, length)


def _checked_length(config: Config, data: VideoData, device: str, world: int = 1) -> Length:
    """The length of a training.

    Raises ``DataError`` as ``batches.run_length`` does, and ``VidcvaeError`` if a CPU training needs too much memory.
    """
    length = batches.run_length(config, data)
    if device == "cpu":
        host_memory.must_suffice(config, world, batches.clips_of_epoch(config, data))
    return length


def _doubts(config: Config, data: VideoData, length: Length) -> tuple[str, ...]:
    data_doubts = batches.warnings(config, data, batches.empty_scene(config, data))
    return (*schedules.warnings(config, length), *data_doubts)


def start(prepared: Prepared, audience: Audience, *, name: str, path: Path | None = None) -> RunFolder:
    """Make a run folder, ``path`` or runs/NAME-N, and train in it."""
    config, data, initial, ranks = prepared.config, prepared.data, prepared.initial, prepared.ranks
    if begun := ranks.from_main(lambda: _begun_by_this_job(path)):  # torchrun has restarted its processes
        run = RunFolder(Path(begun))
        resume(run, audience, ranks=ranks)
        return run
    run = RunFolder(Path(ranks.from_main(lambda: str(create_run(name, path).path))))
    as_typed, config = config.data.path, settings.with_values(config, {"data": {"path": _absolute(config.data.path)}})
    with _holding(run, audience):
        if ranks.main:
            durable.write_json(
                run.info,
                {
                    "command": sys.argv,
                    "torchrun": distributed.job(),
                    "data": as_typed,
                    "train": _frames(data),
                    "init": str(initial.path.resolve()) if initial else None,
                    "vidcvae": __version__,
                    "torch": torch.__version__,
                    "python": sys.version.split()[0],
                    "processor": torch.cuda.get_device_name() if prepared.device == "cuda" else processor(),
                },
            )
            durable.write_text(run.config, settings.to_toml(config))
            if prepared.tensorboard:
                log.folder(run).mkdir(exist_ok=True)
        _train(run, config, data, audience, None, initial.model.state_dict() if initial else None, ranks)
    return run


def _begun_by_this_job(path: Path | None) -> str:
    """The run that this command began under this torchrun before one of its processes died, or the empty string."""
    if not distributed.started_by_torchrun():
        return ""
    for folder in [path] if path else sorted(ROOT.glob("*/"), reverse=True):
        run = RunFolder(folder)
        info = known_info(run)
        with contextlib.suppress(TypeError, KeyError):
            if distributed.is_of_this_job(info["torchrun"]) and info["command"] == sys.argv and run.config.is_file():
                return str(folder)
    return ""


@dataclass(frozen=True)
class Longer:
    """The new length of a resumed run: in total, or in addition to what it has had. None keeps the old one."""

    epochs: int | None = None
    max_minutes: float | None = None
    more_epochs: int | None = None
    more_minutes: float | None = None

    def totals(self, run: RunFolder, epochs: int, minutes: float) -> dict[str, Any]:
        """The settings that result for a run that has had ``epochs`` and ``minutes``.

        Raises ``UsageError`` for contradictory options, and for a total of minutes that the run has used up.
        """
        if self.epochs is not None and self.more_epochs is not None:
            raise UsageError("--epochs and --more-epochs both set the length of the run.", "Leave one of them out.")
        if self.max_minutes is not None and self.more_minutes is not None:
            raise UsageError(
                "--max-minutes and --more-minutes both set the length of the run.", "Leave one of them out."
            )
        if self.max_minutes and self.max_minutes <= minutes:
            raise UsageError(
                f"{run.path} has already trained for {minutes:.1f} minutes, and --max-minutes {self.max_minutes:g} "
                f"is a total.",
                f"Give it more time: {typed('resume', run.path, '--more-minutes', math.ceil(self.max_minutes))}",
            )
        totals = {
            "epochs": self.epochs if self.more_epochs is None else epochs + self.more_epochs,
            "max_minutes": self.max_minutes if self.more_minutes is None else round(minutes + self.more_minutes, 2),
        }
        return {key: value for key, value in totals.items() if value is not None}


def resume(
    folder: RunFolder,
    audience: Audience,
    *,
    resume_from: str = "last",
    moved_to: str | None = None,
    longer: Longer = Longer(),
    device: str | None = None,
    data: VideoData | None = None,
    ranks: Ranks | None = None,
) -> None:
    """Continue a run from a checkpoint: its "last", its "best", or a file.

    moved_to: where the dataset is now. data: the training data, if they are not a dataset on disk.
    """
    with _holding(folder, audience):
        in_file = settings.resolve_saved(settings.read_toml(folder.config))
        saved = _find_saved(folder, audience, resume_from)
        before = settings.resolve_saved(saved.meta.config) if saved else in_file
        config = _continued(folder, saved, before, in_file) if saved else in_file
        epochs = saved.meta.epoch if saved else 0
        minutes = saved.meta.minutes or 0.0 if saved else 0.0
        lengths = longer.totals(folder, epochs, minutes)
        if data is None and not (moved_to or config.data.path):
            raise UsageError(
                f"{folder.path} was trained from Python, on data that are not on disk.",
                f"Resume it from Python: vidcvae.resume({str(folder.path)!r}, data)",
            )
        place = config.data.path if data else _absolute(moved_to or find_data(folder.path, folder, config.data.path))
        changes = lengths | ({"device": device} if device else {})
        config = settings.with_values(config, {"training": changes, "data": {"path": place}})
        ranks = ranks or distributed.join(config)
        audience.tell_failures()
        out_of_minutes = bool(config.training.max_minutes and minutes >= config.training.max_minutes)
        _check_length(folder, config, epochs, out_of_minutes and "epochs" in lengths)
        may_be_other_data = moved_to or data
        data = data or _read_data(config, folder.cache, ranks, audience)
        if saved and may_be_other_data:
            _check_same_data(folder, data)
        changed = settings.differences(before, config)
        if _absolute(before.data.path) == place:  # older runs keep the path as it was typed
            changed.pop("data.path", None)
        if changed:
            follow = "; schedules are fitted to the new length" if "training.epochs" in changed else ""
            audience.note(f"changed: {_listed(changed)}{follow}")
        if config != in_file and ranks.main:
            durable.write_text(folder.config, settings.to_toml(config))
        if saved and is_finished(config, saved.meta):
            finished = epochs >= config.training.epochs
            spent = counted(epochs, "epoch") if finished else f"{config.training.max_minutes:g} minutes"
            audience.note(f"{folder.path} is finished: it has had its {spent}.")
            option = "--more-epochs" if finished else "--more-minutes"
            audience.note(f"To train it further: {typed('resume', folder.path, option, 10)}")
            audience.finished({"kind": "finished", "run": str(folder.path), "epochs": epochs, "minutes": minutes})
            return
        _train(folder, config, data, audience, saved, None if saved else _initial_weights(folder), ranks)


def _continued(folder: RunFolder, saved: Checkpoint, before: Config, in_file: Config) -> Config:
    """``before`` with the changes in config.toml that a resumed run may make; raises ``UsageError`` for others."""
    if before.model != in_file.model:
        raise UsageError(
            f"{saved.path} holds another model than {folder.path}.",
            f"Start a new run from its weights: {typed('train', '--init', saved.path)}",
        )
    config, refused = settings.continued(before, in_file)
    if refused:
        raise UsageError(
            f"{folder.config} differs from what {saved.path} was trained with: {_listed(refused)}. These settings "
            f"cannot change within a run.",
            f"Undo the change, or start a new run from these weights: "
            f"{typed('train', '--config', folder.config, '--init', saved.path)}",
        )
    return config


def _listed(differences: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {a} -> {b}" for key, (a, b) in differences.items())


def _check_length(folder: RunFolder, config: Config, epochs: int, only_epochs_added: bool) -> None:
    """Raise ``UsageError`` if the run has had more epochs than it is to have, or no minutes are left for added ones."""
    if config.training.epochs < epochs:
        raise UsageError(
            f"{folder.path} has already finished {counted(epochs, 'epoch')}, more than the total of "
            f"{config.training.epochs} that is set.",
            f"Train for 10 more: {typed('resume', folder.path, '--more-epochs', 10)}",
        )
    if only_epochs_added:
        raise UsageError(
            f"{folder.path} has used its {config.training.max_minutes:g} minutes, so more epochs alone do not extend "
            f"it.",
            f"Add minutes: {typed('resume', folder.path, '--more-minutes', 10)}",
        )


def _read_data(config: Config, cache: Path | None, ranks: Ranks, audience: Audience) -> VideoData:
    with audience.progress("reading the data") as advance:
        return ranks.main_first(lambda: open_dataset(config.data.path, config.data.frame_size, cache, advance))


def _absolute(path: str) -> str:
    """The absolute path of a dataset; synthetic data and the empty path of data from Python stay as they are."""
    return path if not path or path.startswith("synthetic:") else str(Path(path).absolute())


def _frames(data: VideoData) -> list[int]:
    """The number of training sequences and of their frames."""
    train = data.split("train")
    return [len(train), sum(map(len, train))]


def _check_same_data(run: RunFolder, data: VideoData) -> None:
    """Raise ``DataError`` if the dataset has other numbers of sequences or frames than the run began with."""
    now = _frames(data)
    if known_info(run).get("train", now) != now:  # older runs do not record it
        raise DataError(
            f"{data.source} is not the dataset that {run.path} began with: it has "
            f"{counted(now[1], 'training frame')} in {counted(now[0], 'sequence')}.",
            f"Train on it from these weights: {typed('train', data.source, '--init', run.path)}",
        )


def _find_saved(run: RunFolder, audience: Audience, resume_from: str) -> Checkpoint | None:
    """The checkpoint to resume from; None if the run stopped before its first one."""
    if resume_from != "last":
        file = run.checkpoints / checkpoint.BEST if resume_from == "best" else Path(resume_from)
        return checkpoint.read(file)
    if not any(run.checkpoints.glob("*.safetensors")):
        audience.note(f"{run.path} has no checkpoint yet: it starts from the beginning")
        return None
    saved, problems = checkpoint.read_newest(run.checkpoints)
    for problem in problems:
        audience.warn(problem.message)
    if problems:
        audience.warn(f"resuming from {saved.path} instead, at step {saved.meta.step}; later steps are trained again")
    return saved


def _initial_weights(run: RunFolder) -> dict[str, Any] | None:
    """The weights that ``train --init`` was given."""
    try:
        init = read_info(run)["init"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{run.info} does not say which weights the run started from: {error}.", "Start a new run: vidcvae train"
        ) from None
    return loading.load_model(init, weights="raw").model.state_dict() if init else None


@contextlib.contextmanager
def _holding(run: RunFolder, audience: Audience) -> Iterator[None]:
    """Lock a run for writing; under torchrun only rank 0 writes, and holds the lock."""
    if not distributed.is_main():
        yield
        return
    with lock.holding(run.path) as died:
        if died:
            audience.note(f"{run.path} was left by {died}, which died; taking over")
        durable.clean_leftovers(run.path)
        yield


def _train(
    run: RunFolder,
    config: Config,
    data: VideoData,
    audience: Audience,
    saved: Checkpoint | None,
    weights: dict[str, Any] | None,
    ranks: Ranks,
) -> None:
    with ranks.parting(), audience.watching() as shown, contextlib.ExitStack() as files:
        report = shown
        if ranks.main and log.folder(run).is_dir():  # made when the run began, if --tensorboard was given
            step = saved.meta.step if saved else 0
            report = files.enter_context(log.logging(run, data, step, shown))
        outcome = loop.train(run, config, data, report=report, resume=saved, weights=weights, ranks=ranks)
    audience.trained(outcome, data)
