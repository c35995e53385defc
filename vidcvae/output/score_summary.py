"""A score record in words and tables, as ``vidcvae evaluate`` shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidcvae.evaluation import records
from vidcvae.evaluation.columns import MEANS
from vidcvae.evaluation.records import Record
from vidcvae.output.table import Table

COLLAPSED_NATS = 0.01  # KL per dimension of z and frame, below which the posterior is practically the prior
USES_ACTIONS = 0.05  # dB: the least loss with the actions of other clips that counts
MOST_STEPS, MOST_SEQUENCES = 30, 12  # if there are more frames or sequences, only the means are shown

_COPIED = {
    "copy_first": "first frame",
    "copy_last_past": "last given frame",
    "copy_previous_truth": "previous true frame",
    "nearest_pose": "training frame of the nearest pose",
}
_KINDS = {"": "PSNR (dB)", "_per_channel": "per channel (dB)", "_still": "still", "_moving": "moving"}


def summary(record: Record, checkpoint: Path) -> Iterator[str | Table]:
    """The means beside those of other ways to choose z, the baselines, the latent, every frame of a short run,
    the sequences, and the protocol."""
    columns = _columns(record)
    yield _means(columns)
    yield _baselines(record)
    yield f"still pixels ({record['share_still']:.1%}): {record['still_pixels']}"
    if nearest := record.get("nearest_pose"):
        source = f" of {nearest['searched']} of {nearest['dataset']}" if nearest["searched"] else ""
        beaten = records.nearest_pose_text(record)
        yield f"nearest pose{source}: {f'the model {beaten}' if beaten else nearest['reason']}"
    yield from _latent(record)
    if len(record["psnr_per_frame"]) <= MOST_STEPS:
        yield _frames(record, columns)
    sequences = record.get("sequences", [])
    if sequences and len(sequences) <= MOST_SEQUENCES:
        rows = [(s["name"], s["psnr_mean"], s["ssim_mean"]) for s in sequences]
        yield Table("", ("sequence", "PSNR (dB)", "SSIM"), rows)
    if "listening_gap_psnr" in record:
        lost = record["listening_gap_psnr"]
        answer = "the model uses actions" if lost >= USES_ACTIONS else "the model does not use actions"
        yield f"{answer}: with those of other clips it loses {lost + 0.0:.2f} dB"
    yield f"{checkpoint}, {_protocol(record['protocol'])}"


def remarks(record: Record) -> list[str]:
    """What the numbers mean, where a reader may miss it."""
    texts = []
    past = record["protocol"]["past"]
    key, frame = ("last_past", "last given") if past > 1 else ("first", "first")
    if record["psnr_mean"] < (copied := record[f"baseline_copy_{key}_psnr"]):
        texts.append(
            f"the model ({record['psnr_mean']:.2f} dB) is worse than repeating the {frame} frame ({copied:.2f} dB)"
        )
    if not record["active_units"]:
        collapsed = record["kl"] < COLLAPSED_NATS * record["latent_dimensions"]
        state = (
            "has collapsed onto the prior" if collapsed else "differs from the prior, but is the same for every frame"
        )
        texts.append(f"the posterior {state}: z carries no information")
    if "listening_gap_psnr" not in record and record["protocol"]["actions"] == "own":
        texts.append("whether it uses actions cannot be measured: no other clip has the same length")
    return texts


def _columns(record: Record) -> dict[str, dict[str, Any]]:
    """The scores that are shown side by side, by the titles of their columns."""
    protocol = record["protocol"]
    samples, actions = protocol["samples"], protocol["actions"]
    if "by_latent" in record:
        return {f"z: {protocol['latent']}": record} | {f"z: {z}": scores for z, scores in record["by_latent"].items()}
    main = f"mean of {samples}" if samples > 1 else "other actions" if actions == "of other clips" else "free run"
    titles = {
        "best": f"best of {samples}",
        "posterior": "posterior",
        "own_actions": "own actions",
        "other_actions": "other actions",
    }
    return {main: record, **{title: record[key] for key, title in titles.items() if key in record}}


def _means(columns: dict[str, dict[str, Any]]) -> Table:
    means = [{**column, **column.get("perceptual", {})} for column in columns.values()]
    rows = [
        (title, *(_cell(column.get(key)) for column in means))
        for key, title in MEANS.items()
        if any(key in column for column in means)
    ]
    return Table("", ("mean over frames", *columns), rows)


def _baselines(record: Record) -> Table:
    rows = [
        (title, *(_cell(record[f"baseline_{key}_psnr{kind}"]) for kind in _KINDS))
        for key, title in _COPIED.items()
        if record.get(f"baseline_{key}_psnr") is not None
    ]
    return Table("", ("copying the", *_KINDS.values()), rows)


def _latent(record: Record) -> Iterator[str]:
    units = f"{record['active_units']} of {record['latent_dimensions']} units active"
    yield f"latent: KL {record['kl']:.4g} nats per frame, {units}"
    if bounds := record.get("bounds"):
        yield (
            f"bits per dimension, at most: ELBO {bounds['elbo_bits_per_dimension']:.4f}, importance-weighted "
            f"{bounds['importance_weighted_bits_per_dimension']:.4f} ({bounds['importance_samples']} samples); "
            f"likelihood: {bounds['likelihood']}, sigma {bounds['sigma']:.4f}"
        )
    if "fvd" in record.get("perceptual", {}):
        yield f"FVD: {record['perceptual']['fvd']:.4f}"
    if run := record.get("long"):
        yield (
            f"{run['frames']} frames, poses forward and back: {run['first']:.2f} dB in the first of "
            f"{len(run['passes'])} passes, {run['last']:.2f} dB in the last: {run['lost']:.2f} dB lost"
        )


def _frames(record: Record, columns: dict[str, dict[str, Any]]) -> Table:
    curves = {title: column["psnr_per_frame"] for title, column in columns.items()}
    curves["copy of the last given"] = record["baseline_copy_last_past_psnr_per_frame"]
    steps = enumerate(zip(*curves.values(), strict=True), start=record["protocol"]["past"])
    return Table("", ("PSNR (dB) of frame", *curves), [(t, *values) for t, values in steps])


def _protocol(protocol: dict[str, Any]) -> str:
    actions = f", actions {protocol['actions']}" if protocol["actions"] != "none" else ""
    drawn = f"{protocol['latent']}, {protocol['samples']} samples" if protocol["samples"] > 1 else protocol["latent"]
    statistics = f", {protocol['batch_norm']} statistics" if protocol["batch_norm"] != "none" else ""
    return (
        f"{protocol['weights']} weights{statistics}; {protocol['dataset']} "
        f"{protocol['split']}, {protocol['past']} given -> {protocol['future']} predicted, z: {drawn}, "
        f"seed {protocol['seed']}; condition: {protocol['condition']}{actions}"
    )


def _cell(value: float | None) -> float | str:
    return "-" if value is None else value
