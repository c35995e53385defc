"""``vidcvae checkpoint import | show | verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import command, completion, trained, ui
from vidcvae.errors import typed

app = command.App(help="Look into checkpoints, check them, and import the course's.", no_args_is_help=True)

File = Annotated[
    Path,
    typer.Argument(help="A checkpoint file, or a run folder.", show_default=False, autocompletion=completion.runs),
]


@app.command("import")
def import_(
    course: Annotated[
        Path, typer.Argument(metavar="FILE", help="A checkpoint that the course's trainer saved.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help=f"The checkpoint to write. {command.REPLACED}", show_default=False)
    ],
    json: command.Json = False,
) -> None:
    """Import the weights of a course checkpoint. It is read as data: no code in it is ever run.

    Examples:
      vidcvae checkpoint import course.ckpt -o course.safetensors
    """
    from vidcvae import __version__
    from vidcvae import config as settings
    from vidcvae.models.loading import build_filled
    from vidcvae.storage import checkpoint
    from vidcvae.storage.course_import import read_course_checkpoint

    trained.check_file(output)
    found = read_course_checkpoint(course)
    config = settings.with_values(settings.resolve(settings.read_preset("course")), {"model": vars(found.model)})
    model = build_filled(config, found.weights, course)
    meta = {
        "version": __version__,
        "config": settings.to_table(config),
        "step": 0,
        "epoch": found.epoch,
        "scores": {},
        "imported_from": course.name,
    }
    checkpoint.save(output, {f"model.{name}": t for name, t in model.state_dict().items()}, meta)
    parameters = sum(p.numel() for p in model.parameters())
    if json:
        ui.emit({"output": str(output), "model": "pose-cvae", "parameters": parameters, "epoch": found.epoch})
    else:
        ui.say(f"{output}: pose-cvae, {parameters:,} parameters, epoch {found.epoch}")
    ui.note(
        "The course's code normalises each image by its own statistics at test time; to repeat its numbers: "
        f"{typed('generate', output, '--batch-stats', '...')}"
    )


@app.command()
def show(
    file: File,
    json: command.Json = False,
) -> None:
    """Print a checkpoint's config, position, scores and sizes.

    Examples:
      vidcvae checkpoint show runs/course-001
    """
    from vidcvae import config as settings
    from vidcvae.storage import checkpoint
    from vidcvae.storage.run import find_checkpoint

    path, _ = find_checkpoint(file)
    saved = checkpoint.read(path)
    sizes = {
        part: {
            "tensors": len(tensors),
            "numbers": sum(t.numel() for t in tensors.values()),
            "bytes": sum(t.numel() * t.element_size() for t in tensors.values()),
        }
        for part in ("model", "ema", "optimizer")
        if (tensors := saved.part(part))
    }
    meta = {key: saved.meta.get(key) for key in ("version", "step", "epoch", "scores", "config")}
    if json:
        ui.emit({"path": str(path), "digest": saved.digest, "sizes": sizes, **meta})
        return
    ui.say(f"{path}: step {meta['step']}, epoch {meta['epoch']}, written by vidcvae {meta['version']}")
    ui.say(f"digest {saved.digest}")
    for name, score in (meta["scores"] or {}).items():
        ui.say(f"{name} {score:.4f}")
    rows = [[part, size["tensors"], size["numbers"], size["bytes"]] for part, size in sizes.items()]
    ui.table("", ["part", "tensors", "numbers", "bytes"], rows)
    ui.say("")
    ui.say(settings.to_toml(settings.resolve(saved.meta["config"])).rstrip())


@app.command()
def verify(file: File, json: command.Json = False) -> None:
    """Check a checkpoint: its checksums, and that its model can be built and filled.

    Examples:
      vidcvae checkpoint verify runs/course-001
    """
    from vidcvae.models.loading import load_model

    loaded = load_model(file)
    if json:
        found = {"model": loaded.config.model.name, "step": loaded.meta["step"], "digest": loaded.digest}
        ui.emit({"path": str(loaded.path), "ok": True, **found})
        return
    ui.say(f"{loaded.path}: good ({loaded.config.model.name}, step {loaded.meta['step']}, digest {loaded.digest[:16]})")
