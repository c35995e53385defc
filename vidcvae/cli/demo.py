"""``vidcvae demo``: the main workflow on synthetic data, in a few minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, trained, ui
from vidcvae.cli.command import option
from vidcvae.errors import typed


def demo(
    output: Annotated[
        Path, command.output_folder("The folder for the data, the run and the results."), command.Also("OUT")
    ] = Path("demo"),
    max_minutes: Annotated[float, option("Train for this many minutes; the other steps take extra time.")] = 2.0,
    seed: Annotated[int, option("Seed of data and training.", min=0)] = 0,
    device: trained.Device = "auto",
    json: command.Json = False,
    plain: command.Plain = False,
) -> None:
    """Make a synthetic dance, train on it, and generate a video, all in a few minutes.

    Examples:
      vidcvae demo
      vidcvae demo -o try --max-minutes 5
    """
    from vidcvae.cli.training_view import Screen
    from vidcvae.workflow import demo

    trained.check_new_folder(output)
    started = time.monotonic()
    screen = Screen.asked_for(json=json, plain=plain, events=False)
    scores = demo.run(output, max_minutes, seed, device, screen)
    seconds = time.monotonic() - started
    if json:
        ui.emit({"output": str(output), "seconds": round(seconds, 1), **scores})
        return
    ui.say(
        f"PSNR of the free run of {demo.VAL} frames: {scores['psnr_mean']:.2f} dB; of repeating its first frame: "
        f"{scores['baseline_copy_first_psnr']:.2f} dB ({seconds:.0f} seconds in all)"
    )
    rows = [
        ("video: truth, generated, pose", output / "dance.gif"),
        ("loss, beta, teacher forcing", output / "loss.png"),
        ("PSNR of each frame", output / "psnr.png"),
        ("scores and their protocol", output / "scores.json"),
        ("dataset in the course's layout", output / "data"),
        ("run: checkpoints, history, config", output / "run"),
    ]
    ui.table("", ("what", "where"), rows)
    ui.next_step(typed("resume", output / "run", "--more-minutes", 10), typed("train", "DATASET"))
