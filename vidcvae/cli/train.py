"""``vidcvae train``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vidcvae.cli import command, completion, making, options, trained, ui
from vidcvae.cli.command import option
from vidcvae.cli.options import setting
from vidcvae.config import PROJECT_FILE, schema
from vidcvae.errors import UsageError, counted

if TYPE_CHECKING:
    from vidcvae.workflow.training import Prepared


def train(
    dataset: Annotated[
        str | None,
        command.argument("Dataset folder, packed dataset, synthetic:dance, or a clip: a video or GIF."),
        command.Also("--data", "The dataset; the same as DATASET."),
    ] = None,
    run: Annotated[Path | None, option("The run folder to make.", show_default="runs/NAME-N")] = None,
    preset: options.Preset = None,
    config: options.File = None,
    set_: options.Set = None,
    model: Annotated[schema.ModelName | None, setting("model.name", "Which model.")] = None,
    epochs: Annotated[
        int | None,
        setting(
            "training.epochs",
            "Total number of epochs; each has as many clips as fit into the training videos side by side.",
        ),
    ] = None,
    max_minutes: Annotated[
        float | None,
        setting(
            "training.max_minutes",
            "Stop training after this many minutes in total; 0: no limit. Schedules are fitted to this time, and the "
            "last validation comes after it.",
        ),
    ] = None,
    batch_size: Annotated[int | None, setting("training.batch_size", "Clips per step.")] = None,
    clip_length: Annotated[int | None, setting("training.clip_length", "Frames per clip.")] = None,
    lr: Annotated[float | None, setting("optimizer.lr", "Learning rate."), command.Also("--learning-rate")] = None,
    size: Annotated[str | None, setting("data.size", "Frame height and width (auto: the dataset's own).")] = None,
    keypoints: options.Keypoints = None,
    estimate: options.Estimate = False,
    pose_model: options.PoseModel = None,
    crop: options.Crop = None,
    partial: Annotated[float | None, setting("data.partial", "Share of the clips to use.")] = None,
    fast_train: Annotated[bool, option("Use 40% of the clips in the first 5 epochs, as the course does.")] = False,
    device: Annotated[schema.Device | None, setting("training.device", "Where to compute.")] = None,
    precision: Annotated[schema.Precision | None, setting("training.precision", trained.PRECISION)] = None,
    compile_: Annotated[bool, option("Fuse small operations with torch.compile; needs a C++ compiler.")] = False,
    seed: Annotated[int | None, setting("training.seed", "Random seed.")] = None,
    init: Annotated[
        Path | None,
        option(
            "Start from the weights of this run or checkpoint.",
            show_default="random weights",
            autocompletion=completion.runs,
        ),
    ] = None,
    dry_run: Annotated[bool, option("Show what would be done, and do nothing.")] = False,
    tensorboard: Annotated[bool, option("Also log to RUN/tensorboard (extra: tensorboard).")] = False,
    play: Annotated[bool, option("Open a page to steer the model live; it shows each new checkpoint.")] = False,
    json: command.JsonEvents = False,
    plain: command.Plain = False,
) -> None:
    """Train a model.

    Without DATASET, train uses data.path of vidcvae.toml in this folder, else the built-in synthetic dance. A preset
    overrides the defaults below, and options override the preset.

    If DATASET is a clip, train first makes a dataset next to the run, as vidcvae dataset import does by default, and
    reuses it the next time. --size may then also be small, medium or large, in the clip's shape. The preset is then
    clip, or anchor-cpu for small frames, unless you name another.

    Examples:
      vidcvae train my-dance --preset anchor-cpu
      vidcvae train me.mp4 --keypoints joints.json
    """
    from vidcvae import config as settings
    from vidcvae.cli.training_view import Screen
    from vidcvae.workflow import own_clip, training

    screen = Screen.asked_for(json=json, plain=plain)
    clip_size, is_clip = None, dataset is not None and own_clip.is_clip(dataset)
    if is_clip and size:
        clip_size, size = making.read_clip_size(size), None
    if is_clip and not (preset or config or model or PROJECT_FILE.exists()):
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
    if is_clip:
        clip = own_clip.of_training(resolved, clip_size, keypoints, estimate, pose_model, crop)
        resolved, data = own_clip.into_dataset(resolved, clip, run, dry_run, screen)
    elif keypoints or estimate or pose_model or crop:
        raise UsageError(
            f"{resolved.data.path} is not a clip, and --keypoints, --estimate, --pose-model and --crop need one.",
            "Leave them out, or name a video: vidcvae train CLIP.mp4 --keypoints FILE",
        )
    prepared = training.prepare(
        resolved, screen, path=run, init=init, data=data, tensorboard=tensorboard, keep_images=not dry_run
    )
    if dry_run:
        _show_plan(prepared, json)
        return
    if not (preset or config or model or set_ or epochs or max_minutes or PROJECT_FILE.exists()):
        screen.note(
            "no preset named: this is the lab's model with its defaults, which trains for hours. For a first result: "
            "--preset anchor-cpu --max-minutes 3"
        )
    name = preset or (config.stem if config else resolved.model.name)
    with contextlib.ExitStack() as stack:
        if play:
            from vidcvae.storage.run import create_run
            from vidcvae.workflow.play import page_beside

            run = create_run(name, run).path
            stack.enter_context(page_beside(run, stays=sys.stdin.isatty(), voice=ui.Speaker()))
        training.start(prepared, screen, name=name, path=run)


def _show_plan(prepared: Prepared, json: bool) -> None:
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
