"""Shows a running training: as a live display, plain lines, or JSON events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from vidcvae.cli import ui
from vidcvae.errors import UsageError
from vidcvae.output import training_progress as text
from vidcvae.output.training_progress import Ends, Event, Numbers

if TYPE_CHECKING:
    from vidcvae.data.clips import VideoData
    from vidcvae.training.loop import Outcome
    from vidcvae.training.signals import Report

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


class Plain:
    """One line every few seconds, and one for every important event."""

    def __init__(self) -> None:
        self.spoken = -float(PLAIN_SECONDS)
        self.ends: Ends

    def __call__(self, event: Event) -> None:
        match event["kind"]:
            case "start":
                self.ends = Ends(event)
                ui.note(text.start(event))
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
                    ui.note(text.step(event, self.ends))
            case "validating":
                if self._is_time():
                    ui.note(f"validating: frame {event['done']} of {event['total']}")
            case "validation":
                ui.note(text.validation(event))
            case "checkpoint" if event["best"]:
                ui.note(f"new best: {event['path']}")

    def _is_time(self) -> bool:
        """Whether the last such line is old enough. Other lines do not count, or short epochs would hide the steps."""
        now = time.monotonic()
        if now - self.spoken < PLAIN_SECONDS:
            return False
        self.spoken = now
        return True


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
        self.numbers = Numbers()
        self.live = Live(get_renderable=lambda: self, console=ui.err, refresh_per_second=4, transient=False)

    def __call__(self, event: Event) -> None:
        self.numbers.take(event)
        match event["kind"]:
            case "start":
                self._print(text.start(event))
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
                self._move()
            case "validating":
                self.bar.update(self.validating, total=event["total"], completed=event["done"], visible=True)
            case "validation":
                self.bar.update(self.validating, visible=False)
                self._print(text.validation(event))

    def _print(self, text: str, style: str | None = None) -> None:
        self.live.console.print(text, soft_wrap=False, style=style)

    def _move(self) -> None:
        ends = self.numbers.ends
        self.bar.update(self.training, total=1.0, completed=ends.share, left=ends.left)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(self.bar, self.numbers.table(options.max_width))


def tell_outcome(outcome: Outcome) -> None:
    """Print the result of a training, with a warning if the model is worse than a trivial baseline."""
    result, warning = text.outcome(outcome)
    ui.say(result, folded=True)
    if warning:
        ui.warn(warning, folded=True)
