"""``vidcvae compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from vidcvae.cli import choice, command, completion, evaluate, trained, ui
from vidcvae.errors import DataError, UsageError, typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vidcvae.evaluation.compare import Row
    from vidcvae.storage.run import RunFolder

TITLES = {
    "psnr": "PSNR (dB)",
    "first_50": "first 50",
    "last_50": "last 50",
    "ssim": "SSIM",
    "kl": "KL (nats)",
    "active_units": "active units",
    "parameters": "parameters",
    "minutes": "minutes",
}
DIGITS = {"psnr": 2, "first_50": 2, "last_50": 2, "ssim": 4, "kl": 3, "active_units": 0, "parameters": 0, "minutes": 1}
MOST_SETTINGS = 3  # of more that differ, a table on a screen shows the first ones


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, or score records in JSON files.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ],
    record: Annotated[
        str, typer.Option("--record", help="Which record of each run: RUN/scores/NAME.json.", metavar="NAME")
    ] = "val-zero",
    sort: Annotated[str, choice.option(TITLES, "--sort", help="Column to sort by, best first.")] = "psnr",
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
        trained.check_file(csv)
    from vidcvae.evaluation import records
    from vidcvae.evaluation.compare import table

    named = _read(runs, record, evaluate_missing, quiet=json)
    rows = table(named, sort, anyway)
    if warning := records.selection_warning(named):
        ui.warn(warning)
    if csv:
        _write_csv(csv, rows)
    if json:
        told = {"protocol": named[0][1]["protocol"], "record": record, "warnings": [warning] if warning else []}
        ui.emit({"rows": [row.to_json() for row in rows], **told})
    elif markdown:
        ui.say(ui.markdown(*_cells(rows)))
    else:
        show(rows)
    if csv and not json:
        ui.note(f"table: {csv}")


def show(rows: Sequence[Row]) -> None:
    """The table on a screen; the settings that do not fit in are counted."""
    ui.table("", *_cells(rows))
    if (hidden := len(rows[0].differing) - min(MOST_SETTINGS, len(_told(rows[0])))) > 0:
        ui.note(f"{hidden} more settings differ; all of them: --json or --csv FILE")


def _read(paths: Sequence[Path], name: str, fill: bool, quiet: bool) -> list[tuple[str, dict[str, Any]]]:
    """The records that the arguments mean, under the names that they were given by."""
    from vidcvae.evaluation import records
    from vidcvae.storage.run import find_run

    named: list[tuple[str, dict[str, Any]]] = []
    missing = []
    others = [path for path in paths if _is_another_file(path)] if not all(path.is_file() for path in paths) else []
    if others:  # of the folder of a sweep, say, which the shell has listed
        ui.note(f"left out, because they are neither runs nor score records: {', '.join(map(str, others))}")
    for path in paths:
        if path in others:
            continue
        if path.suffix == ".json":
            named.append((str(path), records.read(path)))
            continue
        run = find_run(path)
        found = _kept(run, name, fill) or (_score(run, name, quiet) if fill else None)
        if found is None:
            missing.append(path)
        else:
            named.append((str(path), found))
    if missing:
        commands = "; ".join(typed("evaluate", path, *_options(name)) for path in missing)
        raise DataError(
            f"{', '.join(map(str, missing))} {'has' if len(missing) == 1 else 'have'} no score record {name}.",
            f"Make {'it' if len(missing) == 1 else 'them'}: {commands}   (or: compare --evaluate)",
        )
    return named


def _kept(run: RunFolder, name: str, fill: bool) -> dict[str, Any] | None:
    """The record of a run that ``name`` means, SPLIT-zero being its ordinary score; None if there is none.

    One of an older checkpoint will do, with a warning, unless it can be made anew (``fill``).
    """
    from vidcvae.evaluation import records
    from vidcvae.storage import checkpoint
    from vidcvae.storage.run import find_checkpoint

    named = records.read(place) if (place := _place(run, name)).exists() else None
    try:
        path, _ = find_checkpoint(run.path)
        meta, digest = checkpoint.read_header(path)
    except DataError as error:
        if fill or named is None:
            raise
        ui.warn(f"{error.message} So nobody can tell whether {place} is its score.")
        return named
    split, _, rest = name.partition("-")
    ordinary = rest == "zero"
    found = (
        next(iter(records.ordinary(run, records.ordinary_protocol(meta, digest, split))), None) if ordinary else named
    )
    if found and found["protocol"].get("checkpoint") == digest:
        if "selection" in found:  # as it is known today: since it was scored, more validations may have been
            found = {**found, "selection": records.selection_of(path, run, meta, found["protocol"])}
        return found
    if named is None or fill:
        return None
    if named["protocol"].get("checkpoint") == digest:
        ui.warn(f"{place} is not the run's ordinary score: it was taken by another protocol, or on other data.")
        return None
    again = typed("evaluate", run.path)
    ui.warn(f"{place} is of an older checkpoint than the run's best. Score it again: {again}")
    return named


def _place(run: RunFolder, name: str) -> Path:
    """Where the record ``name`` lies; "val" and "validate" stand for each other."""
    from vidcvae.evaluation import records

    split, dash, rest = name.partition("-")
    other = {"val": "validate", "validate": "val"}.get(split, split)
    places = [records.path_in(run, f"{first}{dash}{rest}") for first in (split, other)]
    return next((place for place in places if place.exists()), places[0])


def _is_another_file(path: Path) -> bool:
    """Whether it is a file that no score record was ever in; a damaged one is not."""
    from vidcvae import reading

    if path.suffix != ".json":
        return path.is_file()
    try:
        found = reading.parse_json(reading.read_bytes(path))
    except (OSError, ValueError):
        return False
    return not isinstance(found, dict) or "protocol" not in found


def _score(run: RunFolder, name: str, quiet: bool) -> dict[str, Any]:
    """Score a run as the record ``name`` says, which must be an ordinary one, SPLIT-LATENT."""
    split, _, ending = name.partition("-")
    latent = next((known for known in get_args(evaluate.Latents) if known == ending), None)
    if latent is None:
        raise UsageError(
            f"--evaluate cannot make the record {name!r}: it is not SPLIT-LATENT, such as val-zero.",
            "Make it by vidcvae evaluate, with the options that it takes.",
        )
    ui.note(f"scoring {run.path}")
    loaded = trained.load(run.path, "auto", batch_stats=False, weights="auto")
    found = evaluate.score(loaded, trained.open_data(loaded, None, quiet), split, latent, quiet=quiet)
    evaluate.keep(loaded, found)
    return found


def _options(name: str) -> list[str]:
    split, _, latent = name.partition("-")
    split_option = ["--split", split] if split != "val" else []
    return split_option + (["--latent", latent] if latent != "zero" else [])


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table as texts; columns that nothing is known of are left out."""
    shown = [name for name in TITLES if any(row.values[name] is not None for row in rows)]
    tested = any(row.p_value is not None for row in rows)
    head = ["run", *(["what differs"] if rows[0].differing else []), *(TITLES[name] for name in shown), "checkpoint"]
    body = []
    for row in rows:
        name = row.names[0] if len(row.names) == 1 else f"{row.names[0]} + {len(row.names) - 1}"
        cells = [name]
        if row.differing:
            told = _told(row)[:MOST_SETTINGS]
            cells.append(", ".join(f"{key} = {_value(row.differing[key])}" for key in told))
        cells += [*(_number(row, name) for name in shown), row.selection]
        body.append(cells + (["" if row.p_value is None else f"{row.p_value:.3g}"] if tested else []))
    return head + (["p"] if tested else []), body


def _told(row: Row) -> list[str]:
    """The settings to show: of unlike models their name, not the settings that only one of them has."""
    if "model.name" not in row.differing:
        return list(row.differing)
    return ["model.name", *(key for key in row.differing if not key.startswith("model."))]


def _number(row: Row, name: str) -> str:
    value, spread, digits = row.values[name], row.spread[name], DIGITS[name]
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread else "")


def _value(value: Any) -> str:
    return "-" if value is None else str(value)


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    import csv
    import io

    from vidcvae.storage import durable

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    settings = list(rows[0].differing)
    writer.writerow(
        ["runs", "count", *settings, *(f"{c}{part}" for c in TITLES for part in ("", "_std")), "p", "selection"]
    )
    for row in rows:
        numbers = [value for c in TITLES for value in (row.values[c], row.spread[c])]
        names = " ".join(row.names)
        writer.writerow(
            [names, len(row.names), *(row.differing[k] for k in settings), *numbers, row.p_value, row.selection]
        )
    durable.write_text(path, buffer.getvalue())
