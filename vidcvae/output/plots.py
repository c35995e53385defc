"""The charts of runs: curves read from their histories, or computed from their configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never, get_args

import numpy as np

from vidcvae.config import Config, differences, read_toml, resolve_saved, to_table
from vidcvae.config.schema import DrawnLatent, Metric, error_name, kl_unit
from vidcvae.errors import DataError, counted, typed
from vidcvae.output.chart import Chart, Line, Panel
from vidcvae.storage.history import epoch_of, read_history
from vidcvae.storage.run import RunFolder
from vidcvae.training import schedules
from vidcvae.training.schedules import Length

if TYPE_CHECKING:
    from vidcvae.evaluation.drift import Drift

Record = dict[str, Any]

SUMMED = ("total", "reconstruction", "kl", "smoothing")
BASELINES = {
    "baseline_copy_first_psnr": "first frame",
    "baseline_copy_last_past_psnr": "last given frame",  # recorded if more than one frame is given
}
ASSUMED_STEPS = 100  # steps in an epoch, for the schedules of a configuration whose data have not been counted
SCHEDULE_POINTS = 2000
FEW_EPOCHS = 8  # with fewer epochs, a curve shows the log steps alone


@dataclass(frozen=True)
class Run:
    """A run's configuration and history."""

    name: str
    config: Config
    history: list[Record]
    path: Path | None = None

    def records(self, kind: str) -> list[Record]:
        return [record for record in self.history if record["kind"] == kind]

    def epochs_of(self, records: Sequence[Record]) -> list[float]:
        """The time of each record, in epochs: 1.5 is halfway through the second."""
        length = self.length()
        return [length.done(record["step"]) for record in records]

    def middles_of(self, ends: Sequence[Record]) -> list[float]:
        """The middle of the time over which each record of kind "epoch" is a mean, in epochs.

        A time budget may split an epoch over two records."""
        over = self.epochs_of(ends)
        return [(max(r["epoch"], before) + end) / 2 for r, before, end in zip(ends, [0.0, *over], over, strict=False)]

    def length(self) -> Length:
        """The planned length of the run, as far as the history shows it; its data are not read."""
        train, data = self.config.training, self.config.data
        if train.steps_per_epoch:
            return Length(train.epochs, train.steps_per_epoch)
        short = min(data.fast_train_epochs, train.epochs) if data.fast_train else 0
        with_epochs = [r for r in self.history if r.get("epochs_done")]
        ends = self.records("epoch")  # older histories have no epochs_done, only the end of each epoch
        known = [(r["step"], r.get("epochs_done", r["epoch"] + 1)) for r in (*with_epochs, *ends)]
        steps, done = next((pair for pair in known if not short or pair[1] <= short), (0, 0))
        first = round(steps / done) if done else max((r["step"] for r in self.history), default=0)
        if not short:
            return Length(train.epochs, first or ASSUMED_STEPS)
        steps, done = max(known, default=(0, 0))
        if done > short:
            full = round((steps - short * first) / (done - short))
        else:
            full = round(first / data.fast_train_fraction) or ASSUMED_STEPS
        return Length(train.epochs, full, short, first or round(full * data.fast_train_fraction))


def read_run(folder: RunFolder, trained: bool = True) -> Run:
    """The configuration and history of a run folder. Raises ``DataError`` if a ``trained`` run has no losses."""
    history = read_history(folder.history) if trained or folder.history.exists() else []
    if trained and not any(record["kind"] in ("step", "epoch") for record in history):
        raise DataError(
            f"the run {folder.path} has no losses yet.", f"It may still be starting; or: {typed('resume', folder.path)}"
        )
    return Run(folder.name, resolve_saved(read_toml(folder.config)), history, folder.path)


def labels(runs: Sequence[Run]) -> list[str]:
    """The settings that distinguish each run from the others, or its name if there are none or more than three."""
    keys = differing(runs)
    if not 1 <= len(keys) <= 3:
        return [run.name for run in runs]
    names = [", ".join(f"{key} = {value_of(run, key)}" for key in keys) for run in runs]
    return [
        f"{label} ({run.name})" if names.count(label) > 1 else label for label, run in zip(names, runs, strict=True)
    ]


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings in which the runs differ, except for the path of their data."""
    keys = dict.fromkeys(key for run in runs for key in differences(runs[0].config, run.config))
    return [key for key in keys if key != "data.path"]


def value_of(run: Run, key: str) -> Any:
    """The run's value of a setting such as "kl.type"; "-" if its model does not have it."""
    section, _, name = key.partition(".")
    return to_table(run.config)[section].get(name, "-")


def _latent_name(latent: DrawnLatent) -> str:
    match latent:
        case "zero":
            return "z = 0"
        case "prior":
            return "z from the prior"
        case _:
            assert_never(latent)


def _latent_of(metric: Metric) -> DrawnLatent:
    """How z is chosen in a score."""
    match metric:
        case "psnr_zero" | "ssim_zero":
            return "zero"
        case "psnr_prior" | "ssim_prior":
            return "prior"
        case _:
            assert_never(metric)


# --- charts ----------------------------------------------------------------------------------------


def loss_chart(runs: Sequence[Run]) -> Chart:
    """Training loss of one or more runs, with the beta and the teacher-forcing ratio of each step.

    Each kind of loss has its own panel, as the quantities cannot be compared.
    """
    total = _by_unit(runs, "total", lambda run: f"loss per frame\n({_objective(run.config)})")
    if len(runs) == 1:
        (panel,) = total
        total = [replace(panel, lines=(*panel.lines, *_curve(runs[0], "reconstruction", "reconstruction", 1)))]
    return Chart("Training loss", "epoch", (*map(_log_if_positive, total), *_weights(runs)))


def kl_chart(runs: Sequence[Run]) -> Chart:
    """KL, reconstruction error, beta and teacher-forcing ratio."""
    kl = _by_unit(runs, "kl", lambda run: f"KL per frame ({kl_unit(run.config.kl.reduction)})")
    error = _by_unit(runs, "reconstruction", lambda run: f"{error_name(run.config.loss.reconstruction)} per frame", 1)
    return Chart("KL and reconstruction", "epoch", (*map(_log_if_positive, [*kl, *error]), *_weights(runs)))


def lr_chart(runs: Sequence[Run]) -> Chart:
    """The learning rate of each step."""
    panel = Panel("learning rate", _schedule(runs, "lr", lambda config: config.lr_schedule.type != "cosine"))
    return Chart("Learning rate", "epoch", (_log_if_positive(panel),))


def psnr_chart(runs: Sequence[Run]) -> Chart:
    """PSNR of each frame of the validation's free run, from each run's best epoch, and of the baselines.

    A single run shows both ways to choose z; several runs show the one that selects their best checkpoint.
    """
    scored_by = [_latent_of(run.config.validation.metric) for run in runs]
    lines: list[Line] = []
    bests: list[Record] = []
    for index, (run, label) in enumerate(zip(runs, labels(runs), strict=True)):
        metric = run.config.validation.metric
        validations = run.records("validation")
        if not validations:
            raise DataError(
                f"the run {run.name} has no validation yet. A run without a val split never has one.",
                f"See how it goes: {typed('plot', 'loss', run.path or run.name)}",
            )
        best = max(validations, key=lambda record: float(record[metric]))
        for offset, latent in enumerate(get_args(DrawnLatent) if len(runs) == 1 else [scored_by[index]]):
            curve = best[f"psnr_{latent}_per_frame"]
            frames = [run.config.training.past + i for i in range(len(curve))]
            name = _latent_name(latent) if len(runs) == 1 else label
            lines.append(Line(f"{name}: mean {np.mean(curve):.2f} dB", frames, curve, index + offset, "fine"))
        bests.append(best)
    for key, what in BASELINES.items():  # drawn only if equal in all runs, which means that the data are the same
        copied = {f"copying the {what}: mean {best[key]:.2f} dB" if key in best else "" for best in bests}
        if len(copied) == 1 and (text := copied.pop()):
            lines.append(Line(text, [frames[0], frames[-1]], [best[key]] * 2, -1, "dashed"))
    title = "Free run on the validation split"
    if len(runs) == 1:
        title += f", {epoch_of(best)}"
    elif len(set(scored_by)) == 1:
        title += f", {_latent_name(scored_by[0])}"
    return Chart(title, "frame", (Panel("PSNR (dB)", tuple(lines)),))


def schedule_chart(runs: Sequence[Run]) -> Chart:
    """Beta, teacher-forcing ratio and learning rate over whole runs, from the functions that training uses.

    A run without a history is assumed to have 100 steps an epoch, which affects warm-up and beta per iteration.
    """

    def curves(value: Callable[[Config, Length, int], float]) -> tuple[Line, ...]:
        lines = []
        for index, (run, name) in enumerate(zip(runs, labels(runs), strict=True)):
            length = run.length()
            steps = sorted({round(s) for s in np.linspace(0, length.steps - 1, SCHEDULE_POINTS)})
            lines.append(
                Line(name, [*map(length.done, steps)], [value(run.config, length, step) for step in steps], index)
            )
        return tuple(lines)

    beta = curves(lambda config, length, step: schedules.beta(config.kl, length, step))
    ratio = curves(lambda c, length, step: schedules.teacher_forcing_ratio(c.teacher_forcing, length.epoch(step)))
    return Chart(
        _schedules_title(runs),
        "epoch",
        (
            Panel("β (KL weight)", beta, from_zero=True),
            Panel("teacher-forcing ratio", ratio, zero_to_one=True),
            Panel("learning rate", curves(schedules.learning_rate), log=True),
        ),
    )


def _schedules_title(runs: Sequence[Run]) -> str:
    """A title that says so if a time budget may end training before the planned epochs are done."""
    if not any(run.config.training.max_minutes for run in runs):
        return "Schedules"
    if len(runs) > 1:
        return "Schedules as planned; training fits them into training.max_minutes"
    (run,), train = runs, runs[0].config.training
    planned = f"Schedules of {counted(train.epochs, 'planned epoch')}"
    *_, last = [*run.records("step"), *run.records("epoch")] or [{"step": 0}]
    if (done := run.epochs_of([last])[0]) >= train.epochs:
        return "Schedules"
    if last.get("minutes", 0) < train.max_minutes:
        return f"{planned}, to be fitted into at most {train.max_minutes:g} minutes"
    return f"{planned}, fitted into {train.max_minutes:g} minutes ({done:.3g} epochs)"


def drift_chart(named: Sequence[tuple[str, Drift]]) -> Chart:
    """PSNR of the free run and of restarts from true frames, and the gap between them with its straight line."""
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
        slope = f"{label}{round(drift.gap_slope_per_100, 2) + 0.0:+.2f} dB per 100 frames"  # -0.0 is 0.0
        below.append(Line(f"{label}restarted - from frame 0", known, gaps, 2 * index, "faint"))
        below.append(Line(slope, *_fit(known, gaps), 2 * index, "dashed"))
    title = "Drift"
    if len(named) == 1:
        age = named[0][1].age_test
        title += f": frames {age.tail[0]}-{age.tail[1]} have {age.from_start:.2f} dB from frame 0, "
        title += f"{age.from_restart:.2f} dB from frame {age.restart}"
    return Chart(title, "frame", (Panel("PSNR (dB)", tuple(above)), Panel("gap (dB)", tuple(below))))


def latents_chart(record: Record) -> Chart:
    """PSNR for each way to choose z, KL and activity of each dimension, from a record of ``evaluate --latent all``."""
    from vidcvae.evaluation.latents import ACTIVE

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
    """The small panels beneath a loss: beta and teacher forcing."""
    ratio = _schedule(runs, "teacher_forcing", lambda config: True, 3)
    if len(runs) == 1 and any(record.get("teacher_forcing", 0) > 0 for record in runs[0].records("epoch")):
        epochs = runs[0].records("epoch")
        shares = [record["forced"] for record in epochs]
        ratio = (*ratio, Line("share forced", runs[0].middles_of(epochs), shares, 4, "marks"))
    return (
        Panel("β", _schedule(runs, "beta", lambda config: config.kl.per == "epoch", 2), tall=False, from_zero=True),
        Panel("teacher\nforcing", ratio, tall=False, zero_to_one=True),
    )


def _objective(config: Config) -> str:
    """The terms of the total loss."""
    smoothing = " + smoothing" if config.loss.smoothing else ""
    return f"{error_name(config.loss.reconstruction)} + β KL{smoothing}"


def _by_unit(runs: Sequence[Run], key: str, unit: Callable[[Run], str], colour: int = 0) -> list[Panel]:
    """A panel for each unit, with the curves of the runs that have it. ``colour``: of the curve if there is one run."""
    panels: dict[str, tuple[Line, ...]] = {}
    for index, (run, name) in enumerate(zip(runs, _names(runs, key), strict=True)):
        curve = _curve(run, name, key, colour if len(runs) == 1 else index)
        panels[unit(run)] = (*panels.get(unit(run), ()), *curve)
    return [Panel(title, lines) for title, lines in panels.items()]


def _names(runs: Sequence[Run], key: str) -> list[str]:
    return [{"teacher_forcing": "ratio", "kl": "KL"}.get(key, key)] if len(runs) == 1 else labels(runs)


def _log_if_positive(panel: Panel) -> Panel:
    """The panel with a logarithmic axis, unless that would hide values."""
    return replace(panel, log=all(y > 0 for line in panel.lines for y in line.y))


def _curve(run: Run, name: str, key: str, colour: int) -> tuple[Line, ...]:
    """Means over epochs with the log steps faint behind them; the log steps alone if there are few epochs."""
    steps, epochs = ([r for r in run.records(kind) if key in r] for kind in ("step", "epoch"))
    fine = steps or epochs
    # Histories store sums over the predicted frames of a clip; a mean per frame does not depend on the clip's length
    values, means = ([r[key] / (r["predicted"] if key in SUMMED else 1) for r in records] for records in (fine, epochs))
    if len(epochs) < FEW_EPOCHS:
        return (Line(name, run.epochs_of(fine), values, colour),)
    return Line("", run.epochs_of(fine), values, colour, "faint"), Line(name, run.middles_of(epochs), means, colour)


def _schedule(runs: Sequence[Run], key: str, stepped: Callable[[Config], bool], colour: int = 0) -> tuple[Line, ...]:
    """A line for each run with the logged values of a schedule; a ``stepped`` one changes at the start of an epoch."""
    lines = []
    for index, (run, name) in enumerate(zip(runs, _names(runs, key), strict=True)):
        steps, ends = ([r for r in run.records(kind) if key in r] for kind in ("step", "epoch"))
        by_epoch, logged = stepped(run.config), {r["epoch"] for r in steps}
        gaps = [r for r in ends if r["epoch"] not in logged] if by_epoch else []  # the mean over an epoch is its value
        records = sorted([*steps, *gaps], key=lambda r: int(r["step"])) or ends
        x, y = run.epochs_of(records), [r[key] for r in records]
        if by_epoch:
            x, y = _staircase(x, y, [r["epoch"] for r in records])
        lines.append(Line(name, x, y, colour if len(runs) == 1 else index))
    return tuple(lines)


def _staircase(x: list[float], y: list[float], epochs: list[int]) -> tuple[list[float], list[float]]:
    """The points joined by level lines, with a vertical step at the start of each epoch that changes the value."""
    corners: list[tuple[float, float]] = [(float(epochs[0]), y[0])] if x else []
    for i, point in enumerate(zip(x, y, strict=True)):
        if i and epochs[i] > epochs[i - 1] and y[i] != y[i - 1]:
            corners += [(float(epochs[i]), y[i - 1]), (float(epochs[i]), y[i])]
        corners.append(point)
    return [at for at, _ in corners], [value for _, value in corners]
