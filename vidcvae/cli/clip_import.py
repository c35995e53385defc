"""``vidcvae dataset import``: somebody's own clip, with the joints found in it, or published data.

Annotations are evaluated here, unlike elsewhere: those of a function in a function must see its variables.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidcvae.cli import choice, command, making, options, trained, ui
from vidcvae.errors import DataError, typed

if TYPE_CHECKING:
    from vidcvae.data.tfrecord import Problem

app = command.App(help="Make a dataset of your own video, or of published data.", no_args_is_help=True)

FITS = ("pad", "crop", "stretch")
FORMATS = ("auto", "coco17", "wholebody133", "body25", "body25b", "coco18", "halpe26", "mediapipe33")
STYLES = ("course",)
CAMERAS = ("main", "aux1")
DEFAULT_SIZE = "medium"

_ABOUT = """
Give the joints that a pose estimator found in every frame: --keypoints takes COCO JSON, a folder of OpenPose JSON, or
MediaPipe landmarks in JSON or CSV; --estimate finds them with MediaPipe. The order of the joints is told by how many
there are, and that of OpenPose's 25 by the shape of the people (BODY_25 or BODY_25B); --keypoint-format says it
outright. Where several people are seen, the one seen largest for longest is the dancer. Frames without a dancer are
left out, and sequences cut there. Training is the beginning of the clip, validation its end, a second of it at least,
with up to a second left out between them; test is the longest sequence of validation.

Frames keep the shape of the clip: --size small, medium or large have about as many pixels as 32x64, 72x128 or 128x224.
Where the dancer stays in a part of the pictures, the frames show that part alone, the same one throughout: a window
around everywhere the dancer goes (--crop). OUTPUT-preview.png shows it on a picture of the clip.
"""


def _importer(kind: str, what: str, example: str, about: str) -> None:
    def run(
        source: Annotated[Path, typer.Argument(metavar=what, help="What to import.", show_default=False)],
        output: Annotated[
            Path, typer.Option("-o", "--output", help=f"The folder to make. {command.NEW_FOLDER}", show_default=False)
        ],
        keypoints: options.Keypoints = None,
        keypoint_format: Annotated[
            str,
            choice.option(FORMATS, "--keypoint-format", help="The order of the joints (auto tells by what is there)."),
        ] = "auto",
        estimate: options.Estimate = False,
        pose_model: options.PoseModel = None,
        save_keypoints: Annotated[
            Path | None,
            typer.Option("--save-keypoints", help="With --estimate: keep what was found, for --keypoints, as JSON."),
        ] = None,
        people: Annotated[
            int,
            typer.Option(
                "--people",
                min=1,
                max=100,
                help="With --estimate: how many to look for; 1 follows one person, steadier and three times as fast.",
            ),
        ] = 4,
        size: Annotated[
            str, typer.Option("--size", help="Frame height and width, or small, medium or large in the clip's shape.")
        ] = DEFAULT_SIZE,
        crop: options.Crop = None,
        fit: Annotated[
            str | None,
            choice.option(
                FITS,
                "--fit",
                help="Into another shape: all of the picture, between black bars; its middle; or distorted.",
                show_default="pad for an HxW, else crop",
            ),
        ] = None,
        fps: Annotated[
            float | None, typer.Option("--fps", help="Frames a second of the dataset.", show_default="the clip's own")
        ] = None,
        val_fraction: Annotated[
            float, typer.Option("--val-fraction", min=0, max=0.9, help="Share of the frames for validation.")
        ] = 0.1,
        min_score: Annotated[
            float, typer.Option("--min-score", min=0, max=1, help="Joints with a lower score are not drawn.")
        ] = 0.3,
        max_gap: Annotated[
            int, typer.Option("--max-gap", min=0, max=1000, help="Missing joints are filled in over so many frames.")
        ] = 5,
        smooth: Annotated[
            int, typer.Option("--smooth", min=0, max=1000, help="Smooth the joints over so many frames; 0: not at all.")
        ] = 0,
        no_steady: Annotated[
            bool, typer.Option("--no-steady", help="Leave the small motion of a camera held in the hand as it is.")
        ] = False,
        style: Annotated[str, choice.option(STYLES, "--style", help="How skeletons are drawn.")] = "course",
        preview: Annotated[
            Path | None,
            typer.Option(
                "--preview",
                metavar="FILE",
                help="Where the picture of the window goes.",
                show_default="OUTPUT-preview.png",
            ),
        ] = None,
        packed: Annotated[bool, typer.Option("--packed", help="Write the packed form, not image files.")] = False,
        json: command.Json = False,
    ) -> None:
        from vidcvae.own_clips.importing import Settings
        from vidcvae.storage import durable
        from vidcvae.workflow import own_clip

        settings = Settings(making.read_clip_size(size), fit, crop, fps, val_fraction, max_gap, smooth, not no_steady)
        joints = (keypoints, keypoint_format, min_score, estimate, pose_model, people, save_keypoints)
        clip = own_clip.Clip(source, kind, *joints, settings)
        clip.check()
        trained.check_new_folder(output)
        preview = preview or own_clip.preview_of(output)
        durable.check_writable(preview)
        voice = ui.Speaker(bars=not json)
        made = own_clip.bring_in(clip, voice)
        own_clip.write(made, clip, output, preview, packed, voice)
        tell = ui.note if json else ui.say
        if keypoints:
            tell(f"{keypoints}: {made.form}")
        making.tell_counts(output, made.data, json, notes=made.plan.notes)
        for note in made.plan.notes:
            tell(note)
        tell(f"{preview}: what part of the pictures is used")
        if estimate and people > 1 and made.plan.most == 1:
            tell("nobody else is seen at any time: --people 1 finds the joints in a third of the time, and steadier")
        if broken := made.plan.seen.broken:
            raise DataError(broken, f"What was read before is in {output}.")
        ui.next_step(typed("dataset", "inspect", output, "--preview", "sheet.png"), typed("train", output))

    how = f"vidcvae dataset import {kind}"
    examples = (
        f"Examples:\n  {how} {example} --estimate -o my-dance\n  {how} {example} --keypoints joints.json -o my-dance"
    )
    run.__doc__ = f"{about}\n\n{_ABOUT.strip()}\n\n{examples}"
    app.command(kind)(run)


_importer("video", "CLIP", "clip.mp4", "A video of somebody dancing: frames beside skeletons, to train on.")
_importer("frames", "FOLDER", "pictures", "A folder of numbered images, --fps of them a second (25 if left out).")
_importer("gif", "FILE", "dance.gif", "A GIF of somebody dancing; what is transparent is painted white.")


@app.command("bair")
def import_bair(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="The folder softmotion30_44k, or the one that holds it.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="The folder to make: new, empty, or of an interrupted import.", show_default=False
        ),
        command.Also("OUT"),
    ],
    camera: Annotated[str, choice.option(CAMERAS, "--camera", help="Which camera.")] = "main",
    json: command.Json = False,
) -> None:
    """BAIR robot pushing from its TFRecords. Interrupted, the same command goes on where it was.

    Records that cannot be read are named with file and offset and left out; then the exit code is 4.

    Examples:
      vidcvae dataset import bair softmotion30_44k -o bair
    """
    from vidcvae.data import bair, packed

    lost = 0

    def tell(problem: "Problem") -> None:
        nonlocal lost
        lost += 1
        ui.warn(str(problem))

    with ui.progress("importing (MiB)", quiet=json) as advance:
        bair.import_bair(source, output, camera, advance, tell)
    making.tell_counts(output, packed.open_packed(output), json)
    if lost:
        count = f"{lost} parts of {source} could" if lost > 1 else f"a part of {source} could"
        raise DataError(f"{count} not be read; everything else is in {output}.", "Fetch the files named above again.")
