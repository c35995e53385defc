"""``vidcvae checkpoint import | show | verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, trained, ui
from vidcvae.errors import typed

app = command.App(help="Show and verify checkpoints, and import the course's.", no_args_is_help=True)

File = Annotated[Path, trained.runs_argument("A checkpoint file, or a run folder.")]


@app.command("import")
def import_(
    course: Annotated[Path, command.argument("A checkpoint saved by the course's trainer.", metavar="FILE")],
    output: Annotated[Path, command.output_file("The checkpoint to write.", show_default=False)],
    json: command.Json = False,
) -> None:
    """Import the weights of a course checkpoint. The file is read as data; code in it is never run.

    Examples:
      vidcvae checkpoint import course.ckpt -o course.safetensors
    """
    trained.check_file(output)
    from vidcvae.models.loading import import_course
    from vidcvae.storage import durable

    durable.must_not_be_input([output], [course])

    parameters, epoch = import_course(course, output)
    if json:
        ui.emit({"output": str(output), "model": "pose-cvae", "parameters": parameters, "epoch": epoch})
    else:
        ui.say(f"{output}: pose-cvae, {parameters:,} parameters, epoch {epoch}")
    ui.note(
        "At test time, the course's code normalises each image by its own statistics. To reproduce its numbers: "
        f"{typed('generate', output, '--batch-stats', '...')}"
    )


@app.command()
def show(file: File, json: command.Json = False) -> None:
    """Print a checkpoint's config, position, scores and sizes.

    Examples:
      vidcvae checkpoint show runs/course-001
    """
    from vidcvae import config as settings
    from vidcvae.storage import checkpoint
    from vidcvae.storage.run import find_checkpoint

    path, _ = find_checkpoint(file)
    saved = checkpoint.read(path)
    sizes = saved.sizes()
    meta = saved.meta
    if json:
        stored = {"version": meta.version, "step": meta.step, "epoch": meta.epoch, "scores": meta.scores}
        ui.emit({"path": str(path), "digest": saved.digest, "sizes": sizes, **stored, "config": meta.config})
        return
    ui.say(f"{path}: step {meta.step}, epoch {meta.epoch}, written by vidcvae {meta.version}")
    ui.say(f"digest {saved.digest}")
    for name, score in meta.scores.items():
        ui.say(f"{name} {score:.4f}")
    ui.table("", ["part", "tensors", "numbers", "bytes"], [[part, *size.values()] for part, size in sizes.items()])
    ui.say("")
    ui.say(settings.to_toml(settings.resolve_saved(meta.config)).rstrip())


@app.command()
def verify(file: File, json: command.Json = False) -> None:
    """Verify a checkpoint: its checksums, and that its model can be built and loaded.

    For a run, this is done with its best checkpoint; of the others, the checksums are verified.

    Examples:
      vidcvae checkpoint verify runs/course-001
    """
    from vidcvae.models.loading import load_model
    from vidcvae.storage import checkpoint

    loaded = load_model(file)
    in_run = [] if file.is_file() or loaded.run is None else sorted(loaded.run.checkpoints.glob("*.safetensors"))
    others = [path for path in in_run if path != loaded.path]
    for path in others:
        checkpoint.read(path)
    model, step = loaded.config.model.name, loaded.meta.step
    if json:
        ui.emit({"path": str(loaded.path), "ok": True, "model": model, "step": step, "digest": loaded.digest})
    else:
        ui.say(f"{loaded.path}: good ({model}, step {step}, digest {loaded.digest[:16]})")
        for path in others:
            ui.say(f"{path}: good")
