"""``vidcvae demo``: the whole main job on synthetic data, in a few minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import choice, command, trained, ui
from vidcvae.config.schema import Device
from vidcvae.errors import typed

FRAMES, VAL = 1200, 150


def demo(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help=f"The folder for the data, the run and the results. {command.NEW_FOLDER}"),
        command.Also("OUT"),
    ] = Path("demo"),
    max_minutes: Annotated[
        float, typer.Option("--max-minutes", help="End the training after this many minutes; the rest comes on top.")
    ] = 2.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of data and training.")] = 0,
    device: Annotated[Device, choice.option(Device, "--device", help="Where to compute.")] = "auto",
    json: command.Json = False,
    plain: command.Plain = False,
) -> None:
    """Make a synthetic dance, train on it, and generate a video: everything in a few minutes.

    Examples:
      vidcvae demo
      vidcvae demo -o try --max-minutes 5
    """
    from vidcvae import config as settings
    from vidcvae.cli.training_view import Screen
    from vidcvae.data import pose_folder
    from vidcvae.evaluation.score import score_split
    from vidcvae.models.loading import load_model
    from vidcvae.output import figures, generation, media, pictures, plots
    from vidcvae.scenes import dancing
    from vidcvae.storage import durable
    from vidcvae.workflow import training

    trained.check_new_folder(output)
    began = time.monotonic()
    layers = {
        "data": {"path": str(output / "data")},
        "training": {"max_minutes": max_minutes, "seed": seed, "device": device},
    }
    config = settings.resolve(settings.read_preset("demo"), layers)

    ui.note(f"1. drawing {FRAMES + VAL} frames of a dancer and its skeleton")
    data = dancing.dance(FRAMES, VAL, 1, seed, config.data.size)
    pose_folder.write_folder(data, output / "data")

    ui.note(f"2. training {config.model.name} for {max_minutes:g} minutes")
    screen = Screen.asked_for(json=json, plain=plain, events=False)
    training.start(training.prepare(config, screen, path=output / "run"), screen, name="demo", path=output / "run")
    loaded = load_model(output / "run", which="last")

    ui.note(f"3. generating {VAL} frames from the first one and {VAL} skeletons")
    scores = score_split(loaded, data, "val")
    durable.write_json(output / "scores.json", scores)
    (sequence,) = data.split("val")
    (video,) = generation.export_frames(loaded, [sequence], latent="zero", seed=seed, device="cpu")
    titles = ["truth", "generated", "pose"]
    frames = zip(sequence.frames, video, sequence.tracks["pose"], strict=True)
    media.save(output / "dance.gif", (pictures.panel(three, titles) for three in frames), data.fps)
    run = plots.read_run(loaded.run) if loaded.run else None
    if run:
        figures.save(plots.loss_chart([run]), output / "loss.png")
        figures.save(plots.psnr_chart([run]), output / "psnr.png")

    seconds = time.monotonic() - began
    if json:
        ui.emit({"output": str(output), "seconds": round(seconds, 1), **scores})
        return
    copy_first = scores["baseline_copy_first_psnr"]
    ui.say(
        f"PSNR of the free run of {VAL} frames: {scores['psnr_mean']:.2f} dB; of repeating its first frame: "
        f"{copy_first:.2f} dB ({seconds:.0f} seconds in all)"
    )
    rows = [
        ("video: truth, generated, pose", output / "dance.gif"),
        ("loss, beta, teacher forcing", output / "loss.png"),
        ("PSNR of each frame", output / "psnr.png"),
        ("scores and how they were taken", output / "scores.json"),
        ("dataset in the course's layout", output / "data"),
        ("run: checkpoints, history, config", output / "run"),
    ]
    ui.table("", ("what", "where"), rows)
    ui.next_step(typed("resume", output / "run", "--more-minutes", 10), typed("train", "DATASET"))
