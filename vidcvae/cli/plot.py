"""``vidcvae plot loss | psnr | schedule | lr | kl | drift | latents``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import choice, command, configuration, evaluate, scored, trained, ui
from vidcvae.config.schema import Latent
from vidcvae.errors import DataError, UsageError

if TYPE_CHECKING:
    from vidcvae.output.chart import Chart
    from vidcvae.output.plots import Run
    from vidcvae.storage.run import RunFolder

app = command.App(help="Draw losses, scores and schedules as figures for a report.", no_args_is_help=True)

Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help=f"A name in .png, .svg or .pdf. {command.REPLACED}",
        show_default="the command's name in .png",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="The numbers as one JSON document on standard output; draws if told to.")
]
Terminal = Annotated[bool, typer.Option("--terminal", help="Draw in the terminal instead, as text.")]


@app.command()
def loss(runs: trained.Runs = None, output: Output = None, terminal: Terminal = False, json: Json = False) -> None:
    """Training loss, with beta and teacher forcing beneath it.

    Examples:
      vidcvae plot loss
      vidcvae plot loss runs/course-001 runs/course-002 -o loss.svg
    """
    from vidcvae.output import plots

    _show(plots.loss_chart(_read(runs, output)), output, terminal, json, "loss")


@app.command()
def psnr(runs: trained.Runs = None, output: Output = None, terminal: Terminal = False, json: Json = False) -> None:
    """PSNR of every frame of the validation's free run, at the best epoch.

    Examples:
      vidcvae plot psnr runs/course-001
      vidcvae plot psnr --terminal
    """
    from vidcvae.output import plots

    _show(plots.psnr_chart(_read(runs, output)), output, terminal, json, "psnr")


@app.command()
def lr(runs: trained.Runs = None, output: Output = None, terminal: Terminal = False, json: Json = False) -> None:
    """The learning rate that a run had.

    Examples:
      vidcvae plot lr runs/course-001
    """
    from vidcvae.output import plots

    _show(plots.lr_chart(_read(runs, output)), output, terminal, json, "lr")


@app.command()
def kl(runs: trained.Runs = None, output: Output = None, terminal: Terminal = False, json: Json = False) -> None:
    """KL, reconstruction error, beta and teacher forcing on one page.

    Examples:
      vidcvae plot kl runs/course-001 -o kl.pdf
    """
    from vidcvae.output import plots

    _show(plots.kl_chart(_read(runs, output)), output, terminal, json, "kl")


@app.command()
def schedule(
    runs: trained.Runs = None,
    config: configuration.File = None,
    preset: configuration.Preset = None,
    output: Output = None,
    terminal: Terminal = False,
    json: Json = False,
) -> None:
    """Beta, teacher-forcing ratio and learning rate as they will be; needs no training.

    Examples:
      vidcvae plot schedule --preset course
      vidcvae plot schedule --config my.toml --terminal
    """
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
    _show(plots.schedule_chart(planned), output, terminal, json, "schedule")


@app.command()
def drift(
    runs: trained.Runs = None,
    data: trained.Data = None,
    split: trained.Split = "val",
    every: Annotated[
        int, typer.Option("--every", min=0, help="Frames between restarts; 0 is 30, or a tenth of shorter videos.")
    ] = 0,
    age_test: Annotated[
        bool, typer.Option("--age-test", help="Only tell the age test (frames 580-629 of 630), and draw nothing.")
    ] = False,
    latent: Annotated[Latent, choice.option(Latent, "--latent", help=trained.LATENT)] = "zero",
    seed: trained.Seed = 0,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    json: Json = False,
    output: Output = None,
    terminal: Terminal = False,
) -> None:
    """Does a run get worse with age? PSNR of the free run beside that of fresh restarts, and their gap.

    Examples:
      vidcvae plot drift runs/course-001
      vidcvae plot drift runs/course-001 --age-test
    """
    from vidcvae.evaluation import drift
    from vidcvae.output import figures, plots

    if output:
        figures.check_target(output)
    found: dict[str, drift.Drift | drift.AgeTest] = {}
    given: list[Path | None] = [*runs] if runs else [None]
    for path in given:
        loaded = trained.load(path, device, batch_stats, weights)
        dataset = trained.open_data(loaded, data, quiet=json)
        name = str(path or loaded.path.parent.parent)
        common: dict[str, Any] = {"latent": latent, "seed": seed, "device": next(loaded.model.parameters()).device}
        with ui.progress(f"runs of {name}", quiet=json) as advance:
            if age_test:
                found[name] = drift.age_test(loaded, dataset, split, progress=advance, **common)
            else:
                found[name] = drift.drift(loaded, dataset, split, every=every, progress=advance, **common)
    if json:
        ui.emit({name: numbers.to_json() for name, numbers in found.items()})
    drawn = [(name, numbers) for name, numbers in found.items() if isinstance(numbers, drift.Drift)]
    if drawn and (output or terminal or not json):
        _draw(plots.drift_chart(drawn), output, terminal, "drift", tell=ui.note if json else ui.say)
    for name, numbers in [] if json else found.items():
        age = numbers.age_test if isinstance(numbers, drift.Drift) else numbers
        if isinstance(numbers, drift.Drift):
            ui.say(
                f"{name}: the free run changes by {numbers.slope_per_100:+.2f} dB per 100 frames, and falls behind "
                f"fresh ones by {numbers.gap_slope_per_100:.2f} dB per 100 frames"
            )
        ui.say(
            f"{name}: age test, frames {age.tail[0]}-{age.tail[1]}: {age.from_start:.2f} dB from frame 0, "
            f"{age.from_restart:.2f} dB from frame {age.restart}: {age.lost:.2f} dB lost"
        )


@app.command()
def latents(
    run: trained.Run = None,
    data: trained.Data = None,
    split: trained.Split = "val",
    frame: Annotated[
        int | None,
        typer.Option("--frame", min=1, help="Frame of which samples are drawn.", show_default="the middle one"),
    ] = None,
    seed: trained.Seed = 0,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    json: Json = False,
    output: Output = None,
    terminal: Terminal = False,
) -> None:
    """What z does: PSNR for each way to choose it, KL and activity of its dimensions, and samples of one frame.

    The samples are a picture beside the figure, NAME-samples.png. A record of evaluate --latent all is used, or made.

    Examples:
      vidcvae plot latents runs/course-001
      vidcvae plot latents runs/course-001 --split train --frame 100
    """
    from vidcvae.data.images import encode_png
    from vidcvae.output import figures, plots, samples
    from vidcvae.storage import durable

    if output:
        figures.check_target(output)
    loaded = trained.load(run, device, batch_stats, weights)
    dataset = trained.open_data(loaded, data, quiet=json)
    sequence = dataset.split(split)[0]
    picture = samples.samples_picture(loaded, sequence, frame or len(sequence) // 2, seed=seed)
    kept = [] if seed else scored.kept(loaded, dataset, split)
    record = next((found for found in kept if "latents" in found), None)
    if record is None:
        record = evaluate.score(loaded, dataset, split, "all", quiet=json, seed=seed)
        evaluate.keep(loaded, record)
    target = output or Path("latents.png")
    beside = target.with_name(f"{target.stem}-samples.png")
    if output or not json:
        durable.write_bytes(beside, encode_png(picture))
    _show(plots.latents_chart(record), output, terminal, json, "latents")
    if output or not json:
        (ui.note if json else ui.say)(str(beside))


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


def _show(chart: Chart, output: Path | None, terminal: bool, json: bool, name: str) -> None:
    """The figure as a file or in the terminal; with --json its numbers, and the figure only if it was asked for."""
    if json:
        ui.emit(chart.to_json())
    if output or terminal or not json:
        _draw(chart, output, terminal, name, tell=ui.note if json else ui.say)


def _draw(chart: Chart, output: Path | None, terminal: bool, name: str, tell: Callable[[str], None] = ui.say) -> None:
    from vidcvae.output import figures
    from vidcvae.output import terminal as text

    if terminal:
        tell(text.to_text(chart, ui.out.width))
        if output is None:
            return
    target = output or Path(f"{name}.png")
    figures.save(chart, target)
    tell(str(target))
