"""``vidcvae compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import choice, command, trained, ui
from vidcvae.errors import UsageError
from vidcvae.evaluation.columns import COLUMNS


def compare(
    runs: Annotated[list[Path], trained.runs_argument("Run folders, or score records in JSON files.")],
    record: Annotated[
        str, typer.Option("--record", help="Which record of each run: RUN/scores/NAME.json.", metavar="NAME")
    ] = "val-zero",
    sort: Annotated[str, choice.option(COLUMNS, "--sort", help="Column to sort by, best first.")] = "psnr",
    evaluate_missing: Annotated[
        bool, typer.Option("--evaluate", help="Score the runs that have no record, or one of an older checkpoint.")
    ] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare scores that were taken in different ways.")] = False,
    json: command.Json = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help=f"Write the table into this CSV file. {command.REPLACED}", show_default=False),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table in Markdown.")] = False,
) -> None:
    """Put the scores of several runs in one table; runs that differ by their seed only are one row.

    Scores compare only if they were taken by the same protocol; the p-value is Welch's t-test against the best row.

    Examples:
      vidcvae compare runs/course-001 runs/anchor-001
      vidcvae compare runs/kl/* --evaluate --csv kl.csv
    """
    if json and markdown:
        raise UsageError("--json and --markdown exclude each other.", "Choose one of them.")
    if csv:
        trained.check_file(csv, ".csv")
    from vidcvae.evaluation import records
    from vidcvae.evaluation.compare import table
    from vidcvae.output import score_table
    from vidcvae.workflow import comparison

    named = comparison.gather(runs, record, evaluate_missing, ui.Speaker(bars=not json))
    rows = table(named, sort, anyway)
    warnings = [text for text in (records.selection_warning(named), records.nearest_pose_warning(named)) if text]
    for warning in warnings:
        ui.warn(warning)
    if csv:
        score_table.write_csv(csv, rows)
    if json:
        told = {"protocol": named[0][1]["protocol"], "record": record, "warnings": warnings}
        ui.emit({"rows": [row.to_json() for row in rows], **told})
    elif markdown:
        ui.say(ui.markdown(*score_table.cells(rows)))
    else:
        ui.score_table(rows)
    if csv and not json:
        ui.note(f"table: {csv}")
