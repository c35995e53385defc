"""``vidcvae report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import choice, command, trained, ui
from vidcvae.config import schema
from vidcvae.errors import UsageError, counted


def report(
    runs: trained.Runs = None,
    output: Annotated[Path, trained.output("A name in .html.")] = Path("report.html"),
    data: trained.Data = None,
    split: trained.Split = "val",
    drift: Annotated[bool, typer.Option("--drift", help="Also measure what the age of a run costs.")] = False,
    videos: Annotated[bool, typer.Option("--videos/--no-videos", help="Make the videos; they take the time.")] = True,
    device: Annotated[
        schema.Device | None,
        choice.option(schema.Device, "--device", help="Where to compute.", show_default="as each run was trained"),
    ] = None,
    json: command.Json = False,
) -> None:
    """Runs side by side on one page: scores, videos frame by frame, losses, schedules, settings and their origin.

    The page is one file that asks nothing of the network. Scores that are missing are taken, and kept with their runs.
    All scores are taken with z = 0. No noise is drawn, so there is no --seed.

    Examples:
      vidcvae report
      vidcvae report runs/course-001 runs/anchor-001 -o compared.html
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{output} is no name of a web page.", "Choose one that ends in .html: -o report.html")
    trained.check_file(output)
    from vidcvae.output import report as page
    from vidcvae.storage import durable
    from vidcvae.storage.run import find_run
    from vidcvae.workflow import comparison, reports

    voice = ui.Speaker(bars=not json)
    named = comparison.without_other_files(runs, voice) if runs else [None]
    folders = list(dict.fromkeys(map(find_run, named)))
    made = reports.gather(
        folders, ui.command(), data=data, split=split, with_drift=drift, videos=videos, device=device, voice=voice
    )
    durable.write_text(output, page.render(made))
    if json:
        told = [{"run": entry.run.name, "psnr_mean": (entry.record or {}).get("psnr_mean")} for entry in made.entries]
        ui.emit({"output": str(output), "runs": told})
    else:
        ui.say(f"{output}: {counted(len(made.entries), 'run')}, {output.stat().st_size / 1e6:.1f} MB")
