"""``vidcvae evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from vidcvae.cli import command, trained, ui
from vidcvae.cli.command import option
from vidcvae.config.schema import LatentOrAll
from vidcvae.errors import UsageError
from vidcvae.evaluation.columns import MEANS

COLLAPSED_NATS = 0.01  # KL per dimension of z and frame, below which the posterior is practically the prior
MOST_STEPS, MOST_SEQUENCES = 30, 12  # if there are more frames or sequences, only the means are shown
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
    columns = _columns(scores)
    means = {title: {**column, **column.get("perceptual", {})} for title, column in columns.items()}
    rows = [
        (title, *(_cell(column.get(key)) for column in means.values()))
        for key, title in MEANS.items()
        if any(key in column for column in means.values())
    ]
    ui.table("", ("mean over frames", *columns), rows)
    baselines = {
        "copy_first": "first frame",
        "copy_last_past": "last given frame",
        "copy_previous_truth": "previous true frame",
        "nearest_pose": "training frame of the nearest pose",
    }
    kinds = {"": "PSNR (dB)", "_per_channel": "per channel (dB)", "_still": "still", "_moving": "moving"}
    rows = [
        (title, *(_cell(scores[f"baseline_{key}_psnr{kind}"]) for kind in kinds))
        for key, title in baselines.items()
        if scores.get(f"baseline_{key}_psnr") is not None
    ]
    ui.table("", ("copying the", *kinds.values()), rows)
    ui.say(f"still pixels ({scores['share_still']:.1%}): {scores['still_pixels']}")
    if nearest := scores.get("nearest_pose"):
        source = f" of {nearest['searched']} of {nearest['dataset']}" if nearest["searched"] else ""
        ui.say(f"nearest pose{source}: {records.nearest_pose_text(scores) or nearest['reason']}")
    _show_latent(scores)
    if len(curve) <= MOST_STEPS:
        curves = {title: column["psnr_per_frame"] for title, column in columns.items()}
        curves["copy of the last given"] = scores["baseline_copy_last_past_psnr_per_frame"]
        steps = enumerate(zip(*curves.values(), strict=True), start=protocol["past"])
        ui.table("", ("PSNR (dB) of frame", *curves), [(t, *values) for t, values in steps])
    sequences = scores.get("sequences", [])
    if sequences and len(sequences) <= MOST_SEQUENCES:
        rows = [(s["name"], s["psnr_mean"], s["ssim_mean"]) for s in sequences]
        ui.table("", ("sequence", "PSNR (dB)", "SSIM"), rows)
    if "listening_gap_psnr" in scores:
        ui.say(f"does it use actions? With those of other clips it loses {scores['listening_gap_psnr']:.2f} dB")
    elif protocol["actions"] == "own":
        ui.note("whether it uses actions cannot be measured: no other clip has the same length")
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
    ui.say(f"latent: KL {scores['kl']:.4g} nats per frame, {units}")
    if not scores["active_units"]:
        collapsed = scores["kl"] < COLLAPSED_NATS * scores["latent_dimensions"]
        state = (
            "has collapsed onto the prior" if collapsed else "differs from the prior, but is the same for every frame"
        )
        ui.note(f"the posterior {state}: z carries no information")
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


def _columns(scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The scores that are shown side by side, by the titles of their columns."""
    samples, actions = scores["protocol"]["samples"], scores["protocol"]["actions"]
    if "by_latent" in scores:
        return {f"z: {scores['protocol']['latent']}": scores} | {f"z: {z}": s for z, s in scores["by_latent"].items()}
    main = f"mean of {samples}" if samples > 1 else "other actions" if actions == "of other clips" else "free run"
    titles = {
        "best": f"best of {samples}",
        "posterior": "posterior",
        "own_actions": "own actions",
        "other_actions": "other actions",
    }
    return {main: scores, **{title: scores[key] for key, title in titles.items() if key in scores}}
