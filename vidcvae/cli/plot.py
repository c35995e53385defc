"""``vidcvae plot loss | psnr | schedule | lr | kl``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidcvae.cli import ui
from vidcvae.errors import DataError, UsageError

if TYPE_CHECKING:
    from vidcvae.output.plots import Chart, Run
    from vidcvae.storage.run import RunFolder

app = typer.Typer(help="Draw losses, scores and schedules as figures for a report.", no_args_is_help=True)

Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[RUN]...", help="Run folders; the newest run if left out.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="A name in .png, .svg or .pdf.", show_default="the command's name in .png"),
]
Terminal = Annotated[bool, typer.Option("--terminal", help="Draw in the terminal instead, as text.")]


@app.command()
def loss(runs: Runs = None, output: Output = None, terminal: Terminal = False) -> None:
    """Training loss, with beta and teacher forcing beneath it."""
    from vidcvae.output import plots

    _draw(plots.loss_chart(_read(runs, output)), output, terminal, "loss")


@app.command()
def psnr(runs: Runs = None, output: Output = None, terminal: Terminal = False) -> None:
    """PSNR of every frame of the validation's free run, at the best epoch."""
    from vidcvae.output import plots

    _draw(plots.psnr_chart(_read(runs, output)), output, terminal, "psnr")


@app.command()
def lr(runs: Runs = None, output: Output = None, terminal: Terminal = False) -> None:
    """The learning rate that a run had."""
    from vidcvae.output import plots

    _draw(plots.lr_chart(_read(runs, output)), output, terminal, "lr")


@app.command()
def kl(runs: Runs = None, output: Output = None, terminal: Terminal = False) -> None:
    """KL, reconstruction error, beta and teacher forcing on one page."""
    from vidcvae.output import plots

    _draw(plots.kl_chart(_read(runs, output)), output, terminal, "kl")


@app.command()
def schedule(
    runs: Runs = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Built-in settings, such as course.")] = None,
    output: Output = None,
    terminal: Terminal = False,
) -> None:
    """Beta, teacher-forcing ratio and learning rate as they will be; needs no training."""
    from vidcvae import config as settings
    from vidcvae.output import plots
    from vidcvae.training import schedules

    if config or preset:
        if runs:
            raise UsageError("RUN excludes --config and --preset.", "Draw one or the other.")
        layers = [settings.read_toml(config)] if config else []
        name = config.stem if config else str(preset)
        planned = [plots.Run(name, settings.resolve_with_preset(preset, layers), [])]
    else:
        planned = [plots.read_run(folder, trained=False) for folder in _folders(runs)]
    for run in planned:
        for text in schedules.warnings(run.config, run.length()):
            ui.warn(f"{run.name}: {text}" if len(planned) > 1 else text)
    _draw(plots.schedule_chart(planned), output, terminal, "schedule")


def _read(runs: list[Path] | None, output: Path | None) -> list[Run]:
    """The runs to draw, in the order given; the figure's name is checked first, as it costs nothing."""
    from vidcvae.output import figures, plots

    if output:
        figures.check_target(output)
    return [plots.read_run(folder) for folder in _folders(runs)]


def _folders(runs: list[Path] | None) -> list[RunFolder]:
    """The run folders that the arguments mean; a checkpoint file stands for the run it lies in."""
    from vidcvae.storage.run import find_checkpoint, find_run

    if not runs:
        newest = find_run(None)
        ui.note(f"no RUN given: using the newest, {newest.path}")
        return [newest]
    found = []
    for path in runs:
        folder = find_checkpoint(path)[1] if path.is_file() else find_run(path)
        if folder is None:
            raise DataError(f"{path} lies outside its run, so there is no history to draw.", "Give the run's folder.")
        found.append(folder)
    return found


def _draw(chart: Chart, output: Path | None, terminal: bool, name: str) -> None:
    from vidcvae.output import figures
    from vidcvae.output import terminal as text

    if terminal:
        ui.say(text.to_text(chart, ui.out.width))
        if output is None:
            return
    target = output or Path(f"{name}.png")
    figures.save(chart, target)
    ui.say(str(target))
