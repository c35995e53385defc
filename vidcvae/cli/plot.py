"""``vidcvae plot loss | psnr | schedule | lr | kl | drift | latents``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vidcvae.cli import command, options, trained, ui
from vidcvae.cli.command import option
from vidcvae.errors import UsageError

if TYPE_CHECKING:
    from vidcvae.output.chart import Chart

app = command.App(help="Draw losses, scores and schedules as figures for a report.", no_args_is_help=True)

Output = Annotated[
    Path | None,
    command.output_file("A name in .png, .svg or .pdf.", show_default="the command's name in .png"),
]
Json = Annotated[bool, option("Print the numbers as one JSON document; draw only with -o or --terminal.")]
Terminal = Annotated[bool, option("Draw as text in the terminal instead.")]


def _history_chart(name: str, about: str, *examples: str) -> None:
    """Declare the command that draws ``plots.NAME_chart`` of the histories of runs."""

    def run(runs: trained.Runs = None, output: Output = None, terminal: Terminal = False, json: Json = False) -> None:
        from vidcvae.output import figures, plots
        from vidcvae.workflow import at_glance

        if output:
            figures.check_target(output)
        draw = {"loss": plots.loss_chart, "psnr": plots.psnr_chart, "lr": plots.lr_chart, "kl": plots.kl_chart}[name]
        histories = [plots.read_run(folder) for folder in at_glance.with_history(runs, ui.Speaker())]
        _show(draw(histories), output, terminal, json, name)

    lines = (f"vidcvae plot {name} {example}".rstrip() for example in examples)
    run.__doc__ = "\n".join((about, "", "Examples:", *lines))
    app.command(name)(run)


_history_chart(
    "loss",
    "Draw the training loss, with beta and teacher forcing below it.",
    *("", "runs/course-001 runs/course-002 -o loss.svg"),
)
_history_chart(
    "psnr",
    "Draw the PSNR of every frame of the validation's free run, at the best epoch.",
    *("runs/course-001", "--terminal"),
)
_history_chart("lr", "Draw the learning rate of a run.", "runs/course-001")
_history_chart(
    "kl", "Draw KL, reconstruction error, beta and teacher forcing on one page.", "runs/course-001 -o kl.pdf"
)


@app.command()
def schedule(
    runs: trained.Runs = None,
    config: options.File = None,
    preset: options.Preset = None,
    output: Output = None,
    terminal: Terminal = False,
    json: Json = False,
) -> None:
    """Draw the schedules of beta, teacher forcing and learning rate; needs no training.

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
    every: Annotated[int, option("Frames between restarts; 0: 30, or a tenth of a shorter video.", min=0)] = 0,
    age_test: Annotated[bool, option("Only print the age test (frames 580-629 of 630), and draw nothing.")] = False,
    latent: trained.Latent = "zero",
    seed: trained.Seed = 0,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    json: Json = False,
    output: Output = None,
    terminal: Terminal = False,
) -> None:
    """Show whether a run gets worse with age: PSNR of the free run, of fresh restarts, and their gap.

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
    results: dict[str, drift.Drift | drift.AgeTest] = {}
    paths: list[Path | None] = [*runs] if runs else [None]
    for path in paths:
        loaded = opening.load(path, device, batch_stats, weights, voice)
        dataset = opening.open_data(loaded, data, voice)
        name = str(path or loaded.path.parent.parent)
        with voice.progress(f"runs of {name}") as advance:
            if age_test:
                results[name] = drift.age_test(loaded, dataset, split, latent=latent, seed=seed, progress=advance)
            else:
                results[name] = drift.drift(
                    loaded, dataset, split, every=every, latent=latent, seed=seed, progress=advance
                )
    numbers = {name: result.to_json() for name, result in results.items()}
    drawn = [(name, result) for name, result in results.items() if isinstance(result, drift.Drift)]
    if drawn:
        _show(plots.drift_chart(drawn), output, terminal, json, "drift", numbers)
    elif json:
        ui.emit(numbers)
    for name, result in [] if json else results.items():
        for line in result.lines():
            ui.say(f"{name}: {line}")


@app.command()
def latents(
    run: trained.Run = None,
    data: trained.Data = None,
    split: trained.Split = "val",
    frame: Annotated[int | None, option("Frame to draw samples of.", min=1, show_default="the middle one")] = None,
    seed: trained.Seed = 0,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    json: Json = False,
    output: Output = None,
    terminal: Terminal = False,
) -> None:
    """Show what z does: PSNR for each way to choose it, KL and activity of its dimensions, and samples of one frame.

    The samples are a second picture, NAME-samples.png. The scores come from evaluate --latent all, which is run if its
    record is missing.

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
    samples_file = target.with_name(f"{target.stem}-samples.png")
    if output or not json:
        durable.write_bytes(samples_file, encode_png(picture))
    _show(plots.latents_chart(record), output, terminal, json, "latents")
    if output or not json:
        (ui.note if json else ui.say)(str(samples_file))


def _show(
    chart: Chart, output: Path | None, terminal: bool, json: bool, name: str, numbers: dict[str, Any] | None = None
) -> None:
    """Save the figure or draw it in the terminal; with --json, print its numbers, and draw it only on request."""
    from vidcvae.output import figures
    from vidcvae.output import terminal as text

    show = ui.note if json else ui.say
    if json:
        ui.emit(numbers or chart.to_json())
    if terminal:
        show(text.to_text(chart, ui.out.width))
    if output or not (terminal or json):
        target = output or Path(f"{name}.png")
        figures.save(chart, target)
        show(str(target))
