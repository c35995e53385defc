"""``vidcvae dataset inspect | synth | pack``; ``clip_import`` has ``dataset import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, making, trained, ui
from vidcvae.cli.command import option
from vidcvae.errors import DataError, counted

app = command.App(help="Inspect datasets, make synthetic ones, and pack them for fast reading.", no_args_is_help=True)
synth = command.App(help="Make a synthetic dataset in the course's layout.", no_args_is_help=True)
app.add_typer(synth, name="synth")

Dataset = Annotated[
    Path,
    command.argument("Dataset folder, or packed dataset."),
    command.Also("--data", "The dataset; the same as DATASET."),
]
Output = Annotated[Path, command.output_folder("The folder to make.", show_default=False), command.Also("OUT")]
Seed = Annotated[int, option("The same seed gives the same data.", min=0)]
DATA = "Data"  # the panel of --frames here; in other commands it says how long the work is, under Time
Size = Annotated[str | None, option("Frame height and width.", show_default="the dataset's own")]


@app.command()
def inspect(
    dataset: Dataset,
    json: command.Json = False,
    preview: Annotated[Path | None, option("Write a contact sheet of frames and poses, a PNG.", metavar="FILE")] = None,
    size: Size = None,
) -> None:
    """Count, check and measure a dataset. Lists damaged and missing files, and then exits with code 4.

    Examples:
      vidcvae dataset inspect my-dance
      vidcvae dataset inspect my-dance --preview sheet.png
    """
    from vidcvae.data import images
    from vidcvae.output import inspection
    from vidcvae.storage import durable

    if preview:
        durable.check_writable(preview)
    with ui.progress("reading", quiet=json) as advance:
        inspected = inspection.inspect(dataset, making.read_size(size), advance)
    report = inspected.report
    faults = report["faults"]
    if preview and not faults:
        durable.write_bytes(preview, images.encode_png(inspection.contact_sheet(inspected.rows)))
    if json:
        ui.emit(report)
    else:
        ui.show(inspection.summary(report))
        if preview and not faults:
            shown = [f"{n} of {report['splits'][split]['sequences']} {split}" for split, n in inspected.shown.items()]
            ui.say(f"contact sheet: {preview}, with {', '.join(shown)} sequences")
    if faults:
        raise DataError(
            f"{dataset} has {counted(len(faults), 'fault')}; the first: {faults[0]}", "Repair or remove these files."
        )


@app.command()
def pack(
    dataset: Dataset,
    output: Output,
    size: Size = None,
    shard_size: Annotated[int, option("MiB after which the next sequence begins a new file.", min=1)] = 1024,
    json: command.Json = False,
) -> None:
    """Decode every image once, into memory-mapped files with checksums. Every command also takes a packed dataset.

    Examples:
      vidcvae dataset pack my-dance -o my-dance-packed
    """
    from vidcvae.data import packed
    from vidcvae.data.dataset import open_stream, resize_note

    with ui.progress("packing", quiet=json) as advance:
        stream = open_stream(dataset, making.read_size(size), advance)
        packed.write(stream, output, shard_size << 20)
    if text := resize_note(stream, "--size "):
        ui.note(text)
    making.show_counts(output, packed.open_packed(output), json)


@synth.command("dance")
def synth_dance(
    output: Output,
    frames: Annotated[int, option("Frames of the training video.", min=2, rich_help_panel=DATA)] = 1600,
    val: Annotated[int, option("Frames of the validation video, and of each test sequence.", min=2)] = 400,
    test: Annotated[int, option("Test sequences.", min=0)] = 2,
    seed: Seed = 0,
    size: Annotated[str, option("Frame height and width.")] = "32x64",
    json: command.Json = False,
) -> None:
    """Draw a dancer and its skeleton: walking, turning, waving and bending in a room.

    Examples:
      vidcvae dataset synth dance -o my-dance
      vidcvae dataset synth dance -o small --frames 200 --val 50
    """
    from vidcvae.config.schema import LAB_SIZE
    from vidcvae.data import pose_folder
    from vidcvae.scenes import dancing

    trained.check_new_folder(output)
    with ui.progress("drawing", quiet=json) as advance:
        data = dancing.dance(frames, val, test, seed, making.read_size(size) or LAB_SIZE, advance)
    with ui.progress("writing", quiet=json) as advance:
        pose_folder.write_folder(data, output, advance)
    making.show_counts(output, data, json)


@synth.command("push")
def synth_push(
    output: Output,
    clips: Annotated[int, option("Training clips.", min=1)] = 256,
    val: Annotated[int, option("Validation clips.", min=0)] = 32,
    test: Annotated[int, option("Test clips.", min=0)] = 32,
    frames: Annotated[int, option("Frames in each clip.", min=3, rich_help_panel=DATA)] = 30,
    seed: Seed = 0,
    json: command.Json = False,
) -> None:
    """Draw a robot arm that pushes things over a table, 64x64, with its actions and positions.

    Examples:
      vidcvae dataset synth push -o my-push
      vidcvae dataset synth push -o small --clips 20 --val 4 --test 4
    """
    from vidcvae.scenes import pushing

    trained.check_new_folder(output)
    with ui.progress("drawing", quiet=json) as advance:
        data = pushing.push(clips, val, test, frames, seed, advance)
    with ui.progress("writing", quiet=json) as advance:
        pushing.write_folder(data, output, advance)
    making.show_counts(output, data, json)
