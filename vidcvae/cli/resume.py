"""``vidcvae resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, trained
from vidcvae.cli.command import option
from vidcvae.config import schema

UNCHANGED = "as before"


def resume(
    run: Annotated[Path | None, trained.runs_argument("Run folder; the newest if left out.")] = None,
    resume_from: Annotated[
        str,
        option(
            "Which checkpoint; later training is discarded.",
            metavar="last|best|FILE",
            autocompletion=lambda: ["last", "best"],
        ),
    ] = "last",
    data: Annotated[str | None, option("Where the dataset is now, if it was moved.", show_default=UNCHANGED)] = None,
    epochs: Annotated[int | None, option("Total number of epochs.", show_default=UNCHANGED)] = None,
    more_epochs: Annotated[int | None, option("Additional epochs.", min=1)] = None,
    max_minutes: Annotated[
        float | None,
        option(
            "Stop after this many minutes in total, including earlier ones; 0: no limit.",
            min=0,
            show_default=UNCHANGED,
        ),
    ] = None,
    more_minutes: Annotated[float | None, option("Additional minutes of training.", min=0.01)] = None,
    device: Annotated[schema.Device | None, option("Where to compute.", show_default=UNCHANGED)] = None,
    json: command.JsonEvents = False,
    plain: command.Plain = False,
) -> None:
    """Continue a run from its last checkpoint, exactly as if it had never stopped.

    Every checkpoint is verified before it is used. If the last one is damaged, the newest intact one is used.

    Examples:
      vidcvae resume
      vidcvae resume runs/course-001 --more-epochs 10
    """
    from vidcvae.cli.training_view import Screen
    from vidcvae.storage.run import find_run

    screen = Screen.asked_for(json=json, plain=plain)
    folder = find_run(run)  # a wrong name is reported before PyTorch is imported, which takes a second
    from vidcvae.workflow import training

    longer = training.Longer(epochs, max_minutes, more_epochs, more_minutes)
    training.resume(folder, screen, resume_from=resume_from, moved_to=data, longer=longer, device=device)
