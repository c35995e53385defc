"""Starting and resuming a run: what ``vidcvae train``, ``resume`` and ``demo`` do, with somebody to tell of it."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vidcvae import __version__
from vidcvae import config as settings
from vidcvae.errors import DataError, UsageError, counted, typed

if TYPE_CHECKING:
    from vidcvae.config import Config
    from vidcvae.data.clips import VideoData
    from vidcvae.models.loading import Loaded
    from vidcvae.storage.checkpoint import Checkpoint
    from vidcvae.storage.run import RunFolder
    from vidcvae.training.distributed import Ranks
    from vidcvae.training.loop import Outcome
    from vidcvae.training.schedules import Length


class Audience(Protocol):
    """Who is told what happens: in words, by progress, and by the events of a training."""

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
    """A training whose input was checked, and for which nothing was written yet. doubts: what is probably not meant."""

    config: Config
    data: VideoData
    device: str
    initial: Loaded | None
    length: Length
    doubts: tuple[str, ...]
    tensorboard: bool
    ranks: Ranks


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
    """Check settings, data, memory and initial weights, before a folder is made. ``data`` need not lie on disk."""
    import torch

    from vidcvae.data.dataset import told_size
    from vidcvae.models import loading
    from vidcvae.output import tensorboard as log
    from vidcvae.storage.run import ROOT, check_free
    from vidcvae.training import batches, distributed, host_memory, schedules
    from vidcvae.workflow.datasets import check_kind, open_dataset, sized

    if tensorboard:
        log.check()
    ranks = distributed.join(config)
    audience.tell_failures()
    if path and not distributed.started_by_torchrun():  # whose processes may be started anew, with the run there
        check_free(path)
    device = loading.pick_device(config.training.device)
    cache = (path.parent if path else ROOT) / ".cache"
    if data is None:
        check_kind(config.data.path, config.model.condition)
    config, given = sized(config, data), data
    if data is None:
        with audience.progress("reading the data") as advance:
            data = ranks.main_first(
                lambda: open_dataset(config.data.path, config.data.frame_size, cache if keep_images else None, advance)
            )
    if given is None and (told := told_size(data, "--size ")):
        audience.note(told)
    audience.detail(f"data: {data.source} ({data.kind}), decoded images are kept in {cache}")
    audience.detail(f"device: {device} ({config.training.device} was asked for), {torch.get_num_threads()} threads")
    length = batches.run_length(config, data)
    if device == "cpu":
        host_memory.must_suffice(config, ranks.world, batches.clips_of_epoch(config, data))
    initial = loading.load_model(init, weights="raw") if init else None
    if initial:
        loading.check_fit(config, initial.model.state_dict(), initial.path)
    doubts = (*schedules.warnings(config, length), *batches.warnings(config, data))
    return Prepared(config, data, device, initial, length, doubts, tensorboard, ranks)


def start(prepared: Prepared, audience: Audience, *, name: str, path: Path | None = None) -> RunFolder:
    """Make a run folder, ``path`` or runs/NAME-N, and train in it."""
    import torch

    from vidcvae.device import processor
    from vidcvae.output import tensorboard as log
    from vidcvae.storage import durable
    from vidcvae.storage.run import RunFolder, create_run
    from vidcvae.training import distributed

    config, data, initial, ranks = prepared.config, prepared.data, prepared.initial, prepared.ranks
    if begun := ranks.from_main(lambda: _begun_by_this_job(path)):  # and torchrun has started its processes anew
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
    """The run that this same command began under this same torchrun, before one of its processes died, or nothing."""
    from vidcvae.storage.run import ROOT, RunFolder, known_info
    from vidcvae.training import distributed

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
    """How long a run is to last that goes on: in total, or in addition to what it has had. None: as it was."""

    epochs: int | None = None
    max_minutes: float | None = None
    more_epochs: int | None = None
    more_minutes: float | None = None

    def totals(self, run: RunFolder, epochs: int, minutes: float) -> dict[str, Any]:
        """The settings that this means for a run that had so many epochs and minutes.

        Raises ``UsageError`` for a total of minutes that the run has used up.
        """
        if self.epochs is not None and self.more_epochs is not None:
            raise UsageError("--epochs and --more-epochs both say how long the run is.", "Leave one of them out.")
        if self.max_minutes is not None and self.more_minutes is not None:
            raise UsageError("--max-minutes and --more-minutes both say how long the run is.", "Leave one of them out.")
        found: dict[str, Any] = {"epochs": self.epochs, "max_minutes": self.max_minutes}
        if self.more_epochs is not None:
            found["epochs"] = epochs + self.more_epochs
        if self.more_minutes is not None:
            found["max_minutes"] = round(minutes + self.more_minutes, 2)
        if self.max_minutes and self.max_minutes <= minutes:
            raise UsageError(
                f"{run.path} has already trained for {minutes:.1f} minutes, and --max-minutes {self.max_minutes:g} "
                f"means minutes in total.",
                f"Go on for so long: {typed('resume', run.path, '--more-minutes', math.ceil(self.max_minutes))}",
            )
        return {key: value for key, value in found.items() if value is not None}


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
    """Go on with a run where a checkpoint of it stands: the "last", the "best", or one in a file.

    data: what it was trained on, where that was no dataset on disk.
    """
    with _holding(folder, audience):
        _resume(folder, audience, resume_from, moved_to, longer, device, data, ranks)


def _resume(
    folder: RunFolder,
    audience: Audience,
    resume_from: str,
    moved_to: str | None,
    longer: Longer,
    device: str | None,
    data: VideoData | None,
    ranks: Ranks | None,
) -> None:
    from vidcvae.storage import durable
    from vidcvae.storage.run import find_data
    from vidcvae.training import distributed
    from vidcvae.workflow.datasets import open_dataset

    wanted = settings.resolve_saved(settings.read_toml(folder.config))
    saved = _find_saved(folder, audience, resume_from)
    before = settings.resolve_saved(saved.meta.config) if saved else wanted
    if saved and before.model != wanted.model:
        raise UsageError(
            f"{saved.path} is of another model than {folder.path}.",
            f"Start a new run from its weights: {typed('train', '--init', saved.path)}",
        )
    config, edited = settings.continued(before, wanted)
    if saved and edited:
        told = ", ".join(f"{key} {a} -> {b}" for key, (a, b) in edited.items())
        raise UsageError(
            f"{folder.config} is not what {saved.path} was trained with: {told}. A run goes on as it began.",
            f"Undo that, or start a new run from the weights of this one: "
            f"{typed('train', '--config', folder.config, '--init', saved.path)}",
        )
    epochs = saved.meta.epoch if saved else 0
    minutes = (saved.meta.minutes if saved else None) or 0.0
    given = longer.totals(folder, epochs, minutes) | ({"device": device} if device else {})
    if data is None and not (moved_to or config.data.path):
        raise UsageError(
            f"{folder.path} was trained from Python, on data that were no dataset on disk.",
            f"Go on from Python: vidcvae.resume({str(folder.path)!r}, data)",
        )
    place = config.data.path if data else _absolute(moved_to or find_data(folder.path, folder, config.data.path))
    config = settings.with_values(config, {"training": given, "data": {"path": place}})
    ranks = ranks or distributed.join(config)
    audience.tell_failures()
    if config.training.epochs < epochs:
        raise UsageError(
            f"{folder.path} has already finished {counted(epochs, 'epoch')}, more than the "
            f"{config.training.epochs} that it is to have in total.",
            f"Go on for 10 more: {typed('resume', folder.path, '--more-epochs', 10)}",
        )
    timed_out = config.training.max_minutes and minutes >= config.training.max_minutes
    if timed_out and "epochs" in given:
        raise UsageError(
            f"{folder.path} had its {config.training.max_minutes:g} minutes, so more epochs alone do not lengthen it.",
            f"Give it minutes: {typed('resume', folder.path, '--more-minutes', 10)}",
        )
    given_data = data is not None
    if data is None:
        with audience.progress("reading the data") as advance:
            data = ranks.main_first(
                lambda: open_dataset(config.data.path, config.data.frame_size, folder.cache, advance)
            )
    if saved and (moved_to or given_data):
        _check_same_data(folder, data)
    changed = settings.differences(before, config)
    if _absolute(before.data.path) == place:  # older runs have it as it was typed
        changed.pop("data.path", None)
    if changed:
        told = ", ".join(f"{key} {a} -> {b}" for key, (a, b) in changed.items())
        follow = "; schedules follow the new length" if "training.epochs" in changed else ""
        audience.note(f"changed: {told}{follow}")
    if config != wanted and ranks.main:
        durable.write_text(folder.config, settings.to_toml(config))
    finished = epochs >= config.training.epochs
    if finished or timed_out:
        spent = counted(epochs, "epoch") if finished else f"{config.training.max_minutes:g} minutes"
        audience.note(f"{folder.path} is finished: it had its {spent}.")
        option = ("--more-epochs", 10) if finished else ("--more-minutes", 10)
        audience.note(f"To go on: {typed('resume', folder.path, *option)}")
        audience.finished({"kind": "finished", "run": str(folder.path), "epochs": epochs, "minutes": minutes})
        return
    _train(folder, config, data, audience, saved, None if saved else _initial_weights(folder), ranks)


def _absolute(path: str) -> str:
    """Where a dataset lies, wherever a command is typed; synthetic ones, and those of Python programs, lie nowhere."""
    return path if not path or path.startswith("synthetic:") else str(Path(path).absolute())


def _frames(data: VideoData) -> list[int]:
    """Sequences and frames that are trained on."""
    train = data.split("train")
    return [len(train), sum(map(len, train))]


def _check_same_data(run: RunFolder, data: VideoData) -> None:
    """Raise ``DataError`` if the dataset is plainly not the one that the run began with."""
    from vidcvae.storage.run import known_info

    now = _frames(data)
    if known_info(run).get("train", now) != now:  # older runs do not tell
        raise DataError(
            f"{data.source} is not what {run.path} began with: it has "
            f"{counted(now[1], 'training frame')} in {counted(now[0], 'sequence')}.",
            f"Train on it from these weights: {typed('train', data.source, '--init', run.path)}",
        )


def _find_saved(run: RunFolder, audience: Audience, resume_from: str) -> Checkpoint | None:
    """The checkpoint to go on from; None where the run came to its end before its first one."""
    from vidcvae.storage import checkpoint

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
        step = saved.meta.step
        audience.warn(
            f"going on from {saved.path} instead, which stands at step {step}; what came later is trained again"
        )
    return saved


def _initial_weights(run: RunFolder) -> dict[str, Any] | None:
    """The weights that ``train --init`` was given."""
    from vidcvae.models.loading import load_model
    from vidcvae.storage.run import read_info

    try:
        init = read_info(run)["init"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{run.info} does not tell from what weights the run began: {error}.", "Start another one: vidcvae train"
        ) from None
    return load_model(init, weights="raw").model.state_dict() if init else None


@contextlib.contextmanager
def _holding(run: RunFolder, audience: Audience) -> Iterator[None]:
    """Be the only one that writes into a run; under torchrun, rank 0 writes, and holds it for all."""
    from vidcvae.storage import durable, lock
    from vidcvae.training import distributed

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
    from vidcvae.output import tensorboard
    from vidcvae.training import loop

    with ranks.parting(), audience.watching() as shown, contextlib.ExitStack() as files:
        report = shown
        if ranks.main and tensorboard.folder(run).is_dir():  # asked for when the run began
            step = saved.meta.step if saved else 0
            report = files.enter_context(tensorboard.logging(run, data, step, shown))
        outcome = loop.train(run, config, data, report=report, resume=saved, weights=weights, ranks=ranks)
    audience.trained(outcome, data)
