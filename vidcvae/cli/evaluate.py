"""``vidcvae evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, trained, ui
from vidcvae.cli.command import option
from vidcvae.config.schema import LatentOrAll
from vidcvae.errors import UsageError

TRUST = "TorchScript is a program: use files that you trust."


def evaluate(
    run: trained.Run = None,
    data: trained.Data = None,
    split: trained.Split = "val",
    past: Annotated[int | None, option("Number of given frames.", min=1, show_default="as in training")] = None,
    future: Annotated[int | None, option(trained.FUTURE, min=1, show_default="the whole sequence")] = None,
    latent: Annotated[LatentOrAll | None, option(trained.LATENT, show_default="zero; prior for --samples")] = None,
    samples: Annotated[
        int, option("Draws from the prior for each sequence; scores their mean and their best.", min=1)
    ] = 1,
    shuffle_actions: Annotated[bool, option("Give every clip the actions of another one.")] = False,
    seed: trained.Seed = 0,
    frames: Annotated[int, option(f"{trained.FRAMES}; 0: the whole sequence.", min=0)] = 0,
    elbo: Annotated[bool, option("Also measure ELBO and importance-weighted bound, in bits per dimension.")] = False,
    importance_samples: Annotated[int, option("Samples of z per frame for the bound of --elbo.", min=1)] = 8,
    long: Annotated[
        int, option("Also run for N frames, with the poses played forward and back; 0: do not.", min=0)
    ] = 0,
    lpips_weights: Annotated[
        Path | None,
        option(
            "LPIPS by this TorchScript network: two batches of frames (B, 3, H, W) in -1..1 -> B distances. " + TRUST,
            show_default=False,
        ),
    ] = None,
    fvd_weights: Annotated[
        Path | None,
        option(
            "FVD by this TorchScript network: clips (B, 3, 16, H, W) in -1..1 -> features (B, F). " + TRUST,
            show_default=False,
        ),
    ] = None,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    precision: trained.Precision = "float32",
    json: command.Json = False,
    output: Annotated[
        Path | None,
        command.output_file("The score record's JSON file.", show_default="RUN/scores/SPLIT-LATENT.json"),
    ] = None,
) -> None:
    """Score a free run from the first frames of each sequence against the truth.

    A model that follows actions is also scored with the actions of other clips: the gap shows whether it uses them.

    Examples:
      vidcvae evaluate runs/course-001
      vidcvae evaluate runs/course-001 --latent all
    """
    if frames and future:
        raise UsageError("--frames and --future both set the length of the run.", "Leave one of them out.")
    if output:
        trained.check_file(output, ".json")
    for path in (lpips_weights, fvd_weights):
        if path and not path.is_file():
            raise UsageError(f"there is no file {path}.", "Name the TorchScript file of a network.")
    from vidcvae.output import score_summary
    from vidcvae.workflow import opening, scores

    voice = ui.Speaker(bars=not json)
    loaded = opening.load(run, device, batch_stats, weights, voice)
    dataset = opening.open_data(loaded, data, voice)
    loaded = opening.computing(loaded, precision, len(dataset.split(split)), voice)
    given = past or loaded.config.training.past
    record = scores.score(
        loaded,
        dataset,
        split,
        latent or ("prior" if samples > 1 else "zero"),
        past=given,
        frames=given + future if future else frames,
        samples=samples,
        shuffle_actions=shuffle_actions,
        seed=seed,
        importance_samples=importance_samples if elbo else 0,
        lpips=lpips_weights,
        fvd=fvd_weights,
        long=long,
        voice=voice,
    )
    kept = scores.keep(loaded, record, output, whole=not (frames or future), voice=voice)
    if json:
        ui.emit(record)
        return
    ui.show(score_summary.summary(record, loaded.path))
    for text in score_summary.remarks(record):
        ui.note(text)
    if kept:
        ui.say(f"score record: {kept}")
