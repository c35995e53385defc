"""``vidcvae export``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import choice, trained, ui
from vidcvae.errors import UsageError
from vidcvae.schema import DrawnLatent


def export(
    run: trained.Run = None,
    data: trained.Data = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The CSV file.")] = Path("submission.csv"),
    gifs: Annotated[
        Path | None, typer.Option("--gifs", help="Also write the video of each sequence as a GIF into this folder.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Which split of the dataset.")] = "test",
    latent: Annotated[
        DrawnLatent,
        choice.option(DrawnLatent, "--latent", help="z = 0, or drawn from the prior as in the course."),
    ] = "zero",
    seed: trained.Seed = 0,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    precision: trained.Precision = "float32",
) -> None:
    """Write the course's Kaggle file: every frame of every test sequence, the given first one included."""
    trained.check_file(output)
    if gifs and gifs.is_file():
        raise UsageError(f"{gifs} is a file, but --gifs names a folder.", "Choose another name.")
    from vidcvae.output import generation, media, submission

    loaded = trained.load(run, device, batch_stats, weights)
    dataset = trained.open_data(loaded, data, quiet=False)
    sequences = dataset.split(split)
    names = [re.sub(r"[^\w.-]+", "-", s.name) for s in sequences]  # a name from a file must not lead out of the folder
    targets = [gifs / f"{name}.gif" for name in names] if gifs else []
    for target in targets:
        media.check_target(target, dataset.fps)
    loaded = trained.computing(loaded, precision, len(sequences))
    with ui.progress("free run") as advance:
        videos = generation.export_frames(
            loaded,
            sequences,
            latent=latent,
            seed=seed,
            device=str(next(loaded.model.parameters()).device),
            progress=advance,
        )
    with submission.writing(output) as add:
        for video in videos:
            for frame in video:
                add(frame)
    for target, video in zip(targets, videos, strict=False):
        media.save(target, video, dataset.fps)
    ui.say(f"{output}: {sum(map(len, videos))} rows of {len(videos)} sequences ({', '.join(names)}), z: {latent}")
    for target in targets:
        ui.say(str(target))
