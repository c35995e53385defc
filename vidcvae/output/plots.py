"""What the plots show: curves read from runs' histories, or computed from a configuration alone.

A ``Chart`` knows nothing of how it is drawn: ``figures`` makes a file of it, ``terminal`` a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidcvae.config import Config, differences, read_toml, resolve, to_table
from vidcvae.errors import DataError, typed
from vidcvae.evaluation.diagnostics import Drift
from vidcvae.evaluation.latents import ACTIVE
from vidcvae.storage.history import read_history
from vidcvae.storage.run import RunFolder
from vidcvae.training import schedules
from vidcvae.training.schedules import Length

Record = dict[str, Any]

SUMMED = ("total", "reconstruction", "kl", "smoothing")
LATENT_LABELS = {"zero": "z = 0", "prior": "z from the prior"}
BASELINES = {
    "baseline_copy_first_psnr": "first frame",
    "baseline_copy_last_past_psnr": "last given frame",  # recorded where more than one is given
}
ASSUMED_STEPS = 100  # steps in an epoch, for the schedules of a configuration whose data nobody has counted
SCHEDULE_POINTS = 2000
FEW_EPOCHS = 8  # fewer have no curve of their own: the log steps are drawn


@dataclass(frozen=True)
class Line:
    """A curve. ``run`` gives its colour (-1: grey); ``style`` is "main", "fine", "faint", "dashed" or "marks"."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    run: int = 0
    style: str = "main"


@dataclass(frozen=True)
class Panel:
    """Axes: what is on y, with its unit; ``tall`` panels get most of the height. ``xlabel``: an x axis of its own."""

    ylabel: str
    lines: tuple[Line, ...]
    log: bool = False
    tall: bool = True
    from_zero: bool = False
    zero_to_one: bool = False
    xlabel: str = ""


@dataclass(frozen=True)
class Chart:
    """Panels one below another over one x axis, but for those that have their own."""

    title: str
    xlabel: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Run:
    """A run as the plots see it."""

    name: str
    config: Config
    history: list[Record]
    path: Path | None = None

    def records(self, kind: str) -> list[Record]:
        return [record for record in self.history if record["kind"] == kind]

    def epochs_of(self, records: Sequence[Record]) -> list[float]:
        """When the records were taken, in epochs: 1.5 is halfway through the second."""
        ends = self.records("epoch")
        steps = [0, *(record["step"] for record in ends)]
        epochs = [0.0, *(record["epoch"] + 1.0 for record in ends)]
        if self.history and (last := max(r["step"] for r in self.history)) > steps[-1]:  # an epoch not yet over
            per_epoch = self.steps_per_epoch()
            epochs.append(epochs[-1] + (last - steps[-1]) / per_epoch)
            steps.append(last)
        return np.interp([record["step"] for record in records], steps, epochs).tolist()  # type: ignore[no-any-return]

    def steps_per_epoch(self) -> int:
        """As the configuration or the history tells; the steps so far if no epoch is over."""
        return self.length().steps_per_epoch

    def length(self) -> Length:
        """How long the run is, as far as that is known without its data."""
        train, data = self.config.training, self.config.data
        if train.steps_per_epoch:
            return Length(train.epochs, train.steps_per_epoch)
        short = min(data.fast_train_epochs, train.epochs) if data.fast_train else 0
        ends = self.records("epoch")
        seen = ends[0]["step"] if ends else max((r["step"] for r in self.history), default=0)
        if not short:
            return Length(train.epochs, seen or ASSUMED_STEPS)
        if len(ends) > short:
            full = ends[short]["step"] - ends[short - 1]["step"]
        else:
            full = round(seen / data.fast_train_fraction) or ASSUMED_STEPS
        return Length(train.epochs, full, short, seen or round(full * data.fast_train_fraction))


def read_run(folder: RunFolder, trained: bool = True) -> Run:
    """The configuration and history of a run folder; raises ``DataError`` if it is ``trained`` and has no losses."""
    history = read_history(folder.history) if trained or folder.history.exists() else []
    if trained and not any(record["kind"] in ("step", "epoch") for record in history):
        raise DataError(
            f"the run {folder.path} has no losses yet.", f"It may still be starting; or: {typed('resume', folder.path)}"
        )
    return Run(folder.path.name, resolve(read_toml(folder.config)), history, folder.path)


def labels(runs: Sequence[Run]) -> list[str]:
    """What sets each run apart from the others, or its name where that says nothing or too much."""
    differing = dict.fromkeys(key for run in runs for key in differences(runs[0].config, run.config))
    keys = [key for key in differing if key != "data.path"]
    if not 1 <= len(keys) <= 3:
        return [run.name for run in runs]
    found = []
    for run in runs:
        table = to_table(run.config)
        values = [table[section].get(name, "-") for section, _, name in (key.partition(".") for key in keys)]
        found.append(", ".join(f"{key} = {value}" for key, value in zip(keys, values, strict=True)))
    return [
        f"{label} ({run.name})" if found.count(label) > 1 else label for label, run in zip(found, runs, strict=True)
    ]


# --- charts ----------------------------------------------------------------------------------------


def loss_chart(runs: Sequence[Run]) -> Chart:
    """Training loss of one or more runs, with the beta and the teacher-forcing ratio they had."""
    total = _curves(runs, "total")
    if len(runs) == 1:
        total = (*total, *_curves(runs, "reconstruction", run=1))
    return Chart("Training loss", "epoch", (Panel("loss per frame", total, log=True), *_weights(runs)))


def kl_chart(runs: Sequence[Run]) -> Chart:
    """KL, reconstruction error, beta and teacher-forcing ratio on one page."""
    kl = "KL per frame (nats)" if runs[0].config.kl.reduction == "sum" else "KL per frame\n(nats per dimension)"
    error = {"mse": "MSE", "l1+mse": "½ L1 + ½ MSE"}[runs[0].config.loss.reconstruction]
    return Chart(
        "KL and reconstruction",
        "epoch",
        (
            Panel(kl, _curves(runs, "kl"), log=True),
            Panel(error, _curves(runs, "reconstruction"), log=True),
            *_weights(runs),
        ),
    )


def lr_chart(runs: Sequence[Run]) -> Chart:
    """The learning rate that the runs had."""
    return Chart("Learning rate", "epoch", (Panel("learning rate", _curves(runs, "lr", faint=False), log=True),))


def psnr_chart(runs: Sequence[Run]) -> Chart:
    """PSNR of each frame of the validation's free run, from each run's best epoch.

    One run shows both ways to choose z and the baseline; several show the one that their ``best`` is chosen by.
    """
    lines: list[Line] = []
    for index, (run, label) in enumerate(zip(runs, labels(runs), strict=True)):
        metric = run.config.validation.metric
        validations = run.records("validation")
        if not validations:
            raise DataError(
                f"the run {run.name} has no validation yet; without a val split it never has.",
                f"See how it goes: {typed('plot', 'loss', run.path or run.name)}",
            )
        best = max(validations, key=lambda record: float(record[metric]))
        latents = ("zero", "prior") if len(runs) == 1 else (metric.partition("_")[2],)
        for offset, latent in enumerate(latents):
            curve = best[f"psnr_{latent}_per_frame"]
            frames = [run.config.training.past + i for i in range(len(curve))]
            name = LATENT_LABELS[latent] if len(runs) == 1 else label
            lines.append(Line(f"{name}: mean {np.mean(curve):.2f} dB", frames, curve, index + offset, "fine"))
        if len(runs) == 1:
            for key, what in BASELINES.items():
                if key in best:
                    text = f"copying the {what}: mean {best[key]:.2f} dB"
                    lines.append(Line(text, [frames[0], frames[-1]], [best[key]] * 2, -1, "dashed"))
    title = "Free run on the validation split"
    if len(runs) == 1:
        title += f", epoch {best['epoch'] + 1}"
    elif len(chosen := {run.config.validation.metric.partition("_")[2] for run in runs}) == 1:
        title += f", {LATENT_LABELS[chosen.pop()]}"
    return Chart(title, "frame", (Panel("PSNR (dB)", tuple(lines)),))


def schedule_chart(runs: Sequence[Run]) -> Chart:
    """Beta, teacher-forcing ratio and learning rate over whole runs, from the functions that train.

    A run without history counts 100 steps an epoch, which matters to warm-up and to beta per iteration.
    """

    def curves(value: Callable[[Config, Length, int], float]) -> tuple[Line, ...]:
        lines = []
        for index, (run, name) in enumerate(zip(runs, labels(runs), strict=True)):
            length = run.length()
            steps = sorted({round(s) for s in np.linspace(0, length.steps - 1, SCHEDULE_POINTS)})
            epochs = [length.epoch(step) for step in steps]
            x = [
                e + (s - length.begin(e)) / (length.end(e) - length.begin(e))
                for e, s in zip(epochs, steps, strict=True)
            ]
            lines.append(Line(name, x, [value(run.config, length, step) for step in steps], index))
        return tuple(lines)

    beta = curves(lambda config, length, step: schedules.beta(config.kl, length, step))
    ratio = curves(lambda c, length, step: schedules.teacher_forcing_ratio(c.teacher_forcing, length.epoch(step)))
    return Chart(
        "Schedules",
        "epoch",
        (
            Panel("β (KL weight)", beta, from_zero=True),
            Panel("teacher-forcing ratio", ratio, zero_to_one=True),
            Panel("learning rate", curves(schedules.learning_rate), log=True),
        ),
    )


def drift_chart(named: Sequence[tuple[str, Drift]]) -> Chart:
    """PSNR of the free run beside that of fresh restarts, and what age costs: the gap, with its straight line."""
    above, below = [], []
    for index, (name, drift) in enumerate(named):
        label = f"{name}, " if len(named) > 1 else ""
        known = [t for t, gap in zip(drift.frames, drift.gap, strict=True) if gap is not None]
        fresh, gaps = ([v for v in curve if v is not None] for curve in (drift.restarted, drift.gap))
        above.append(
            Line(f"{label}from frame 0: mean {np.mean(drift.free):.2f} dB", drift.frames, drift.free, 2 * index)
        )
        text = f"{label}restarted every {drift.every} frames: mean {np.mean(fresh):.2f} dB"
        above.append(Line(text, known, fresh, 2 * index + 1, "fine"))
        slope = f"{label}{drift.gap_slope_per_100:+.2f} dB per 100 frames"
        below.append(Line(f"{label}restarted - from frame 0", known, gaps, 2 * index, "faint"))
        below.append(Line(slope, *_fit(known, gaps), 2 * index, "dashed"))
    title = "Drift"
    if len(named) == 1:
        age = named[0][1].age_test
        title += f": frames {age.tail[0]}-{age.tail[1]} have {age.from_start:.2f} dB from frame 0, "
        title += f"{age.from_restart:.2f} dB from frame {age.restart}"
    return Chart(title, "frame", (Panel("PSNR (dB)", tuple(above)), Panel("gap (dB)", tuple(below))))


def latents_chart(record: Record) -> Chart:
    """PSNR for each way to choose z, KL of every dimension and activity, from a record of ``evaluate --latent all``."""
    latents, protocol = record["latents"], record["protocol"]
    curves = {protocol["latent"]: record, **record["by_latent"]}
    psnr = [
        Line(
            f"z {name}: mean {scores['psnr_mean']:.2f} dB",
            range(protocol["past"], protocol["past"] + len(scores["psnr_per_frame"])),
            scores["psnr_per_frame"],
            index,
            "fine",
        )
        for index, (name, scores) in enumerate(curves.items())
    ]
    ranks = [rank + 1 for rank in latents["kl_ranks"]]
    threshold = Line(f"active above {ACTIVE}", [ranks[0], ranks[-1]], [ACTIVE] * 2, -1, "dashed")
    active = f"{latents['active_units']} of {latents['dimensions']} units active"
    rank = f"dimension of z, of {latents['dimensions']}, by falling KL"
    return Chart(
        f"Latent: KL {latents['kl']:.3g} nats a frame, {active}",
        "frame",
        (
            Panel("PSNR (dB)", tuple(psnr), xlabel="frame"),
            Panel("KL (nats)", (Line("", ranks, latents["kl_per_dimension"]),), log=True, xlabel=rank),
            Panel(
                "variance of\nposterior mean",
                (Line("variance", ranks, latents["variance_per_dimension"]), threshold),
                log=True,
                xlabel=rank,
            ),
        ),
    )


def _fit(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """The ends of the least-squares line."""
    if len(x) < 2:
        return list(x), list(y)
    slope, offset = np.polyfit(x, y, 1)
    return [x[0], x[-1]], [float(slope * end + offset) for end in (x[0], x[-1])]


def _weights(runs: Sequence[Run]) -> tuple[Panel, Panel]:
    """Beta and teacher forcing, the small panels beneath a loss."""
    ratio = _curves(runs, "teacher_forcing", faint=False)
    if len(runs) == 1 and any(record.get("teacher_forcing", 0) > 0 for record in runs[0].records("epoch")):
        forced = runs[0].records("epoch")
        marks = Line(
            "share forced",
            [epoch - 0.5 for epoch in runs[0].epochs_of(forced)],
            [r["forced"] for r in forced],
            1,
            "marks",
        )
        ratio = (*ratio, marks)
    return (
        Panel("β", _curves(runs, "beta", faint=False), tall=False, from_zero=True),
        Panel("teacher\nforcing", ratio, tall=False, zero_to_one=True),
    )


def _curves(runs: Sequence[Run], key: str, run: int = 0, faint: bool = True) -> tuple[Line, ...]:
    """A line for each run: means over epochs where there are enough of them, with the log steps faint behind them.

    ``faint`` False draws one line only, as fine as there is: for what does not scatter.
    """
    lines = []
    names = [key.replace("teacher_forcing", "ratio")] if len(runs) == 1 else labels(runs)
    for index, (each, name) in enumerate(zip(runs, names, strict=True)):
        steps, epochs = ([r for r in each.records(kind) if key in r] for kind in ("step", "epoch"))
        fine = steps or epochs
        # Histories hold sums over the predicted frames of a clip; per frame, clips of any length compare
        values, means = ([r[key] / (r["predicted"] if key in SUMMED else 1) for r in found] for found in (fine, epochs))
        if len(epochs) < FEW_EPOCHS or not faint:
            lines.append(Line(name, each.epochs_of(fine), values, run + index))
            continue
        lines.append(Line("", each.epochs_of(fine), values, run + index, "faint"))
        middles = [epoch - 0.5 for epoch in each.epochs_of(epochs)]
        lines.append(Line(name, middles, means, run + index))
    return tuple(lines)
