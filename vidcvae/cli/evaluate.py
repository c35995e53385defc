"""``vidcvae evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vidcvae.cli import trained, ui
from vidcvae.errors import UsageError

LATENTS = ("zero", "prior", "prior-mean", "posterior")
MOST_STEPS, MOST_SEQUENCES = 30, 12  # of more predicted frames or sequences only the means are told


def evaluate(
    run: trained.Run = None,
    data: trained.Data = None,
    split: Annotated[str, typer.Option("--split", help="Which split of the dataset.")] = "val",
    past: Annotated[
        int | None, typer.Option("--past", min=1, help="Frames that are given.", show_default="as in training")
    ] = None,
    future: Annotated[
        int | None, typer.Option("--future", min=1, help="Frames to predict.", show_default="the whole sequence")
    ] = None,
    latent: Annotated[
        str | None,
        typer.Option(
            "--latent",
            help="How z is chosen: zero, prior, prior-mean, or posterior, which is shown the truth.",
            show_default="zero; prior for --samples",
            autocompletion=trained.choices(*LATENTS),
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option("--samples", min=1, help="Draws from the prior for each sequence; scores their mean and best."),
    ] = 1,
    shuffle_actions: Annotated[
        bool, typer.Option("--shuffle-actions", help="Give every clip the actions of another one.")
    ] = False,
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
    """Score a free run from the first frames of each sequence against the truth.

    A model that follows actions is also scored with the actions of other clips: the gap says whether it listens.
    """
    latent = latent or ("prior" if samples > 1 else "zero")
    trained.check_choice("--latent", latent, LATENTS)
    if frames and future:
        raise UsageError("--frames and --future both say how long the run is.", "Leave one of them out.")
    if output:
        trained.check_file(output)
    from vidcvae.evaluation.score import score_split
    from vidcvae.storage import durable

    loaded = trained.load(run, device, batch_stats, weights)
    dataset = trained.open_data(loaded, data, quiet=json)
    given = past or loaded.config.training.past
    with ui.progress("free run", quiet=json) as advance:
        scores = score_split(
            loaded,
            dataset,
            split,
            latent,
            past=given,
            frames=given + future if future else frames,
            samples=samples,
            shuffle_actions=shuffle_actions,
            seed=seed,
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
    beside = _beside(scores)
    lines = [
        ("PSNR per frame (dB)", "psnr_mean"),
        ("PSNR per channel (dB)", "psnr_per_channel_mean"),
        ("SSIM", "ssim_mean"),
        ("MSE", "mse_mean"),
        ("temporal difference error", "temporal_difference_error_mean"),
    ]
    rows = [(name, *(found[key] for found in beside.values())) for name, key in lines]
    if len(curve) >= 100:
        parts = [("  of the first 50", slice(50)), ("  of the last 50", slice(-50, None))]
        rows[1:1] = [(n, *(_mean(found["psnr_per_frame"][p]) for found in beside.values())) for n, p in parts]
    ui.table("", ("mean over frames", *beside), rows)
    names = {"first": "first frame", "last_past": "last given frame", "previous_truth": "true frame before"}
    ui.table(
        "",
        ("copying the", "PSNR per frame (dB)", "per channel (dB)"),
        [
            (name, *(scores[f"baseline_copy_{key}_psnr{kind}"] for kind in ("", "_per_channel")))
            for key, name in names.items()
        ],
    )
    if len(curve) <= MOST_STEPS:
        columns = {name: found["psnr_per_frame"] for name, found in beside.items()}
        columns["copy of the last given"] = scores["baseline_copy_last_past_psnr_per_frame"]
        steps = zip(*columns.values(), strict=True)
        first = protocol["past"]
        ui.table("", ("PSNR (dB) of frame", *columns), [(t, *values) for t, values in enumerate(steps, start=first)])
    sequences = scores.get("sequences", [])
    if sequences and len(sequences) <= MOST_SEQUENCES:
        ui.table(
            "", ("sequence", "PSNR (dB)", "SSIM"), [(s["name"], s["psnr_mean"], s["ssim_mean"]) for s in sequences]
        )
    if "listening_gap_psnr" in scores:
        ui.say(f"does it listen? The actions of other clips cost it {scores['listening_gap_psnr']:.2f} dB")
    elif protocol["actions"] == "own":
        ui.note("whether it listens to actions takes a second clip of the same length to tell")
    actions = f", actions {protocol['actions']}" if protocol["actions"] != "none" else ""
    drawn = f"{protocol['latent']}, {protocol['samples']} samples" if protocol["samples"] > 1 else protocol["latent"]
    ui.say(
        f"{checkpoint}, {protocol['weights']} weights, {protocol['batch_norm']} statistics; {protocol['dataset']} "
        f"{protocol['split']}, {protocol['past']} given -> {protocol['future']} predicted, z: {drawn}, "
        f"seed {protocol['seed']}; condition: {protocol['condition']}{actions}"
    )


def _beside(scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The score and those that stand beside it, under the titles of their columns."""
    samples, actions = scores["protocol"]["samples"], scores["protocol"]["actions"]
    titles = {
        "best": f"best of {samples}",
        "posterior": "posterior",
        "own_actions": "own actions",
        "other_actions": "other actions",
    }
    main = f"mean of {samples}" if samples > 1 else "other actions" if actions == "of other clips" else "free run"
    return {main: scores, **{title: scores[key] for key, title in titles.items() if key in scores}}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
