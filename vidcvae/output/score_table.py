"""Rows of ``evaluation.compare`` as a table of texts, and as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vidcvae.evaluation.columns import COLUMNS
from vidcvae.evaluation.compare import Row
from vidcvae.storage import durable

MOST_SETTINGS = 3  # settings that a table on a screen shows; further ones are left out


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table as text, without the columns that are empty."""
    shown = {name: column for name, column in COLUMNS.items() if any(row.values[name] is not None for row in rows)}
    tested = any(row.p_value is not None for row in rows)
    titles = [column.title for column in shown.values()]
    head = ["run", *(["what differs"] if rows[0].differing else []), *titles, "checkpoint"]
    body = []
    for row in rows:
        name = row.names[0] if len(row.names) == 1 else f"{row.names[0]} + {len(row.names) - 1}"
        line = [name]
        if row.differing:
            settings = {key: row.differing[key] for key in _shown_settings(row)[:MOST_SETTINGS]}
            line.append(", ".join(f"{key} = {'-' if value is None else value}" for key, value in settings.items()))
        line += [column.cell(row.values[name], row.spread[name]) for name, column in shown.items()]
        line.append(row.selection)
        body.append(line + (["" if row.p_value is None else f"{row.p_value:.3g}"] if tested else []))
    return head + (["p"] if tested else []), body


def hidden(rows: Sequence[Row]) -> str:
    """A note on the differing settings that ``cells`` leaves out; empty if there are none."""
    count = len(rows[0].differing) - min(MOST_SETTINGS, len(_shown_settings(rows[0])))
    return f"{count} more settings differ; all of them: --json or --csv FILE" if count > 0 else ""


def _shown_settings(row: Row) -> list[str]:
    """The settings to show. If the models differ, only their names: the settings of one may not exist in another."""
    if "model.name" not in row.differing:
        return list(row.differing)
    return ["model.name", *(key for key in row.differing if not key.startswith("model."))]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write every setting that differs, and every column with its standard deviation."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    settings = list(rows[0].differing)
    numbers = [f"{name}{part}" for name in COLUMNS for part in ("", "_std")]
    writer.writerow(["runs", "count", *settings, *numbers, "p", "selection"])
    for row in rows:
        values = [value for name in COLUMNS for value in (row.values[name], row.spread[name])]
        chosen = [row.differing[key] for key in settings]
        writer.writerow([" ".join(row.names), len(row.names), *chosen, *values, row.p_value, row.selection])
    durable.write_text(path, buffer.getvalue())
