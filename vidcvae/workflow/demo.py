"""The whole workflow on synthetic data: draw a dance, train on it, generate a video, and score it."""

from __future__ import annotations

from pathlib import Path

from vidcvae import config as settings
from vidcvae.config.schema import Device
from vidcvae.data import pose_folder
from vidcvae.evaluation.score import Scores, score_split
from vidcvae.models.loading import load_model
from vidcvae.output import figures, generation, pictures, plots, video
from vidcvae.scenes import dancing
from vidcvae.storage import durable
from vidcvae.workflow import training

FRAMES, VAL = 1200, 150


def run(output: Path, max_minutes: float, seed: int, device: Device, audience: training.Audience) -> Scores:
    """Write data, run, scores.json, dance.gif, loss.png and psnr.png into ``output``; returns the scores."""
    layers = {
        "data": {"path": str(output / "data")},
        "training": {"max_minutes": max_minutes, "seed": seed, "device": device},
    }
    config = settings.with_size(settings.resolve(settings.read_preset("demo"), layers))

    audience.note(f"1. drawing {FRAMES + VAL} frames of a dancer and a skeleton")
    data = dancing.dance(FRAMES, VAL, 1, seed, config.data.frame_size)
    pose_folder.write_folder(data, output / "data")

    audience.note(f"2. training {config.model.name} for {max_minutes:g} minutes")
    prepared = training.prepare(config, audience, path=output / "run")
    folder = training.start(prepared, audience, name="demo", path=output / "run")
    loaded = load_model(folder.path, which="last")

    audience.note(f"3. generating {VAL} frames from the first one and {VAL} skeletons")
    scores = score_split(loaded, data, "val")
    durable.write_json(output / "scores.json", scores)
    (sequence,) = data.split("val")
    (generated,) = generation.export_frames(loaded, [sequence], latent="zero", seed=seed)
    titles = ["truth", "generated", "pose"]
    frames = zip(sequence.frames, generated, sequence.tracks["pose"], strict=True)
    video.save(output / "dance.gif", (pictures.panel(three, titles) for three in frames), data.fps)
    history = [plots.read_run(folder)]
    figures.save(plots.loss_chart(history), output / "loss.png")
    figures.save(plots.psnr_chart(history), output / "psnr.png")
    return scores
