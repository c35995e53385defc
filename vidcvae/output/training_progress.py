"""What a running training shows: how far it is, its events as text, and its newest numbers as a table.

An event is a dict with a "kind", as ``training.loop.train`` reports it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vidcvae.errors import counted
from vidcvae.storage.history import epoch_of

if TYPE_CHECKING:
    from vidcvae.training.loop import Outcome

Event = dict[str, Any]

# The state before the start event, for the first refresh of a display
BEFORE: Event = {"steps": 0, "max_minutes": 0.0, "step": 0, "minutes": 0.0}

# The columns of the table; a narrow terminal drops the last ones first
BY_IMPORTANCE = (
    *("val PSNR", "reconstruction", "best", "step", "clips/s", "KL", "lr"),
    *("epoch", "beta", "|grad|", "forced"),
)

LITTLE = 0.5  # dB; a smaller gain over a repeated frame is reported as hardly any

# The longest value to expect in a column, in characters, so that its width does not change; else 6
LONGEST = {"KL": 9, "beta": 8, "lr": 7, "|grad|": 8, "clips/s": 8, "val PSNR": 8, "best": 8}


class Ends:
    """How far training is, and how long it will take, until its steps or its minutes run out."""

    def __init__(self, start: Event) -> None:
        self.steps: int = start["steps"]
        self.budget: float = start["max_minutes"]
        self.step: int = start["step"]
        self.minutes: float = start["minutes"]
        self.first = self.step, self.minutes

    def now_at(self, event: Event) -> None:
        self.step, self.minutes = event["step"], event["minutes"]

    @property
    def share(self) -> float:
        """The share of the training that is done, 0 to 1."""
        by_time = self.minutes / self.budget if self.budget else 0.0
        return min(1.0, max(self.step / self.steps, by_time))

    @property
    def minutes_left(self) -> float | None:
        """None before the first step."""
        left = [self.budget - self.minutes] if self.budget else []
        done, spent = self.step - self.first[0], self.minutes - self.first[1]
        if done:
            left.append((self.steps - self.step) * spent / done)
        return max(0.0, min(left)) if left else None

    @property
    def left(self) -> str:
        """``minutes_left`` as text; empty before the first step."""
        return "" if self.minutes_left is None else f"{clock(self.minutes_left)} left"

    def __str__(self) -> str:
        budget = f" of {self.budget:g}" if self.budget else ""
        return ", ".join(filter(None, (f"{self.share:.0%}", f"{self.minutes:.1f}{budget} min", self.left)))


def clock(minutes: float) -> str:
    """Minutes as 1:23:45 or 3:45."""
    hours, seconds = divmod(round(minutes * 60), 3600)
    tail = f"{seconds % 3600 // 60:02d}:{seconds % 60:02d}"
    return f"{hours}:{tail}" if hours else tail.removeprefix("0")


class Numbers:
    """The newest losses and scores of a training, and how far it is."""

    def __init__(self) -> None:
        self.ends = Ends(BEFORE)
        self.losses: Event = {}
        self.metric = "psnr_zero"  # that chooses the best checkpoint
        self.score: float | None = None
        self.best: float | None = None

    def take(self, event: Event) -> None:
        """Take over the numbers of an event."""
        match event["kind"]:
            case "start":
                self.ends, self.metric, self.best = Ends(event), event["metric"], event["best"]
            case "progress":
                self.ends.now_at(event)
                if "total" in event:
                    self.losses = event
            case "validation":
                self.score = event["psnr_zero"]
                self.best = max(event[self.metric], self.best if self.best is not None else -math.inf)

    def table(self, width: int) -> Table:
        """As many columns as fit into the width, the most important ones first, whatever their values."""
        cells = self.cells()
        longest = LONGEST | {"step": len(f"{self.ends.steps:,}")}
        widths = {name: max(len(name), len(text), longest.get(name, 6)) for name, text in cells.items()}
        kept: set[str] = set()
        room = width + 2
        for name in BY_IMPORTANCE:
            room -= max(len(name), longest.get(name, 6)) + 2
            if room < 0:
                break
            kept.add(name)
        grid = Table(box=None, pad_edge=False, header_style="dim")
        for name in cells:
            if name in kept:
                grid.add_column(name, justify="right", width=widths[name], no_wrap=True)
        if self.losses or self.score is not None:
            grid.add_row(*(text for name, text in cells.items() if name in kept))
        return grid

    def cells(self) -> dict[str, str]:
        """The text of every column, in order."""

        def number(key: str, form: str) -> str:
            return format(self.losses[key], form) if key in self.losses else "-"

        def mean(key: str, form: str) -> str:
            return format(_per_frame(self.losses, key), form) if key in self.losses else "-"

        def shown(score: float | None, metric: str) -> str:
            return "-" if score is None else f"{score:.2f} dB" if metric.startswith("psnr") else f"{score:.4f}"

        return {
            "step": f"{self.ends.step:,}" if self.losses else "-",
            "epoch": str(self.losses["epoch"] + 1) if self.losses else "-",
            "reconstruction": mean("reconstruction", ".4f"),
            "KL": mean("kl", ".4g"),
            "beta": number("beta", ".3g"),
            "forced": number("forced", ".0%"),
            "lr": number("lr", ".2g"),
            "|grad|": number("grad_norm", ".3g"),
            "clips/s": number("clips_per_second", ".3g"),
            "val PSNR": shown(self.score, "psnr_zero"),
            "best": shown(self.best, self.metric),
        }


# --- events as text ---------------------------------------------------------------------------------


def start(event: Event) -> str:
    what = f"{event['model']}, {event['parameters']:,} parameters, on {event['device']} in {event['precision']}"
    position = f", from step {event['step']:,}" if event["step"] else ""
    budget = f", at most {event['max_minutes']:g} minutes" if event["max_minutes"] else ""
    return (
        f"{event['run']}: {what}\n"
        f"{counted(event['clips'], 'clip')} per epoch, {counted(event['epochs'], 'epoch')}, "
        f"{counted(event['steps'], 'step')}{budget}{position}; "
        f"losses are means per frame: reconstruction in {event['error']}, KL in {event['kl_unit']}"
    )


def step(event: Event, ends: Ends) -> str:
    total, error = (_per_frame(event, term) for term in ("total", "reconstruction"))
    kl = f"{_per_frame(event, 'kl'):.4g}" if "kl" in event else "-"  # missing if no clip of the step drew z
    return (
        f"step {event['step']:,} ({ends})  epoch {event['epoch'] + 1}  loss {total:.4g}  "
        f"reconstruction {error:.4g}  KL {kl}  beta {event['beta']:.3g}  "
        f"lr {event['lr']:.2g}  {event['clips_per_second']:.3g} clips/s"
    )


def validation(event: Event) -> str:
    score, name = baseline(event)
    return (
        f"{epoch_of(event)}: val PSNR {event['psnr_zero']:.2f} dB with z = 0, "
        f"{event['psnr_prior']:.2f} dB with z from the prior "
        f"(repeating the {name} frame: {score:.2f} dB)"
    )


def outcome(ended: Outcome) -> tuple[str, str]:
    """The result of a training, and a warning if the model is hardly better than a trivial baseline (else empty)."""
    last = ended.validation_minutes
    validated = f", then {last:.1f} of validation" if last >= 0.05 else ""
    psnr = f", val PSNR {ended.scores['psnr_zero']:.2f} dB" if ended.scores else ""
    result = f"trained {counted(ended.steps, 'step')} in {ended.minutes:.1f} minutes{validated}{psnr}: {ended.run.path}"
    if not ended.scores:
        return result, ""
    copied, frame = baseline(ended.scores)
    if (score := ended.scores["psnr_zero"]) >= copied + LITTLE:
        return result, ""
    how = "hardly better" if score >= copied else "worse"
    return result, (
        f"the model ({score:.2f} dB) is {how} than repeating the {frame} frame ({copied:.2f} dB): "
        f"it has not learnt the motion yet. Train it for longer, or check its videos before you use it."
    )


def baseline(scores: Event) -> tuple[float, str]:
    """The PSNR of repeating one frame, and the name of that frame, from the scores of a validation."""
    copied = {"baseline_copy_first_psnr": "first", "baseline_copy_last_past_psnr": "last given"}
    return next((scores[key], name) for key, name in copied.items() if key in scores)


def _per_frame(event: Event, term: str) -> float:
    """A term per frame, as the plots draw it; events hold sums over the predicted frames of a clip."""
    return float(event[term] / event["predicted"])
