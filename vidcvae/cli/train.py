"""``vidcvae train``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import command, completion, making, options, trained, ui
from vidcvae.cli.options import setting
from vidcvae.config import PROJECT_FILE, schema
from vidcvae.errors import UsageError, counted

if TYPE_CHECKING:
    from vidcvae.workflow.training import Prepared


def train(
    dataset: Annotated[
        str | None,
        typer.Argument(
            help="Dataset folder, packed dataset, synthetic:dance, or a clip: a video or GIF.", show_default=False
        ),
        command.Also("--data", "The dataset; the same as DATASET."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="The run folder to make.", show_default="runs/NAME-N")
    ] = None,
    preset: options.Preset = None,
    config: options.File = None,
    set_: options.Set = None,
    model: Annotated[
        schema.ModelName | None, setting("model.name", "--model", "Which model.", schema.ModelName)
    ] = None,
    epochs: Annotated[
        int | None, setting("training.epochs", "--epochs", "Passes over the training clips in total.")
    ] = None,
    max_minutes: Annotated[
        float | None,
        setting(
            "training.max_minutes",
            "--max-minutes",
            "Stop the training after this many minutes in total; 0: no limit. Schedules are fitted to this time; the "
            "last validation comes after it.",
        ),
    ] = None,
    batch_size: Annotated[int | None, setting("training.batch_size", "--batch-size", "Clips in a step.")] = None,
    clip_length: Annotated[int | None, setting("training.clip_length", "--clip-length", "Frames in a clip.")] = None,
    lr: Annotated[
        float | None, setting("optimizer.lr", "--lr", "Learning rate."), command.Also("--learning-rate")
    ] = None,
    size: Annotated[
        str | None, setting("data.size", "--size", "Frame height and width (auto: the dataset's own).")
    ] = None,
    keypoints: options.Keypoints = None,
    estimate: options.Estimate = False,
    pose_model: options.PoseModel = None,
    crop: options.Crop = None,
    partial: Annotated[float | None, setting("data.partial", "--partial", "Share of the clips that is used.")] = None,
    fast_train: Annotated[
        bool, typer.Option("--fast-train", help="Use 40% of the clips in the first 5 epochs, as the course does.")
    ] = False,
    device: Annotated[schema.Device | None, setting("training.device", "--device", "Where to compute.")] = None,
    precision: Annotated[
        schema.Precision | None, setting("training.precision", "--precision", trained.PRECISION)
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Fuse small operations with torch.compile; needs a C++ compiler.")
    ] = False,
    seed: Annotated[int | None, setting("training.seed", "--seed", "Seed of everything random.")] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            help="Start from the weights of this run or checkpoint.",
            show_default="random weights",
            autocompletion=completion.runs,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log into RUN/tensorboard too (extra: tensorboard).")
    ] = False,
    play: Annotated[
        bool, typer.Option("--play", help="Open a page to move the model on; it shows each new checkpoint.")
    ] = False,
    json: command.JsonEvents = False,
    plain: command.Plain = False,
) -> None:
    """Train a model.

    Without DATASET it takes data.path of vidcvae.toml in this folder, else the built-in synthetic dance. What a preset
    sets wins over the defaults below, and what is typed wins over the preset.

    Of a clip it makes a dataset beside the run first, as vidcvae dataset import does with its defaults, and takes that
    one again the next time; --size may then be small, medium or large too, in the clip's shape. Where you name no
    preset it is clip, or anchor-cpu for small frames.

    Examples:
      vidcvae train my-dance --preset anchor-cpu
      vidcvae train me.mp4 --keypoints joints.json
    """
    from vidcvae import config as settings
    from vidcvae.cli.training_view import Screen
    from vidcvae.workflow import own_clip, training

    screen = Screen.asked_for(json=json, plain=plain)
    clip_size, own = None, dataset is not None and own_clip.is_clip(dataset)
    if own and size:
        clip_size, size = making.read_clip_size(size), None
    if own and not (preset or config or model or PROJECT_FILE.exists()):
        preset = own_clip.preset_for(clip_size)
        screen.note(f"no preset named: training with --preset {preset}")
    typed: dict[str, dict[str, Any]] = {
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
    resolved = settings.gather(preset, config, set_, typed)
    if PROJECT_FILE.exists() and not json:
        ui.note(f"using {PROJECT_FILE} of this folder")
    if not resolved.data.path:
        resolved = settings.with_values(resolved, {"data": {"path": settings.builtin_data(resolved)}})
        ui.note(f"no DATASET given: training on the built-in {resolved.data.path}")

    data = None
    if own:
        clip = own_clip.of_training(resolved, clip_size, keypoints, estimate, pose_model, crop)
        resolved, data = own_clip.into_dataset(resolved, clip, run, dry_run, screen)
    elif keypoints or estimate or pose_model or crop:
        raise UsageError(
            f"{resolved.data.path} is no clip, and --keypoints, --estimate, --pose-model and --crop are about one.",
            "Leave them out, or name a video: vidcvae train CLIP.mp4 --keypoints FILE",
        )
    prepared = training.prepare(
        resolved, screen, path=run, init=init, data=data, tensorboard=tensorboard, keep_images=not dry_run
    )
    if dry_run:
        _tell_plan(prepared, json)
        return
    name = preset or (config.stem if config else resolved.model.name)
    with contextlib.ExitStack() as stack:
        if play:
            from vidcvae.storage.run import create_run
            from vidcvae.workflow.play import page_beside

            run = create_run(name, run).path
            stack.enter_context(page_beside(run, stays=sys.stdin.isatty(), voice=ui.Speaker()))
        training.start(prepared, screen, name=name, path=run)


def _tell_plan(prepared: Prepared, json: bool) -> None:
    from vidcvae import config as settings

    length, doubts = prepared.length, prepared.doubts
    if json:
        plan = {"epochs": length.epochs, "steps": length.steps, "config": settings.to_table(prepared.config)}
        ui.emit({"kind": "plan", **plan, "warnings": doubts})
    else:
        ui.say(settings.to_toml(prepared.config))
        ui.say(f"# {counted(length.epochs, 'epoch')}, {counted(length.steps, 'step')}; nothing was written")
    for text in doubts:
        ui.warn(text)
