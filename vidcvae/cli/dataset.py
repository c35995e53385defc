"""``vidcvae dataset inspect | synth | pack``; ``clip_import`` has ``dataset import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vidcvae.cli import command, making, trained, ui
from vidcvae.errors import DataError

app = command.App(help="Look into datasets, make synthetic ones, and pack them for fast reading.", no_args_is_help=True)
synth = command.App(help="Make a synthetic dataset in the course's layout.", no_args_is_help=True)
app.add_typer(synth, name="synth")

Dataset = Annotated[
    Path,
    typer.Argument(help="Dataset folder, or packed dataset.", show_default=False),
    command.Also("--data", "The dataset; the same as DATASET."),
]
Output = Annotated[
    Path,
    typer.Option("-o", "--output", help=f"The folder to make. {command.NEW_FOLDER}", show_default=False),
    command.Also("OUT"),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same data.")]
DATA = "Data"  # elsewhere --frames says how long work is, and stands below Time
Size = Annotated[
    str | None,
    typer.Option("--size", help="Frame height and width.", show_default="the dataset's own"),
]


@app.command()
def inspect(
    dataset: Dataset,
    json: command.Json = False,
    preview: Annotated[
        Path | None, typer.Option("--preview", metavar="FILE", help="Write a contact sheet of frames and poses, a PNG.")
    ] = None,
    size: Size = None,
) -> None:
    """Count, check and measure a dataset. Damaged or missing files are named, and end with exit code 4.

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
        found = inspection.inspect(dataset, making.read_size(size), advance)
    faults = found.report["faults"]
    if preview and not faults:
        durable.write_bytes(preview, images.encode_png(inspection.contact_sheet(found.rows)))
    if json:
        ui.emit(found.report)
    else:
        _show(found.report)
        if preview and not faults:
            shown = [f"{n} of {found.report['splits'][split]['sequences']} {split}" for split, n in found.shown.items()]
            ui.say(f"contact sheet: {preview}, which shows {', '.join(shown)} sequences")
    if faults:
        count = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
        raise DataError(f"{dataset} has {count}; the first: {faults[0]}", "Mend or remove the files that are named.")


@app.command()
def pack(
    dataset: Dataset,
    output: Output,
    size: Size = None,
    shard_size: Annotated[
        int, typer.Option("--shard-size", min=1, help="MiB after which a new file is begun, at the next sequence.")
    ] = 1024,
    json: command.Json = False,
) -> None:
    """Decode every image once, into one memory-mapped file with checksums. Every command takes either form.

    Examples:
      vidcvae dataset pack my-dance -o my-dance-packed
    """
    from vidcvae.data import packed
    from vidcvae.data.dataset import open_stream, told_size

    with ui.progress("packing", quiet=json) as advance:
        stream = open_stream(dataset, making.read_size(size), advance)
        packed.write(stream, output, shard_size << 20)
    if told := told_size(stream, "--size "):
        ui.note(told)
    making.tell_counts(output, packed.open_packed(output), json)


@synth.command("dance")
def synth_dance(
    output: Output,
    frames: Annotated[
        int, typer.Option("--frames", min=2, help="Frames of the training video.", rich_help_panel=DATA)
    ] = 1600,
    val: Annotated[
        int, typer.Option("--val", min=2, help="Frames of the validation video, and of each test sequence.")
    ] = 400,
    test: Annotated[int, typer.Option("--test", min=0, help="Test sequences.")] = 2,
    seed: Seed = 0,
    size: Annotated[str, typer.Option("--size", help="Frame height and width.")] = "32x64",
    json: command.Json = False,
) -> None:
    """A drawn dancer and its skeleton: walking, turning, waving and bending in a room.

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
    making.tell_counts(output, data, json)


@synth.command("push")
def synth_push(
    output: Output,
    clips: Annotated[int, typer.Option("--clips", min=1, help="Training clips.")] = 256,
    val: Annotated[int, typer.Option("--val", min=0, help="Validation clips.")] = 32,
    test: Annotated[int, typer.Option("--test", min=0, help="Test clips.")] = 32,
    frames: Annotated[
        int, typer.Option("--frames", min=3, help="Length of each clip in frames.", rich_help_panel=DATA)
    ] = 30,
    seed: Seed = 0,
    json: command.Json = False,
) -> None:
    """A robot arm that pushes things over a table, 64x64, with its actions and positions.

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
    making.tell_counts(output, data, json)


def _show(report: dict[str, Any]) -> None:
    """The report for a person."""
    from vidcvae.output import inspection

    if "kind" in report:
        form = "packed" if report["layout"] == "packed" else "image files"
        height, width = report["size"]
        ui.say(f"{report['name']}: {report['kind']}, {form}, {height}x{width}, {report['fps']:g} frames a second")
        ui.table("\nmeasures (copy, nearest pose: the PSNR in dB of repeating a frame)", *inspection.measures(report))
    if any("files" in split for split in report["splits"].values()):
        ui.table("\nfiles", *inspection.files(report))
    for line in inspection.lines(report):
        ui.say(line)
