"""``vidcvae dataset import``: a dancer's video with its joints, or a published dataset.

Unlike in other modules, annotations are evaluated here: those of a nested function must see its variables.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from vidcvae.cli import command, making, options, trained, ui
from vidcvae.cli.command import argument, option
from vidcvae.errors import DataError, counted, typed

if TYPE_CHECKING:
    from vidcvae.data.tfrecord import Problem

app = command.App(help="Make a dataset from your own video, or from published data.", no_args_is_help=True)

Format = Literal["auto", "coco17", "wholebody133", "body25", "body25b", "coco18", "halpe26", "mediapipe33"]

_ABOUT = """
The joints in every frame come from --keypoints, which takes COCO JSON, a folder of OpenPose JSON, or MediaPipe
landmarks in JSON or CSV, or from --estimate, which finds them with MediaPipe. The number of joints tells their order,
and for OpenPose's 25 joints the shape of the people does (BODY_25 or BODY_25B); --keypoint-format overrides it. If
several people are in view, the dancer is the one who is largest for the longest time. Frames without a dancer are left
out, and sequences are cut there. The beginning of the clip is for training, and its end for validation: at least a
second, with a gap of up to a second between them. Test is the longest sequence of validation.

Frames keep the shape of the clip: --size small, medium or large have about as many pixels as 32x64, 72x128 or 128x224.
If the dancer stays in one part of the picture, the frames show only a fixed window around it (--crop).
OUTPUT-preview.png shows that window on a picture of the clip.
"""


def _importer(kind: str, placeholder: str, example: str, about: str) -> None:
    usual_fps = "25" if kind == "frames" else "the clip's own"

    def run(
        source: Annotated[Path, argument("What to import.", metavar=placeholder)],
        output: Annotated[Path, command.output_folder("The folder to make.", show_default=False)],
        keypoints: options.Keypoints = None,
        keypoint_format: Annotated[Format, option("The order of the joints (auto: detect it).")] = "auto",
        estimate: options.Estimate = False,
        pose_model: options.PoseModel = None,
        save_keypoints: Annotated[
            Path | None, option("With --estimate: save the joints as JSON, which --keypoints takes.")
        ] = None,
        people: Annotated[
            int,
            option(
                "With --estimate: how many people to look for; 1 is steadier, and three times as fast.", min=1, max=100
            ),
        ] = 4,
        size: Annotated[
            str, option("Frame height and width, or small, medium or large in the clip's shape.")
        ] = "medium",
        crop: options.Crop = None,
        fit: Annotated[
            Literal["pad", "crop", "stretch"] | None,
            option(
                "If the shapes differ: show the whole picture between black bars, or its middle, or distort it.",
                show_default="pad for HxW, else crop",
            ),
        ] = None,
        fps: Annotated[float | None, option("Frames per second of the dataset.", show_default=usual_fps)] = None,
        val_fraction: Annotated[float, option("Share of the frames for validation.", min=0, max=0.9)] = 0.1,
        min_score: Annotated[float, option("Joints with a lower score are not drawn.", min=0, max=1)] = 0.3,
        max_gap: Annotated[
            int, option("Fill in joints that are missing for at most this many frames.", min=0, max=1000)
        ] = 5,
        smooth: Annotated[int, option("Smooth the joints over this many frames; 0: do not.", min=0, max=1000)] = 0,
        no_steady: Annotated[bool, option("Keep the small motion of a hand-held camera.")] = False,
        style: Annotated[Literal["course"], option("How skeletons are drawn.")] = "course",
        preview: Annotated[
            Path | None,
            option("The file for the picture of the window.", metavar="FILE", show_default="OUTPUT-preview.png"),
        ] = None,
        packed: Annotated[bool, option("Write a packed dataset instead of image files.")] = False,
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
        durable.must_not_be_input([preview, save_keypoints], [source, keypoints, pose_model])
        voice = ui.Speaker(bars=not json)
        imported = own_clip.bring_in(clip, voice)
        own_clip.write(imported, clip, output, preview, packed, voice)
        plan = imported.plan
        show = ui.note if json else ui.say
        if keypoints:
            show(f"{keypoints}: {imported.form}")
        making.show_counts(output, imported.data, json, notes=plan.notes)
        for note in plan.notes:
            show(note)
        show(f"{preview}: the part of the pictures that is used")
        if estimate and people > 1 and plan.most == 1:
            show("nobody else is ever in view: --people 1 finds the joints three times as fast, and more steadily")
        if plan.scan.broken:
            raise DataError(plan.scan.broken, f"Everything read before that is in {output}.")
        ui.next_step(typed("dataset", "inspect", output, "--preview", "sheet.png"), typed("train", output))

    line = f"vidcvae dataset import {kind} {example}"
    examples = f"Examples:\n  {line} --estimate -o my-dance\n  {line} --keypoints joints.json -o my-dance"
    run.__doc__ = f"{about}\n\n{_ABOUT.strip()}\n\n{examples}"
    app.command(kind)(run)


_importer("video", "CLIP", "clip.mp4", "Import a video of somebody dancing: frames and skeletons to train on.")
_importer("frames", "FOLDER", "pictures", "Import a folder of numbered images, --fps of them per second (default: 25).")
_importer("gif", "FILE", "dance.gif", "Import a GIF of somebody dancing; transparent pixels become white.")


@app.command("bair")
def import_bair(
    source: Annotated[Path, argument("The folder softmotion30_44k, or its parent.", metavar="FOLDER")],
    output: Annotated[
        Path,
        option("The folder to make: new, empty, or of an interrupted import.", "-o", show_default=False),
        command.Also("OUT"),
    ],
    camera: Annotated[Literal["main", "aux1"], option("Which camera.")] = "main",
    json: command.Json = False,
) -> None:
    """Import BAIR robot pushing from its TFRecords. To continue after an interruption, repeat the command.

    Unreadable records are listed with file and offset, and left out; the exit code is then 4.

    Examples:
      vidcvae dataset import bair softmotion30_44k -o bair
    """
    from vidcvae.data import bair, packed

    problems: list[Problem] = []

    def report(problem: "Problem") -> None:
        problems.append(problem)
        ui.warn(str(problem))

    with ui.progress("importing (MiB)", quiet=json) as advance:
        bair.import_bair(source, output, camera, advance, report)
    making.show_counts(output, packed.open_packed(output), json)
    if problems:
        raise DataError(
            f"{counted(len(problems), 'part')} of {source} could not be read; everything else is in {output}.",
            "Download the files named above again.",
        )
