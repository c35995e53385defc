"""``vidcvae train`` and ``vidcvae resume``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae import schema
from vidcvae.cli import choice, completion, configuration, trained, ui
from vidcvae.cli.configuration import PROJECT_FILE
from vidcvae.errors import DataError, UsageError, counted, typed

if TYPE_CHECKING:
    from vidcvae.config import Config
    from vidcvae.data.clips import VideoData
    from vidcvae.storage.checkpoint import Checkpoint
    from vidcvae.storage.run import RunFolder
    from vidcvae.training.distributed import Ranks

Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the training clips.")]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        "--max-minutes",
        help="End the training after this many minutes. Schedules are fitted to them; the last validation comes after.",
    ),
]
Device = Annotated[schema.Device | None, choice.option(schema.Device, "--device", help="Where to train.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON event a line on standard output.")]
Plain = Annotated[bool, typer.Option("--plain", help="Plain lines instead of a live display.")]


def train(
    dataset: Annotated[
        str | None,
        typer.Argument(help="Dataset folder, packed dataset, or synthetic:dance.", show_default=False),
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Run folder; runs/NAME-N if left out.")] = None,
    preset: configuration.Preset = None,
    config: configuration.File = None,
    set_: configuration.Set = None,
    model: configuration.Model = None,
    epochs: Epochs = None,
    max_minutes: MaxMinutes = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Clips in a step.")] = None,
    clip_length: Annotated[int | None, typer.Option("--clip-length", help="Frames in a clip.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="HxW", help="Frame size, such as 32x64.")] = None,
    partial: Annotated[float | None, typer.Option("--partial", help="Share of the clips that is used.")] = None,
    fast_train: Annotated[
        bool, typer.Option("--fast-train", help="Use 40% of the clips in the first 5 epochs, as the course does.")
    ] = False,
    device: Device = None,
    precision: Annotated[
        schema.Precision | None, choice.option(schema.Precision, "--precision", help=trained.PRECISION)
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Fuse small operations with torch.compile; needs a C++ compiler.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init", help="Start from the weights of this run or checkpoint.", autocompletion=completion.runs
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log into RUN/tensorboard too (extra: tensorboard).")
    ] = False,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Train a model.

    Without DATASET it takes data.path of vidcvae.toml in this folder, else the built-in synthetic dance.
    """
    from vidcvae import config as settings

    options: dict[str, dict[str, Any]] = {
        "model": {"name": model},
        "data": {"path": dataset, "size": size, "partial": partial, "fast_train": fast_train or None},
        "optimizer": {"lr": lr},
        "training": {
            "epochs": epochs,
            "max_minutes": max_minutes,
            "batch_size": batch_size,
            "clip_length": clip_length,
            "device": device,
            "precision": precision,
            "compile": compile_ or None,
            "seed": seed,
        },
    }
    given = {s: {k: v for k, v in table.items() if v is not None} for s, table in options.items()}
    resolved = configuration.gather(preset, config, set_, {section: table for section, table in given.items() if table})
    if PROJECT_FILE.exists() and not json:
        ui.note(f"using {PROJECT_FILE} of this folder")
    if not resolved.data.path:
        resolved = settings.with_values(resolved, {"data": {"path": settings.builtin_data(resolved)}})
        ui.note(f"no DATASET given: training on the built-in {resolved.data.path}")

    name = preset or (config.stem if config else resolved.model.name)
    mode = _mode(json, plain)
    start(resolved, name=name, path=run, init=init, dry_run=dry_run, mode=mode, tensorboard=tensorboard)


def start(
    config: Config,
    *,
    name: str,
    path: Path | None = None,
    init: Path | None = None,
    dry_run: bool = False,
    mode: str = "auto",
    tensorboard: bool = False,
) -> RunFolder | None:
    """Make a run folder and train in it; all input is checked before the folder is made."""
    import sys

    import torch

    from vidcvae import __version__
    from vidcvae import config as settings
    from vidcvae.data import open_dataset
    from vidcvae.machine import processor
    from vidcvae.models import loading
    from vidcvae.output import tensorboard as log
    from vidcvae.storage import durable
    from vidcvae.storage.run import ROOT, RunFolder, create_run
    from vidcvae.training import batches, distributed, host_memory, schedules

    if tensorboard:
        log.check()
    ranks = distributed.join(config)
    ui.tell_failures()
    chosen = loading.pick_device(config.training.device)
    cache = (path.parent if path else ROOT) / ".cache"
    with ui.progress("reading the data", quiet=mode == "json") as advance:
        data = ranks.main_first(
            lambda: open_dataset(config.data.path, config.data.size, None if dry_run else cache, advance)
        )
    ui.detail(f"data: {data.source} ({data.kind}), decoded images are kept in {cache}")
    ui.detail(f"device: {chosen} ({config.training.device} was asked for), {torch.get_num_threads()} threads")
    length = batches.run_length(config, data)
    if chosen == "cpu":
        host_memory.must_suffice(config, ranks.world)
    initial = loading.load_model(init, weights="raw") if init else None
    if initial:
        loading.check_fit(config, initial.model.state_dict(), initial.path)
    if dry_run:
        doubts = [*schedules.warnings(config, length), *batches.warnings(config, data)]
        if mode == "json":
            plan = {"epochs": length.epochs, "steps": length.steps, "config": settings.to_table(config)}
            ui.emit({"kind": "plan", **plan, "warnings": doubts})
        else:
            ui.say(settings.to_toml(config))
            ui.say(f"# {counted(length.epochs, 'epoch')}, {counted(length.steps, 'step')}; nothing was written")
        for text in doubts:
            ui.warn(text)
        return None
    if begun := ranks.from_main(lambda: _begun_by_this_job(path)):  # and torchrun has started its processes anew
        run = RunFolder(Path(begun))
        with _holding(run):
            _resume(run, "last", None, {}, mode, ranks)
        return run
    run = RunFolder(Path(ranks.from_main(lambda: str(create_run(name, path).path))))
    as_typed, config = (
        config.data.path,
        settings.with_values(config, {"data": {"path": trained.absolute(config.data.path)}}),
    )
    with _holding(run):
        if ranks.main:
            durable.write_json(
                run.info,
                {
                    "command": sys.argv,
                    "torchrun": distributed.job(),
                    "data": as_typed,
                    "train": trained.extent(data),
                    "init": str(initial.path.resolve()) if initial else None,
                    "vidcvae": __version__,
                    "torch": torch.__version__,
                    "python": sys.version.split()[0],
                    "processor": torch.cuda.get_device_name() if chosen == "cuda" else processor(),
                },
            )
            durable.write_text(run.config, settings.to_toml(config))
            if tensorboard:
                log.folder(run).mkdir(exist_ok=True)
        _train(run, config, data, mode, None, initial.model.state_dict() if initial else None, ranks)
    return run


def _begun_by_this_job(path: Path | None) -> str:
    """The run that this same command began under this same torchrun, before one of its processes died, or nothing."""
    import sys

    from vidcvae.storage.run import ROOT, RunFolder, read_info
    from vidcvae.training import distributed

    if not distributed.started_by_torchrun():
        return ""
    for folder in [path] if path else sorted(ROOT.glob("*/"), reverse=True):
        run = RunFolder(folder)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            info = read_info(run)
            if distributed.is_of_this_job(info["torchrun"]) and info["command"] == sys.argv and run.config.is_file():
                return str(folder)
    return ""


def resume(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder; the newest if left out.", show_default=False, autocompletion=completion.runs),
    ] = None,
    resume_from: Annotated[
        str,
        typer.Option(
            "--resume-from",
            metavar="last|best|FILE",
            help="Which checkpoint; what came after it is given up.",
            autocompletion=lambda: ["last", "best"],
        ),
    ] = "last",
    data: Annotated[
        str | None, typer.Option("--data", help="Where the dataset is now, if it was moved.", show_default=False)
    ] = None,
    epochs: Epochs = None,
    max_minutes: MaxMinutes = None,
    device: Device = None,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Go on with a run where its last checkpoint stands, exactly as if it had never stopped.

    Every checkpoint is verified before it is used; where the last one is damaged, the newest good one is taken.
    """
    from vidcvae.storage.run import find_run

    mode = _mode(json, plain)
    folder = find_run(run)
    with _holding(folder):
        _resume(folder, resume_from, data, {"epochs": epochs, "max_minutes": max_minutes, "device": device}, mode)


def _resume(
    folder: RunFolder,
    resume_from: str,
    moved_to: str | None,
    options: dict[str, Any],
    mode: str,
    ranks: Ranks | None = None,
) -> None:
    from vidcvae import config as settings
    from vidcvae.data import open_dataset
    from vidcvae.storage import durable
    from vidcvae.storage.run import find_data
    from vidcvae.training import distributed

    wanted = settings.resolve(settings.read_toml(folder.config))
    saved = _find_saved(folder, resume_from)
    before = settings.resolve(saved.meta["config"]) if saved else wanted
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
    given = {key: value for key, value in options.items() if value is not None}
    place = trained.absolute(moved_to or find_data(folder.path, folder, config.data.path))
    config = settings.with_values(config, {"training": given, "data": {"path": place}})
    ranks = ranks or distributed.join(config)
    ui.tell_failures()
    epochs = saved.meta["epoch"] if saved else 0
    if config.training.epochs < epochs:
        raise UsageError(
            f"{folder.path} has already finished {counted(epochs, 'epoch')}, more than {config.training.epochs}.",
            f"Choose a larger number: {typed('resume', folder.path, '--epochs', before.training.epochs + 10)}",
        )
    with ui.progress("reading the data", quiet=mode == "json") as advance:
        data = ranks.main_first(lambda: open_dataset(config.data.path, config.data.size, folder.cache, advance))
    if saved and moved_to:
        trained.check_same_data(folder, data)
    changed = settings.differences(before, config)
    if trained.absolute(before.data.path) == place:  # older runs have it as it was typed
        changed.pop("data.path", None)
    if changed:
        told = ", ".join(f"{key} {a} -> {b}" for key, (a, b) in changed.items())
        longer = "; schedules follow the new length" if "training.epochs" in changed else ""
        ui.note(f"changed: {told}{longer}")
    if config != wanted and ranks.main:
        durable.write_text(folder.config, settings.to_toml(config))
    finished = epochs >= config.training.epochs
    minutes = saved.meta.get("progress", {}).get("minutes", 0.0) if saved else 0.0
    timed_out = config.training.max_minutes and minutes >= config.training.max_minutes
    if finished or timed_out:
        spent = counted(epochs, "epoch") if finished else f"{config.training.max_minutes:g} minutes"
        ui.note(f"{folder.path} is finished: it had its {spent}.")
        option = ("--epochs", "N") if finished else ("--max-minutes", "M")
        ui.note(f"To go on: {typed('resume', folder.path, *option)}")
        return
    _train(folder, config, data, mode, saved, None if saved else _initial_weights(folder), ranks)


def _find_saved(run: RunFolder, resume_from: str) -> Checkpoint | None:
    """The checkpoint to go on from; None where the run came to its end before its first one."""
    from vidcvae.storage import checkpoint

    if resume_from != "last":
        file = run.checkpoints / checkpoint.BEST if resume_from == "best" else Path(resume_from)
        return checkpoint.read(file)
    if not any(run.checkpoints.glob("*.safetensors")):
        ui.note(f"{run.path} has no checkpoint yet: it starts from the beginning")
        return None
    saved, problems = checkpoint.read_newest(run.checkpoints)
    for problem in problems:
        ui.warn(problem.message)
    if problems:
        step = saved.meta["step"]
        ui.warn(f"going on from {saved.path} instead, which stands at step {step}; what came later is trained again")
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
def _holding(run: RunFolder) -> Iterator[None]:
    """Be the only one that writes into a run; under torchrun, rank 0 writes, and holds it for all."""
    from vidcvae.storage import durable, lock
    from vidcvae.training import distributed

    if not distributed.is_main():
        yield
        return
    with lock.holding(run.path) as died:
        if died:
            ui.note(f"{run.path} was left by {died}, which died; taking over")
        durable.clean_leftovers(run.path)
        yield


def _train(
    run: RunFolder,
    config: Config,
    data: VideoData,
    mode: str,
    saved: Checkpoint | None,
    weights: dict[str, Any] | None,
    ranks: Ranks,
) -> None:
    from vidcvae.cli.training_view import next_commands, tell_outcome, watching
    from vidcvae.output import tensorboard
    from vidcvae.training import loop

    with ranks.parting(), watching(mode) as shown, contextlib.ExitStack() as files:
        report = shown
        if ranks.main and tensorboard.folder(run).is_dir():  # asked for when the run began
            step = saved.meta["step"] if saved else 0
            report = files.enter_context(tensorboard.logging(run, data, step, shown))
        outcome = loop.train(run, config, data, report=report, resume=saved, weights=weights, ranks=ranks)
    if mode != "json":
        tell_outcome(outcome)
        ui.next_step(*next_commands(run, data))


def _mode(json: bool, plain: bool) -> str:
    if json and plain:
        raise UsageError("--json and --plain exclude each other.", "Choose one of them.")
    return "json" if json else "plain" if plain else "auto"
