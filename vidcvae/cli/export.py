"""``vidcvae export``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, trained, ui
from vidcvae.cli.command import option
from vidcvae.config import schema
from vidcvae.errors import counted


def export(
    run: trained.Run = None,
    data: trained.Data = None,
    output: Annotated[Path, command.output_file("The CSV file.")] = Path("submission.csv"),
    gifs: Annotated[
        Path | None, option(f"Also write each sequence's video as a GIF to this folder. {command.NEW_FOLDER}")
    ] = None,
    split: trained.Split = "test",
    latent: trained.Latent = "zero",
    seed: trained.Seed = 0,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    precision: trained.Precision = "float32",
    json: command.Json = False,
) -> None:
    """Write the course's Kaggle file: every frame of every test sequence, including the given first one.

    Examples:
      vidcvae export runs/course-001
      vidcvae export runs/course-001 -o best.csv --gifs videos
    """
    trained.refuse_posterior(latent, "export does not use them")
    trained.check_file(output, ".csv")
    if gifs:
        trained.check_new_folder(gifs)
    from vidcvae.data import sizes
    from vidcvae.output import generation, submission, video
    from vidcvae.workflow import opening

    voice = ui.Speaker(bars=not json)
    loaded = opening.load(run, device, batch_stats, weights, voice)
    dataset = opening.open_data(loaded, data, voice)
    sequences = dataset.split(split)
    names = [re.sub(r"[^\w.-]+", "-", s.name) for s in sequences]  # a name from a file must not lead out of the folder
    targets = [gifs / f"{name}.gif" for name in names] if gifs else []
    for target in targets:
        video.check_target(target, dataset.fps)
    loaded = opening.computing(loaded, precision, len(sequences), voice)
    with voice.progress("free run") as advance:
        videos = generation.export_frames(loaded, sequences, latent=latent, seed=seed, progress=advance)
    with submission.writing(output) as add:
        for frames in videos:
            for frame in frames:
                add(frame)
    for target, frames in zip(targets, videos, strict=False):
        video.save(target, frames, dataset.fps)
    rows = sum(map(len, videos))
    if dataset.size != schema.LAB_SIZE:
        ui.note(f"frames are {sizes.text(dataset.size)}; the course's Kaggle file has {sizes.text(schema.LAB_SIZE)}")
    if json:
        about = {"output": str(output), "rows": rows, "sequences": names, "latent": latent}
        ui.emit({**about, "gifs": [*map(str, targets)]})
        return
    ui.say(f"{output}: {counted(rows, 'row')} of {counted(len(videos), 'sequence')} ({', '.join(names)}), z: {latent}")
    for target in targets:
        ui.say(str(target))
