"""``vidcvae demo``: the whole main job on synthetic data, in a few minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import choice, ui
from vidcvae.errors import UsageError, typed
from vidcvae.schema import Device

FRAMES, VAL = 1200, 150


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for the data, the run and the results.")] = Path("demo"),
    max_minutes: Annotated[float, typer.Option("--max-minutes", help="Time for the training alone.")] = 2.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of data and training.")] = 0,
    device: Annotated[Device, choice.option(Device, "--device", help="Where to train.")] = "auto",
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a live display.")] = False,
) -> None:
    """Make a synthetic dance, train on it, and generate a video: everything in a few minutes."""
    from vidcvae import config as settings
    from vidcvae.cli import train
    from vidcvae.data import pose_folder, synthetic
    from vidcvae.evaluation.score import score_split
    from vidcvae.models.loading import load_model
    from vidcvae.output import figures, generation, media, pictures, plots
    from vidcvae.storage import durable

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already holds something.", "Choose another folder: vidcvae demo FOLDER")
    began = time.monotonic()
    layers = {
        "data": {"path": str(out / "data")},
        "training": {"max_minutes": max_minutes, "seed": seed, "device": device},
    }
    config = settings.resolve(settings.read_preset("demo"), layers)

    ui.note(f"1. drawing {FRAMES + VAL} frames of a dancer and its skeleton")
    data = synthetic.dance(FRAMES, VAL, 1, seed, config.data.size)
    pose_folder.write_folder(data, out / "data")

    ui.note(f"2. training {config.model.name} for {max_minutes:g} minutes")
    train.start(config, name="demo", path=out / "run", mode="plain" if plain else "auto")
    loaded = load_model(out / "run", which="last")

    ui.note(f"3. generating {VAL} frames from the first one and {VAL} skeletons")
    scores = score_split(loaded, data, "val")
    durable.write_json(out / "scores.json", scores)
    (sequence,) = data.split("val")
    (video,) = generation.export_frames(loaded, [sequence], latent="zero", seed=seed, device="cpu")
    titles = ["truth", "generated", "pose"]
    frames = zip(sequence.frames, video, sequence.tracks["pose"], strict=True)
    media.save(out / "dance.gif", (pictures.panel(three, titles) for three in frames), data.fps)
    run = plots.read_run(loaded.run) if loaded.run else None
    if run:
        figures.save(plots.loss_chart([run]), out / "loss.png")
        figures.save(plots.psnr_chart([run]), out / "psnr.png")

    copy_first = scores["baseline_copy_first_psnr"]
    ui.say(
        f"PSNR of the free run of {VAL} frames: {scores['psnr_mean']:.2f} dB; of repeating its first frame: "
        f"{copy_first:.2f} dB ({time.monotonic() - began:.0f} seconds in all)"
    )
    rows = [
        ("video: truth, generated, pose", out / "dance.gif"),
        ("loss, beta, teacher forcing", out / "loss.png"),
        ("PSNR of each frame", out / "psnr.png"),
        ("scores and how they were taken", out / "scores.json"),
        ("dataset in the course's layout", out / "data"),
        ("run: checkpoints, history, config", out / "run"),
    ]
    ui.table("", ("what", "where"), rows)
    ui.next_step(typed("resume", out / "run", "--max-minutes", 10), typed("train", "DATASET"))
