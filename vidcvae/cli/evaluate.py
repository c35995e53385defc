"""``vidcvae evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vidcvae.cli import trained, ui

LATENTS = ("zero", "prior", "prior-mean", "posterior")


def evaluate(
    run: trained.Run = None,
    data: trained.Data = None,
    split: Annotated[str, typer.Option("--split", help="Which split of the dataset.")] = "val",
    latent: Annotated[
        str,
        typer.Option(
            "--latent",
            help="How z is chosen: zero, prior, prior-mean, or posterior, which is shown the truth.",
            autocompletion=trained.choices(*LATENTS),
        ),
    ] = "zero",
    seed: trained.Seed = 0,
    frames: Annotated[
        int, typer.Option("--frames", min=0, help="Length of the free run, given frames included; 0 is all.")
    ] = 0,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    json: Annotated[bool, typer.Option("--json", help="The score record as one JSON document.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the score record into this JSON file too.")
    ] = None,
) -> None:
    """Score a free run from the first frame of each sequence against the truth."""
    trained.check_choice("--latent", latent, LATENTS)
    if output:
        trained.check_file(output)
    from vidcvae.evaluation.score import score_split
    from vidcvae.storage import durable

    loaded = trained.load(run, device, batch_stats, weights)
    dataset = trained.open_data(loaded, data, quiet=json)
    with ui.progress("free run", quiet=json) as advance:
        scores = score_split(
            loaded,
            dataset,
            split,
            latent,
            seed=seed,
            frames=frames,
            device=next(loaded.model.parameters()).device,
            progress=advance,
        )
    if output:
        durable.write_json(output, scores)
    if json:
        ui.emit(scores)
    else:
        _show(scores, loaded.path)
        if output:
            ui.say(f"score record: {output}")


def _show(scores: dict[str, Any], checkpoint: Path) -> None:
    protocol, curve = scores["protocol"], scores["psnr_per_frame"]
    rows = [
        ("PSNR, mean of frames (dB)", scores["psnr_mean"]),
        *(
            [("  of the first 50", _mean(curve[:50])), ("  of the last 50", _mean(curve[-50:]))]
            if len(curve) >= 100
            else []
        ),
        ("SSIM", scores["ssim_mean"]),
        ("MSE", scores["mse_mean"]),
        ("temporal difference error", scores["temporal_difference_error_mean"]),
        ("PSNR of copying the first frame (dB)", scores["baseline_copy_first_psnr"]),
        ("PSNR of copying the true frame before (dB)", scores["baseline_copy_previous_truth_psnr"]),
    ]
    ui.table("", ("score", "value"), rows)
    sequences = scores.get("sequences", [])
    if sequences:
        ui.table(
            "", ("sequence", "PSNR (dB)", "SSIM"), [(s["name"], s["psnr_mean"], s["ssim_mean"]) for s in sequences]
        )
    ui.say(
        f"{checkpoint}, {protocol['weights']} weights, {protocol['batch_norm']} statistics; {protocol['dataset']} "
        f"{protocol['split']}, {protocol['past']} given -> {protocol['future']} predicted, z: {protocol['latent']}, "
        f"seed {protocol['seed']}"
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
