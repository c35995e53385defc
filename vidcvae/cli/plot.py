"""``vidcvae plot loss | psnr | schedule | lr | kl | drift | latents``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import command, options, trained, ui
from vidcvae.errors import UsageError

if TYPE_CHECKING:
    from vidcvae.output.chart import Chart

app = command.App(help="Draw losses, scores and schedules as figures for a report.", no_args_is_help=True)

Output = Annotated[
    Path | None, trained.output("A name in .png, .svg or .pdf.", show_default="the command's name in .png")
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
    _show_runs("loss", runs, output, terminal, json)


@app.command()
def psnr(runs: trained.Runs = None, output: Output = None, terminal: Terminal = False, json: Json = False) -> None:
    """PSNR of every frame of the validation's free run, at the best epoch.

    Examples:
      vidcvae plot psnr runs/course-001
      vidcvae plot psnr --terminal
    """
    _show_runs("psnr", runs, output, terminal, json)


@app.command()
def lr(runs: trained.Runs = None, output: Output = None, terminal: Terminal = False, json: Json = False) -> None:
    """The learning rate that a run had.

    Examples:
      vidcvae plot lr runs/course-001
    """
    _show_runs("lr", runs, output, terminal, json)


@app.command()
def kl(runs: trained.Runs = None, output: Output = None, terminal: Terminal = False, json: Json = False) -> None:
    """KL, reconstruction error, beta and teacher forcing on one page.

    Examples:
      vidcvae plot kl runs/course-001 -o kl.pdf
    """
    _show_runs("kl", runs, output, terminal, json)


@app.command()
def schedule(
    runs: trained.Runs = None,
    config: options.File = None,
    preset: options.Preset = None,
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
    from vidcvae.workflow import at_glance

    if config or preset:
        if runs:
            raise UsageError("RUN excludes --config and --preset.", "Draw one or the other.")
        layers = [settings.read_toml(config)] if config else []
        name = config.stem if config else str(preset)
        planned = [plots.Run(name, settings.resolve_with_preset(preset, layers), [])]
    else:
        planned = [plots.read_run(folder, trained=False) for folder in at_glance.with_history(runs, ui.Speaker())]
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
    latent: trained.Latent = "zero",
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
    from vidcvae.workflow import opening

    if output:
        figures.check_target(output)
    voice = ui.Speaker(bars=not json)
    found: dict[str, drift.Drift | drift.AgeTest] = {}
    given: list[Path | None] = [*runs] if runs else [None]
    for path in given:
        loaded = opening.load(path, device, batch_stats, weights, voice)
        dataset = opening.open_data(loaded, data, voice)
        name = str(path or loaded.path.parent.parent)
        common: dict[str, Any] = {"latent": latent, "seed": seed, "device": loaded.device}
        with voice.progress(f"runs of {name}") as advance:
            if age_test:
                found[name] = drift.age_test(loaded, dataset, split, progress=advance, **common)
            else:
                found[name] = drift.drift(loaded, dataset, split, every=every, progress=advance, **common)
    told = {name: measured.to_json() for name, measured in found.items()}
    drawn = [(name, measured) for name, measured in found.items() if isinstance(measured, drift.Drift)]
    if drawn:
        _show(plots.drift_chart(drawn), output, terminal, json, "drift", told)
    elif json:
        ui.emit(told)
    for name, measured in [] if json else found.items():
        for line in measured.told():
            ui.say(f"{name}: {line}")


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
    from vidcvae.workflow import opening, scores

    if output:
        figures.check_target(output)
    voice = ui.Speaker(bars=not json)
    loaded = opening.load(run, device, batch_stats, weights, voice)
    dataset = opening.open_data(loaded, data, voice)
    sequence = dataset.split(split)[0]
    picture = samples.samples_picture(loaded, sequence, frame or len(sequence) // 2, seed=seed)
    record = None if seed else scores.kept_latents(loaded, dataset, split)
    if record is None:
        record = scores.score(loaded, dataset, split, "all", seed=seed, voice=voice)
        scores.keep(loaded, record, voice=voice)
    target = output or Path("latents.png")
    beside = target.with_name(f"{target.stem}-samples.png")
    if output or not json:
        durable.write_bytes(beside, encode_png(picture))
    _show(plots.latents_chart(record), output, terminal, json, "latents")
    if output or not json:
        (ui.note if json else ui.say)(str(beside))


def _show_runs(name: str, runs: list[Path] | None, output: Path | None, terminal: bool, json: bool) -> None:
    """A figure of the histories of runs; its file's name is checked first, as it costs nothing."""
    from vidcvae.output import figures, plots
    from vidcvae.workflow import at_glance

    if output:
        figures.check_target(output)
    charts = {"loss": plots.loss_chart, "psnr": plots.psnr_chart, "lr": plots.lr_chart, "kl": plots.kl_chart}
    read = [plots.read_run(folder) for folder in at_glance.with_history(runs, ui.Speaker())]
    _show(charts[name](read), output, terminal, json, name)


def _show(
    chart: Chart, output: Path | None, terminal: bool, json: bool, name: str, numbers: dict[str, Any] | None = None
) -> None:
    """The figure as a file or in the terminal; with --json its numbers, and the figure only if it was asked for."""
    from vidcvae.output import figures
    from vidcvae.output import terminal as text

    tell = ui.note if json else ui.say
    if json:
        ui.emit(numbers or chart.to_json())
    if terminal:
        tell(text.to_text(chart, ui.out.width))
    if output or not (terminal or json):
        target = output or Path(f"{name}.png")
        figures.save(chart, target)
        tell(str(target))
