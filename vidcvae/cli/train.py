"""``vidcvae train`` and ``vidcvae resume``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import ui
from vidcvae.errors import UsageError

if TYPE_CHECKING:
    from vidcvae.config import Config
    from vidcvae.data.clips import VideoData
    from vidcvae.storage.checkpoint import Checkpoint
    from vidcvae.storage.run import RunFolder

PROJECT_FILE = Path("vidcvae.toml")

Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the training clips.")]
MaxMinutes = Annotated[float | None, typer.Option("--max-minutes", help="Stop, with everything saved, after so long.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON event a line on standard output.")]
Plain = Annotated[bool, typer.Option("--plain", help="Plain lines instead of a live display.")]


def train(
    dataset: Annotated[
        str | None,
        typer.Argument(help="Dataset folder, packed dataset, or synthetic:dance.", show_default=False),
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Run folder; runs/NAME-N if left out.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Built-in settings, such as course.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Which model, such as pose-cvae.")] = None,
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
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    init: Annotated[
        Path | None, typer.Option("--init", help="Start from the weights of this run or checkpoint.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
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
            "seed": seed,
        },
    }
    given = {s: {k: v for k, v in table.items() if v is not None} for s, table in options.items()}
    layers = [
        *([settings.read_toml(PROJECT_FILE)] if PROJECT_FILE.exists() else []),
        *([settings.read_toml(config)] if config else []),
        {section: table for section, table in given.items() if table},
        *(settings.read_override(text) for text in set_ or []),
    ]
    resolved = settings.resolve_with_preset(preset, layers)
    if PROJECT_FILE.exists() and not json:
        ui.note(f"using {PROJECT_FILE} of this folder")
    if not resolved.data.path:
        resolved = settings.with_values(resolved, {"data": {"path": settings.builtin_data(resolved)}})
        ui.note(f"no DATASET given: training on the built-in {resolved.data.path}")

    name = preset or (config.stem if config else resolved.model.name)
    start(resolved, name=name, path=run, init=init, dry_run=dry_run, mode=_mode(json, plain))


def start(
    config: Config,
    *,
    name: str,
    path: Path | None = None,
    init: Path | None = None,
    dry_run: bool = False,
    mode: str = "auto",
) -> RunFolder | None:
    """Make a run folder and train in it; all input is checked before the folder is made."""
    import sys

    import torch

    from vidcvae import __version__
    from vidcvae import config as settings
    from vidcvae.data import open_dataset
    from vidcvae.models import loading
    from vidcvae.storage import durable
    from vidcvae.storage.run import ROOT, RunFolder, create_run
    from vidcvae.training import loop, schedules

    loading.pick_device(config.training.device)
    cache = (path.parent if path else ROOT) / ".cache"
    with ui.progress("reading the data", quiet=mode == "json") as advance:
        data = open_dataset(config.data.path, config.data.size, None if dry_run else cache, advance)
    length = loop.run_length(config, data)
    weights = loading.load_model(init, weights="raw").model.state_dict() if init else None
    if dry_run:
        ui.say(settings.to_toml(config))
        ui.say(f"# {length.epochs} epochs, {length.steps} steps; nothing was written")
        for text in schedules.warnings(config, length):
            ui.warn(text)
        return None
    run = create_run(name, path)
    durable.write_text(run.config, settings.to_toml(config))
    durable.write_json(
        run.info,
        {
            "command": sys.argv,
            "data": config.data.path,
            "vidcvae": __version__,
            "torch": torch.__version__,
            "python": sys.version.split()[0],
        },
    )
    _train(run, config, data, mode, None, weights)
    return RunFolder(run.path)


def resume(
    run: Annotated[Path | None, typer.Argument(help="Run folder; the newest if left out.", show_default=False)] = None,
    epochs: Epochs = None,
    max_minutes: MaxMinutes = None,
    device: Device = None,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Go on with a run where its last checkpoint stands, exactly as if it had never stopped."""
    from vidcvae import config as settings
    from vidcvae.data import open_dataset
    from vidcvae.storage import checkpoint, durable
    from vidcvae.storage.run import find_checkpoint, find_run

    folder = find_run(run)
    path, _ = find_checkpoint(folder.path, "last")
    saved = checkpoint.read(path)
    before = settings.resolve(saved.meta["config"])
    new = {"epochs": epochs, "max_minutes": max_minutes, "device": device}
    config = settings.with_values(before, {"training": {k: v for k, v in new.items() if v is not None}})
    if config.training.epochs < saved.meta["epoch"]:
        raise UsageError(
            f"{folder.path} has already finished {saved.meta['epoch']} epochs, more than --epochs {epochs}.",
            f"Choose a larger number: vidcvae resume {folder.path} --epochs {before.training.epochs + 10}",
        )
    mode = _mode(json, plain)
    with ui.progress("reading the data", quiet=mode == "json") as advance:
        data = open_dataset(config.data.path, config.data.size, folder.cache, advance)
    if config != before:
        changed = ", ".join(f"{key} {a} -> {b}" for key, (a, b) in settings.differences(before, config).items())
        ui.note(f"changed: {changed}; schedules follow the new length")
        durable.write_text(folder.config, settings.to_toml(config))
    finished = saved.meta["epoch"] >= config.training.epochs
    timed_out = config.training.max_minutes and saved.meta["progress"]["minutes"] >= config.training.max_minutes
    if finished or timed_out:
        spent = f"{saved.meta['epoch']} epochs" if finished else f"{config.training.max_minutes:g} minutes"
        ui.note(f"{folder.path} is finished: it had its {spent}.")
        option = "--epochs N" if finished else "--max-minutes M"
        ui.note(f"To go on: vidcvae resume {folder.path} {option}")
        return
    _train(folder, config, data, mode, saved, None)


def _train(
    run: RunFolder, config: Config, data: VideoData, mode: str, saved: Checkpoint | None, weights: dict[str, Any] | None
) -> None:
    from vidcvae.cli.training_view import watching
    from vidcvae.training import loop

    with watching(mode) as report:
        outcome = loop.train(run, config, data, report=report, resume=saved, weights=weights)
    if mode != "json":
        scores = f", val PSNR {outcome.scores['psnr_zero']:.2f} dB" if outcome.scores else ""
        ui.say(f"trained {outcome.steps} steps in {outcome.minutes:.1f} minutes{scores}: {run.path}")
        ui.note(f"Next: vidcvae evaluate {run.path}   vidcvae plot loss {run.path}   vidcvae generate {run.path} ...")


def _mode(json: bool, plain: bool) -> str:
    if json and plain:
        raise UsageError("--json and --plain exclude each other.", "Choose one of them.")
    return "json" if json else "plain" if plain else "auto"
