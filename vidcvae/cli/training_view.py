"""How a running training is shown: as a live display, plain lines, or JSON events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from vidcvae.cli import ui
from vidcvae.errors import UsageError, counted
from vidcvae.storage.history import epoch_of

if TYPE_CHECKING:
    from vidcvae.data.clips import VideoData
    from vidcvae.training.loop import Outcome

Event = dict[str, Any]
Report = Callable[[Event], None]
PLAIN_SECONDS = 5


class Screen(ui.Speaker):
    """The audience of a training (``workflow.training.Audience``): a terminal, or a program that reads JSON."""

    def __init__(self, mode: str, events: bool = True) -> None:
        """``mode`` is "auto", "plain" or "json"."""
        super().__init__(bars=mode != "json")
        self.mode, self.events = mode, events

    @classmethod
    def asked_for(cls, *, json: bool, plain: bool, events: bool = True) -> Screen:
        """The screen for --json and --plain. Without ``events``, JSON has no events, only the command's own result."""
        if json and plain:
            raise UsageError("--json and --plain exclude each other.", "Choose one of them.")
        return cls("json" if json else "plain" if plain else "auto", events)

    def tell_failures(self) -> None:
        ui.tell_failures()

    @contextlib.contextmanager
    def watching(self) -> Iterator[Report]:
        """Yield the function that training passes its events to."""
        if self.mode == "json":
            yield _json if self.events else lambda event: None
        elif self.mode == "plain" or ui.is_quiet() or not ui.err.is_terminal:
            yield Plain()
        else:
            view = LiveView()
            with view.live:
                yield view

    def trained(self, outcome: Outcome, data: VideoData) -> None:
        if self.mode != "json":
            from vidcvae.workflow.at_glance import next_commands

            tell_outcome(outcome)
            ui.next_step(*next_commands(outcome.run, data))

    def finished(self, event: Event) -> None:
        if self.mode == "json" and self.events:
            ui.emit(event)


def _json(event: Event) -> None:
    if event["kind"] in ("stopping", "leaving"):
        ui.note(event["text"])
    elif event["kind"] not in ("progress", "validating"):
        ui.emit(event)


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

    def __str__(self) -> str:
        left = self.minutes_left
        budget = f" of {self.budget:g}" if self.budget else ""
        remaining = "" if left is None else f", {clock(left)} left"
        return f"{self.share:.0%}, {self.minutes:.1f}{budget} min{remaining}"


def clock(minutes: float) -> str:
    """Minutes as 1:23:45 or 3:45."""
    hours, seconds = divmod(round(minutes * 60), 3600)
    tail = f"{seconds % 3600 // 60:02d}:{seconds % 60:02d}"
    return f"{hours}:{tail}" if hours else tail.removeprefix("0")


class Plain:
    """One line every few seconds, and one for every important event."""

    def __init__(self) -> None:
        self.spoken = -float(PLAIN_SECONDS)
        self.ends: Ends

    def __call__(self, event: Event) -> None:
        match event["kind"]:
            case "start":
                self.ends = Ends(event)
                ui.note(_start(event))
                self.spoken = time.monotonic()
            case "warning":
                ui.warn(event["text"])
            case "note" | "stopping" | "leaving":
                ui.note(event["text"])
            case "detail":
                ui.detail(event["text"])
            case "progress":
                self.ends.now_at(event)
                if "total" in event and self._is_time():
                    ui.note(_step(event, self.ends))
            case "validating":
                if self._is_time():
                    ui.note(f"validating: frame {event['done']} of {event['total']}")
            case "validation":
                ui.note(_validation(event))
            case "checkpoint" if event["best"]:
                ui.note(f"new best: {event['path']}")

    def _is_time(self) -> bool:
        """Whether the last such line is old enough. Other lines do not count, or short epochs would hide the steps."""
        now = time.monotonic()
        if now - self.spoken < PLAIN_SECONDS:
            return False
        self.spoken = now
        return True


# The state before the start event, for the first refresh
BEFORE: Event = {"steps": 0, "max_minutes": 0.0, "step": 0, "minutes": 0.0}


class LiveView:
    """A progress bar with the time left, the newest losses, and the newest scores.

    Its messages wrap between words; elsewhere, lines stay whole so that commands and paths can be pasted.
    """

    def __init__(self) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=ui.err,
            expand=True,
        )
        self.training = self.bar.add_task("training", total=None, left="")
        self.validating = self.bar.add_task("validating", total=None, visible=False, left="")
        self.ends = Ends(BEFORE)
        self.losses: Event = {}
        self.score: float | None = None
        self.best: float | None = None
        self.live = Live(get_renderable=lambda: self, console=ui.err, refresh_per_second=4, transient=False)

    def __call__(self, event: Event) -> None:
        match event["kind"]:
            case "start":
                self.ends, self.best = Ends(event), event["best"]
                self._print(_start(event))
                self._move()
            case "warning":
                self._print(f"warning: {event['text']}", style="yellow")
            case "detail":
                ui.detail(event["text"])
            case "note":
                self._print(event["text"], style="dim")
            case "stopping":
                self._print(event["text"])
            case "leaving":
                self.live.stop()  # ends the table's line, and shows the cursor again
                self._print(event["text"])
            case "progress":
                self.ends.now_at(event)
                self._move()
                if "total" in event:
                    self.losses = event
            case "validating":
                self.bar.update(self.validating, total=event["total"], completed=event["done"], visible=True)
            case "validation":
                self.score = event["psnr_zero"]
                self.best = max(self.score, self.best if self.best is not None else self.score)
                self.bar.update(self.validating, visible=False)
                self._print(_validation(event))

    def _print(self, text: str, style: str | None = None) -> None:
        self.live.console.print(text, soft_wrap=False, style=style)

    def _move(self) -> None:
        left = self.ends.minutes_left
        text = "" if left is None else f"{clock(left)} left"
        self.bar.update(self.training, total=1.0, completed=self.ends.share, left=text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(self.bar, self._table(options.max_width))

    def _table(self, width: int) -> Table:
        """As many columns as fit into the width, the most important ones first, whatever their values."""
        cells = self._cells()
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

    def _cells(self) -> dict[str, str]:
        def number(key: str, form: str, per_frame: bool = False) -> str:
            if key not in self.losses:
                return "-"
            return format(_per_frame(self.losses, key) if per_frame else self.losses[key], form)

        def decibels(score: float | None) -> str:
            return "-" if score is None else f"{score:.2f} dB"

        return {
            "step": f"{self.ends.step:,}" if self.losses else "-",
            "epoch": str(self.losses["epoch"] + 1) if self.losses else "-",
            "reconstruction": number("reconstruction", ".4f", per_frame=True),
            "KL": number("kl", ".4g", per_frame=True),
            "beta": number("beta", ".3g"),
            "forced": number("forced", ".0%"),
            "lr": number("lr", ".2g"),
            "|grad|": number("grad_norm", ".3g"),
            "clips/s": number("clips_per_second", ".3g"),
            "val PSNR": decibels(self.score),
            "best": decibels(self.best),
        }


# The columns of the live table; a narrow terminal drops the last ones first
BY_IMPORTANCE = (
    *("val PSNR", "reconstruction", "best", "step", "clips/s", "KL", "lr"),
    *("epoch", "beta", "|grad|", "forced"),
)

# The longest value to expect in a column, in characters, so that its width does not change; else 6
LONGEST = {"KL": 9, "beta": 8, "lr": 7, "|grad|": 8, "clips/s": 8, "val PSNR": 8, "best": 8}


def tell_outcome(outcome: Outcome) -> None:
    """Print the result of a training, with a warning if the model is worse than a trivial baseline."""
    last = outcome.validation_minutes
    validated = f", then {last:.1f} of validation" if last >= 0.05 else ""
    psnr = f", val PSNR {outcome.scores['psnr_zero']:.2f} dB" if outcome.scores else ""
    trained = f"trained {counted(outcome.steps, 'step')} in {outcome.minutes:.1f} minutes{validated}{psnr}"
    ui.say(f"{trained}: {outcome.run.path}", folded=True)
    if not outcome.scores:
        return
    copied, frame = baseline(outcome.scores)
    if (score := outcome.scores["psnr_zero"]) < copied:
        ui.warn(
            f"the model ({score:.2f} dB) is worse than repeating the {frame} frame ({copied:.2f} dB): "
            f"it has not learnt the motion yet. Train it for longer, or check its videos before you use it.",
            folded=True,
        )


def _start(event: Event) -> str:
    what = f"{event['model']}, {event['parameters']:,} parameters, on {event['device']} in {event['precision']}"
    position = f", from step {event['step']:,}" if event["step"] else ""
    budget = f", at most {event['max_minutes']:g} minutes" if event["max_minutes"] else ""
    return (
        f"{event['run']}: {what}\n"
        f"{counted(event['clips'], 'clip')} per epoch, {counted(event['epochs'], 'epoch')}, "
        f"{counted(event['steps'], 'step')}{budget}{position}; "
        f"losses are means per frame: reconstruction in {event['error']}, KL in {event['kl_unit']}"
    )


def _per_frame(event: Event, term: str) -> float:
    """A term per frame, as the plots draw it; events hold sums over the predicted frames of a clip."""
    return float(event[term] / event["predicted"])


def _step(event: Event, ends: Ends) -> str:
    total, error = (_per_frame(event, term) for term in ("total", "reconstruction"))
    kl = f"{_per_frame(event, 'kl'):.4g}" if "kl" in event else "-"  # missing if no clip of the step drew z
    return (
        f"step {event['step']:,} ({ends})  epoch {event['epoch'] + 1}  loss {total:.4g}  "
        f"reconstruction {error:.4g}  KL {kl}  beta {event['beta']:.3g}  "
        f"lr {event['lr']:.2g}  {event['clips_per_second']:.3g} clips/s"
    )


def _validation(event: Event) -> str:
    score, name = baseline(event)
    return (
        f"{epoch_of(event)}: val PSNR {event['psnr_zero']:.2f} dB with z = 0, "
        f"{event['psnr_prior']:.2f} dB with z from the prior "
        f"(repeating the {name} frame: {score:.2f} dB)"
    )


def baseline(scores: Event) -> tuple[float, str]:
    """The PSNR of repeating one frame, and the name of that frame, from the scores of a validation."""
    copied = {"baseline_copy_first_psnr": "first", "baseline_copy_last_past_psnr": "last given"}
    return next((scores[key], name) for key, name in copied.items() if key in scores)
