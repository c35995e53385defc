"""``vidcvae compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vidcvae.cli import command, trained, ui
from vidcvae.cli.command import OneOf, option
from vidcvae.errors import UsageError
from vidcvae.evaluation.columns import COLUMNS


def compare(
    runs: Annotated[list[Path], trained.runs_argument("Run folders, or score records in JSON files.")],
    record: Annotated[str, option("Which record of each run: RUN/scores/NAME.json.", metavar="NAME")] = "val-zero",
    sort: Annotated[str, OneOf(COLUMNS), option("Column to sort by, best first.")] = "psnr",
    evaluate_missing: Annotated[
        bool, option("Score the runs that have no record, or one of an older checkpoint.", "--evaluate")
    ] = False,
    anyway: Annotated[bool, option("Compare scores even if their protocols differ.")] = False,
    json: command.Json = False,
    csv: Annotated[
        Path | None, option(f"Write the table to this CSV file. {command.REPLACED}", show_default=False)
    ] = None,
    markdown: Annotated[bool, option("Print the table in Markdown.")] = False,
) -> None:
    """Put the scores of several runs in one table. Runs that differ only in their seed share a row.

    Scores are comparable only if they have the same protocol. The p-value is Welch's t-test against the best row.

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
    from vidcvae.output.table import markdown as to_markdown
    from vidcvae.workflow import comparison

    named = comparison.gather(runs, record, evaluate_missing, ui.Speaker(bars=not json))
    rows = table(named, sort, anyway)
    warnings = [text for text in (records.selection_warning(named), records.nearest_pose_warning(named)) if text]
    for warning in warnings:
        ui.warn(warning)
    if csv:
        score_table.write_csv(csv, rows)
    if json:
        about = {"protocol": named[0][1]["protocol"], "record": record, "warnings": warnings}
        ui.emit({"rows": [row.to_json() for row in rows], **about})
    elif markdown:
        ui.say(to_markdown(*score_table.cells(rows)))
    else:
        ui.score_table(rows)
    if csv and not json:
        ui.note(f"table: {csv}")
