"""``vidcvae evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vidcvae.cli import choice, command, trained, ui
from vidcvae.config.schema import LatentOrAll
from vidcvae.errors import UsageError
from vidcvae.evaluation.columns import MEANS

COLLAPSED_NATS = 0.01  # KL of a dimension of z and a frame, below which it is the prior for all purposes
MOST_STEPS, MOST_SEQUENCES = 30, 12  # of more predicted frames or sequences only the means are told


def _network(name: str, what: str) -> Any:
    trust = "TorchScript is a program: use files that you trust."
    return typer.Option(name, help=f"{what}. {trust}", show_default=False)


def evaluate(
    run: trained.Run = None,
    data: trained.Data = None,
    split: trained.Split = "val",
    past: Annotated[
        int | None, typer.Option("--past", min=1, help="Frames that are given.", show_default="as in training")
    ] = None,
    future: Annotated[
        int | None, typer.Option("--future", min=1, help=trained.FUTURE, show_default="the whole sequence")
    ] = None,
    latent: Annotated[
        LatentOrAll | None,
        choice.option(LatentOrAll, "--latent", help=trained.LATENT, show_default="zero; prior for --samples"),
    ] = None,
    samples: Annotated[
        int,
        typer.Option("--samples", min=1, help="Draws from the prior for each sequence; scores their mean and best."),
    ] = 1,
    shuffle_actions: Annotated[
        bool, typer.Option("--shuffle-actions", help="Give every clip the actions of another one.")
    ] = False,
    seed: trained.Seed = 0,
    frames: Annotated[int, typer.Option("--frames", min=0, help=f"{trained.FRAMES}; 0 is all of it.")] = 0,
    elbo: Annotated[
        bool, typer.Option("--elbo", help="ELBO and importance-weighted bound, in bits per dimension.")
    ] = False,
    importance_samples: Annotated[
        int, typer.Option("--importance-samples", min=1, help="Samples of z a frame for the bound of --elbo.")
    ] = 8,
    long: Annotated[
        int, typer.Option("--long", min=0, help="Also run N frames, the poses forward and back; 0 does not.")
    ] = 0,
    lpips_weights: Annotated[
        Path | None,
        _network(
            "--lpips-weights",
            "LPIPS by this TorchScript network: two batches of frames (B, 3, H, W) in -1..1 -> B distances",
        ),
    ] = None,
    fvd_weights: Annotated[
        Path | None,
        _network(
            "--fvd-weights", "FVD by this TorchScript network: clips (B, 3, 16, H, W) in -1..1 -> features (B, F)"
        ),
    ] = None,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    precision: trained.Precision = "float32",
    json: command.Json = False,
    output: Annotated[
        Path | None, trained.output("The score record's JSON file.", show_default="RUN/scores/SPLIT-LATENT.json")
    ] = None,
) -> None:
    """Score a free run from the first frames of each sequence against the truth.

    A model that follows actions is also scored with the actions of other clips: the gap says whether it listens.

    Examples:
      vidcvae evaluate runs/course-001
      vidcvae evaluate runs/course-001 --latent all
    """
    if frames and future:
        raise UsageError("--frames and --future both say how long the run is.", "Leave one of them out.")
    if output:
        trained.check_file(output, ".json")
    for path in (lpips_weights, fvd_weights):
        if path and not path.is_file():
            raise UsageError(f"there is no file {path}.", "Give the TorchScript file of a network.")
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
    _show(record, loaded.path)
    if kept:
        ui.say(f"score record: {kept}")


def _show(scores: dict[str, Any], checkpoint: Path) -> None:
    from vidcvae.evaluation import records

    protocol, curve = scores["protocol"], scores["psnr_per_frame"]
    beside = _beside(scores)
    told = {title: {**found, **found.get("perceptual", {})} for title, found in beside.items()}
    known = {key: title for key, title in MEANS.items() if any(key in found for found in told.values())}
    rows = [(title, *(_cell(found.get(key)) for found in told.values())) for key, title in known.items()]
    ui.table("", ("mean over frames", *beside), rows)
    names = {
        "copy_first": "first frame",
        "copy_last_past": "last given frame",
        "copy_previous_truth": "true frame before",
        "nearest_pose": "training frame of the nearest pose",
    }
    kinds = {"": "PSNR (dB)", "_per_channel": "per channel (dB)", "_still": "still", "_moving": "moving"}
    ui.table(
        "",
        ("copying the", *kinds.values()),
        [
            (name, *(_cell(scores[f"baseline_{key}_psnr{kind}"]) for kind in kinds))
            for key, name in names.items()
            if scores.get(f"baseline_{key}_psnr") is not None
        ],
    )
    ui.say(f"still pixels ({scores['share_still']:.1%}): {scores['still_pixels']}")
    if found := scores.get("nearest_pose"):
        where = f" of {found['searched']} of {found['dataset']}" if found["searched"] else ""
        ui.say(f"nearest pose{where}: {records.nearest_pose_text(scores) or found['reason']}")
    _show_latent(scores)
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
    statistics = f", {protocol['batch_norm']} statistics" if protocol["batch_norm"] != "none" else ""
    ui.say(
        f"{checkpoint}, {protocol['weights']} weights{statistics}; {protocol['dataset']} "
        f"{protocol['split']}, {protocol['past']} given -> {protocol['future']} predicted, z: {drawn}, "
        f"seed {protocol['seed']}; condition: {protocol['condition']}{actions}"
    )


def _show_latent(scores: dict[str, Any]) -> None:
    units = f"{scores['active_units']} of {scores['latent_dimensions']} units active"
    ui.say(f"latent: KL {scores['kl']:.4g} nats a frame, {units}")
    if not scores["active_units"] and scores["kl"] < COLLAPSED_NATS * scores["latent_dimensions"]:
        ui.note("the posterior has collapsed onto the prior: z tells the model nothing")
    elif not scores["active_units"]:
        ui.note("the posterior differs from the prior, but is the same for every frame: z tells the model nothing")
    if bounds := scores.get("bounds"):
        ui.say(
            f"bits per dimension, at most: ELBO {bounds['elbo_bits_per_dimension']:.4f}, importance-weighted "
            f"{bounds['importance_weighted_bits_per_dimension']:.4f} ({bounds['importance_samples']} samples); "
            f"likelihood: {bounds['likelihood']}, sigma {bounds['sigma']:.4f}"
        )
    if "fvd" in scores.get("perceptual", {}):
        ui.say(f"FVD: {scores['perceptual']['fvd']:.4f}")
    if run := scores.get("long"):
        ui.say(
            f"{run['frames']} frames, poses forward and back: {run['first']:.2f} dB in the first of "
            f"{len(run['passes'])} passes, {run['last']:.2f} dB in the last: {run['lost']:.2f} dB lost"
        )


def _cell(value: float | None) -> float | str:
    return "-" if value is None else value


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
    if "by_latent" in scores:
        return {f"z: {scores['protocol']['latent']}": scores} | {f"z: {z}": s for z, s in scores["by_latent"].items()}
    return {main: scores, **{title: scores[key] for key, title in titles.items() if key in scores}}
