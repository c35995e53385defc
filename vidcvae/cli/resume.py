"""``vidcvae resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import choice, command, completion
from vidcvae.config import schema

AS_BEFORE = "as it was"


def resume(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder; the newest if left out.", show_default=False, autocompletion=completion.runs),
    ] = None,
    resume_from: Annotated[
        str,
        typer.Option(
            "--resume-from",
            metavar="last|best|FILE",
            help="Which checkpoint; what came after it is given up.",
            autocompletion=lambda: ["last", "best"],
        ),
    ] = "last",
    data: Annotated[
        str | None, typer.Option("--data", help="Where the dataset is now, if it was moved.", show_default=AS_BEFORE)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the training clips in total.", show_default=AS_BEFORE)
    ] = None,
    more_epochs: Annotated[
        int | None, typer.Option("--more-epochs", min=1, help="So many epochs more than it has had.")
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            "--max-minutes",
            min=0,
            help="End after this many minutes in total, those that it has had included; 0 is never.",
            show_default=AS_BEFORE,
        ),
    ] = None,
    more_minutes: Annotated[
        float | None, typer.Option("--more-minutes", min=0.01, help="So many minutes more than it has had.")
    ] = None,
    device: Annotated[
        schema.Device | None, choice.option(schema.Device, "--device", help="Where to compute.", show_default=AS_BEFORE)
    ] = None,
    json: command.JsonEvents = False,
    plain: command.Plain = False,
) -> None:
    """Go on with a run where its last checkpoint stands, exactly as if it had never stopped.

    Every checkpoint is verified before it is used; where the last one is damaged, the newest good one is taken.

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
