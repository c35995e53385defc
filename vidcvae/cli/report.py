"""``vidcvae report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, trained, ui
from vidcvae.cli.command import option
from vidcvae.config import schema
from vidcvae.errors import UsageError, counted


def report(
    runs: trained.Runs = None,
    output: Annotated[Path, command.output_file("A name in .html.")] = Path("report.html"),
    data: trained.Data = None,
    split: trained.Split = "val",
    drift: Annotated[bool, option("Also measure how much a run loses with its length.")] = False,
    videos: Annotated[bool, option("Make the videos, which take most of the time.", "--videos/--no-videos")] = True,
    device: Annotated[schema.Device | None, option("Where to compute.", show_default="as each run was trained")] = None,
    json: command.Json = False,
) -> None:
    """Show runs side by side on one page: scores, videos frame by frame, losses, schedules, settings and their origin.

    The page is one file that loads nothing from the network. Missing scores are measured, and kept with their runs.
    All scores are taken with z = 0. No noise is drawn, so there is no --seed.

    Examples:
      vidcvae report
      vidcvae report runs/course-001 runs/anchor-001 -o compared.html
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{output} does not end in .html.", f"Name it {output.with_suffix('.html')}")
    trained.check_file(output)
    from vidcvae.output import report as page
    from vidcvae.storage import durable
    from vidcvae.storage.run import find_run
    from vidcvae.workflow import comparison, reports

    voice = ui.Speaker(bars=not json)
    named = comparison.without_other_files(runs, voice) if runs else [None]
    folders = list(dict.fromkeys(map(find_run, named)))
    gathered = reports.gather(
        folders, ui.command(), data=data, split=split, with_drift=drift, videos=videos, device=device, voice=voice
    )
    durable.write_text(output, page.render(gathered))
    if json:
        runs_json = [{"run": e.run.name, "psnr_mean": (e.record or {}).get("psnr_mean")} for e in gathered.entries]
        ui.emit({"output": str(output), "runs": runs_json})
    else:
        ui.say(f"{output}: {counted(len(gathered.entries), 'run')}, {output.stat().st_size / 1e6:.1f} MB")
