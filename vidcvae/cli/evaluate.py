"""``vidcvae evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidcvae.cli import choice, command, trained, ui
from vidcvae.config.schema import Latent
from vidcvae.errors import DataError, UsageError

if TYPE_CHECKING:
    from vidcvae.data.clips import Sequence, VideoData
    from vidcvae.models.loading import Loaded

Latents = Literal[Latent, "all"]
ALL = "all"
COLLAPSED_NATS = 0.01  # KL of a dimension of z and a frame, below which it is the prior for all purposes
MOST_STEPS, MOST_SEQUENCES = 30, 12  # of more predicted frames or sequences only the means are told


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
        Latents | None,
        choice.option(
            Latents,
            "--latent",
            help=trained.LATENT,
            show_default="zero; prior for --samples",
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
        typer.Option(
            "--lpips-weights",
            help="LPIPS by this TorchScript network: two batches of frames (B, 3, H, W) in -1..1 -> B distances. "
            "TorchScript is a program: use files that you trust.",
            show_default=False,
        ),
    ] = None,
    fvd_weights: Annotated[
        Path | None,
        typer.Option(
            "--fvd-weights",
            help="FVD by this TorchScript network: clips (B, 3, 16, H, W) in -1..1 -> features (B, F). "
            "TorchScript is a program: use files that you trust.",
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
        typer.Option(
            "-o",
            "--output",
            help=f"The score record's JSON file. {command.REPLACED}",
            show_default="RUN/scores/SPLIT-LATENT.json",
        ),
    ] = None,
) -> None:
    """Score a free run from the first frames of each sequence against the truth.

    A model that follows actions is also scored with the actions of other clips: the gap says whether it listens.

    Examples:
      vidcvae evaluate runs/course-001
      vidcvae evaluate runs/course-001 --split test --latent all
    """
    latent = latent or ("prior" if samples > 1 else "zero")
    if frames and future:
        raise UsageError("--frames and --future both say how long the run is.", "Leave one of them out.")
    if output:
        trained.check_file(output)
    for path in (lpips_weights, fvd_weights):
        if path and not path.is_file():
            raise UsageError(f"there is no file {path}.", "Give the TorchScript file of a network.")

    loaded = trained.load(run, device, batch_stats, weights)
    dataset = trained.open_data(loaded, data, quiet=json)
    loaded = trained.computing(loaded, precision, len(dataset.split(split)))
    given = past or loaded.config.training.past
    scores = score(
        loaded,
        dataset,
        split,
        latent,
        quiet=json,
        past=given,
        frames=given + future if future else frames,
        samples=samples,
        shuffle_actions=shuffle_actions,
        seed=seed,
    )
    common: dict[str, Any] = {"seed": seed, "device": next(loaded.model.parameters()).device}
    main = scores["protocol"]["latent"]
    if elbo:
        scores["bounds"] = _bounds(loaded, dataset, scores, importance_samples, json, common)
    if lpips_weights or fvd_weights:
        scores["perceptual"] = _perceptual(loaded, dataset, scores, lpips_weights, fvd_weights, json, common)
    if long:
        from vidcvae.evaluation.drift import long_run

        with ui.progress("long run", quiet=json) as advance:
            run_of = long_run(loaded, dataset, split, frames=long, latent=main, progress=advance, **common)
        scores["long"] = run_of.to_json()
    path = keep(loaded, scores, output, whole=not (frames or future))
    if json:
        ui.emit(scores)
    else:
        _show(scores, loaded.path)
        if path:
            ui.say(f"score record: {path}")


def score(
    loaded: Loaded, dataset: VideoData, split: str, latent: Latents = "zero", *, quiet: bool = False, **options: Any
) -> dict[str, Any]:
    """The score record of a free run; latent "all" is z = 0 with the others beside it. See ``score.score_split``."""
    from vidcvae.evaluation.score import score_split

    device = next(loaded.model.parameters()).device
    every = latent == ALL
    one = "zero" if latent == "all" else latent
    with ui.progress("free run", quiet) as advance:
        return score_split(loaded, dataset, split, one, every_latent=every, device=device, progress=advance, **options)


def keep(loaded: Loaded, scores: dict[str, Any], output: Path | None = None, whole: bool = True) -> Path | None:
    """Write the record into ``output``, or else into the run's folder; returns where, None for a lone checkpoint."""
    from vidcvae.evaluation import records

    if output:
        records.write(output, scores)
        return output
    if loaded.run is None:
        return None
    path = records.path_in(loaded.run, records.name_of(loaded, scores, whole))
    try:
        records.write(path, scores)
    except DataError as error:  # a run that may only be read is scored all the same
        ui.warn(f"the record is not kept: {error.message}")
        return None
    return path


def _bounds(
    loaded: Loaded,
    dataset: VideoData,
    scores: dict[str, Any],
    samples: int,
    quiet: bool,
    common: dict[str, Any],
) -> dict[str, Any]:
    from vidcvae.evaluation.latents import measure_bounds

    sequences, lengths = _scored(dataset, scores)
    with ui.progress("ELBO", quiet) as advance:
        found = measure_bounds(
            loaded.model, sequences, loaded.config, lengths, samples=samples, progress=advance, **common
        )
    return found.to_json()


def _perceptual(
    loaded: Loaded,
    dataset: VideoData,
    scores: dict[str, Any],
    lpips: Path | None,
    fvd: Path | None,
    quiet: bool,
    common: dict[str, Any],
) -> dict[str, Any]:
    from vidcvae.evaluation.perceptual import measure_perceptual
    from vidcvae.evaluation.score import with_past

    sequences, lengths = _scored(dataset, scores)
    protocol = scores["protocol"]
    loaded = with_past(loaded, protocol["past"])
    with ui.progress("LPIPS and FVD", quiet) as advance:
        return measure_perceptual(
            loaded.model,
            sequences,
            loaded.config,
            lengths,
            lpips=lpips,
            fvd=fvd,
            latent=protocol["latent"],
            progress=advance,
            dtype=loaded.dtype,
            **common,
        )


def _scored(dataset: VideoData, scores: dict[str, Any]) -> tuple[tuple[Sequence, ...], list[int]]:
    """The sequences that a record is about, and how many frames of each."""
    protocol = scores["protocol"]
    sequences, future = dataset.split(protocol["split"]), protocol["future"]
    each = [future] * len(sequences) if isinstance(future, int) else future
    return sequences, [protocol["past"] + n for n in each]


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
    if "psnr_first_50" in scores:
        ends = [("  of the first 50", "psnr_first_50"), ("  of the last 50", "psnr_last_50")]
        rows[1:1] = [(name, *(found[key] for found in beside.values())) for name, key in ends]
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
    names = {"lpips_mean": "LPIPS", "fvd": "FVD"}
    for key, value in scores.get("perceptual", {}).items():
        if key in names:
            ui.say(f"{names[key]}: {value:.4f}")
    if run := scores.get("long"):
        ui.say(
            f"{run['frames']} frames, poses forward and back: {run['first']:.2f} dB in the first of "
            f"{len(run['passes'])} passes, {run['last']:.2f} dB in the last: {run['lost']:.2f} dB lost"
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
    if "by_latent" in scores:
        return {f"z: {scores['protocol']['latent']}": scores} | {f"z: {z}": s for z, s in scores["by_latent"].items()}
    return {main: scores, **{title: scores[key] for key, title in titles.items() if key in scores}}
