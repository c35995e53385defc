"""What a person or a program sees of a running training: a live display, plain lines, or JSON events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from vidcvae.cli import ui

Event = dict[str, Any]
Report = Callable[[Event], None]
PLAIN_SECONDS = 5


@contextlib.contextmanager
def watching(mode: str) -> Iterator[Report]:
    """Yield the function that training reports its events to; ``mode`` is "auto", "plain" or "json"."""
    if mode == "json":
        yield _json
    elif mode == "plain" or ui.is_quiet() or not ui.err.is_terminal:
        yield Plain()
    else:
        view = LiveView()
        with view.live:
            yield view


def _json(event: Event) -> None:
    if event["kind"] != "validating":
        ui.emit(event)


class Plain:
    """One line every few seconds, and one for everything that matters on its own."""

    def __init__(self) -> None:
        self.spoken = -float(PLAIN_SECONDS)
        self.steps = 0

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        match event["kind"]:
            case "start":
                self.steps = event["steps"]
                ui.note(_start(event))
            case "warning":
                ui.warn(event["text"])
            case "step" | "validating" if now - self.spoken < PLAIN_SECONDS:
                return
            case "step":
                ui.note(_step(event, self.steps))
            case "validating":
                ui.note(f"validating: frame {event['done']} of {event['total']}")
            case "validation":
                ui.note(_validation(event))
            case "checkpoint" if event["best"]:
                ui.note(f"new best: {event['path']}")
            case _:
                return
        self.spoken = now


class LiveView:
    """A progress bar with what is left, the newest losses, and the newest scores."""

    def __init__(self) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=ui.err,
        )
        self.training = self.bar.add_task("steps", total=None)
        self.validating = self.bar.add_task("validation", total=None, visible=False)
        self.step: Event = {}
        self.validation: Event = {}
        self.live = Live(get_renderable=self.render, console=ui.err, refresh_per_second=4, transient=False)

    def __call__(self, event: Event) -> None:
        match event["kind"]:
            case "start":
                self.live.console.print(_start(event), markup=False)
                self.bar.update(self.training, total=event["steps"], completed=event["step"])
            case "warning":
                self.live.console.print(f"warning: {event['text']}", markup=False, style="yellow")
            case "step":
                self.step = event
                self.bar.update(self.training, completed=event["step"])
            case "epoch":
                self.bar.update(self.training, completed=event["step"])
            case "validating":
                self.bar.update(self.validating, total=event["total"], completed=event["done"], visible=True)
            case "validation":
                self.validation = event
                self.bar.update(self.validating, visible=False)
                self.live.console.print(_validation(event), markup=False)

    def render(self) -> Group:
        grid = Table(box=None, pad_edge=False, header_style="dim")
        shown = {
            "epoch": lambda e: str(e["epoch"] + 1),
            "reconstruction": lambda e: f"{e['reconstruction']:.4f}",
            "KL": lambda e: f"{e['kl']:.4g}",
            "beta": lambda e: f"{e['beta']:.3g}",
            "forced": lambda e: f"{e['forced']:.0%}",
            "lr": lambda e: f"{e['lr']:.2g}",
            "|grad|": lambda e: f"{e['grad_norm']:.3g}",
            "clips/s": lambda e: f"{e['clips_per_second']:.3g}",
        }
        for name in shown:
            grid.add_column(name, justify="right", min_width=7)
        grid.add_column("val PSNR", justify="right")
        if self.step:
            score = f"{self.validation['psnr_zero']:.2f} dB" if self.validation else "-"
            grid.add_row(*(show(self.step) for show in shown.values()), score)
        return Group(self.bar, grid)


def _start(event: Event) -> str:
    what = f"{event['model']}, {event['parameters']:,} parameters, on {event['device']} in {event['precision']}"
    position = f"from step {event['step']} " if event["step"] else ""
    return (
        f"{event['run']}: {what}\n"
        f"{event['clips']} clips an epoch, {event['epochs']} epochs, {event['steps']} steps {position}".rstrip()
    )


def _step(event: Event, steps: int) -> str:
    return (
        f"step {event['step']}/{steps}  epoch {event['epoch'] + 1}  loss {event['total']:.4g}  "
        f"reconstruction {event['reconstruction']:.4g}  KL {event['kl']:.4g}  beta {event['beta']:.3g}  "
        f"lr {event['lr']:.2g}  {event['clips_per_second']:.3g} clips/s"
    )


def _validation(event: Event) -> str:
    copied = {"baseline_copy_first_psnr": "first", "baseline_copy_last_past_psnr": "last given"}
    name, which = next((name, which) for name, which in copied.items() if name in event)
    return (
        f"epoch {event['epoch'] + 1}: val PSNR {event['psnr_zero']:.2f} dB with z = 0, "
        f"{event['psnr_prior']:.2f} dB with z from the prior "
        f"(repeating the {which} frame: {event[name]:.2f} dB)"
    )
