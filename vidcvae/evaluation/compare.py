"""Several score records in one table: the settings that differ, means and spread over seeds, and significance."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev, variance
from typing import Any

from vidcvae.errors import UsageError, did_you_mean
from vidcvae.evaluation import records
from vidcvae.evaluation.columns import COLUMNS, LESS_IS_BETTER
from vidcvae.evaluation.records import Record

# Settings that do not make another experiment: runs are grouped over seeds, and the others do not affect the model
NO_DIFFERENCE = ("training.seed", "training.device", "training.log_every", "data.path")


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed.

    differing: the settings that differ between the rows of the table, with this row's values.
    values, spread: mean over the runs and sample standard deviation (None for one run) of each of ``COLUMNS``.
    p_value: Welch's t-test of the PSNRs against those of the best row; None for that row, and for single runs.
    selection: how the checkpoints were chosen (``records.selection_text``).
    """

    names: tuple[str, ...]
    differing: dict[str, Any]
    values: dict[str, float | None]
    spread: dict[str, float | None]
    p_value: float | None = None
    selection: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def table(named: Sequence[tuple[str, Record]], sort: str = "psnr", anyway: bool = False) -> list[Row]:
    """A row for each group of runs, best first by the column ``sort``.

    Raises a ``UsageError`` that names every difference if the records' protocols do not match, unless ``anyway``.
    """
    if sort not in COLUMNS:
        raise UsageError(f"there is no column {sort!r}.{did_you_mean(sort, COLUMNS)}", f"Sort by {', '.join(COLUMNS)}.")
    if not anyway:
        check(named)
    settings = [_settings(record) for _, record in named]
    keys = dict.fromkeys(key for flat in settings for key in flat)
    differing = [key for key in keys if len({_text(flat.get(key)) for flat in settings}) > 1]
    groups: dict[str, list[int]] = {}
    for index, flat in enumerate(settings):
        groups.setdefault(_text([flat.get(key) for key in differing]), []).append(index)
    scored = {group: [named[i][1]["psnr_mean"] for i in picks] for group, picks in groups.items()}
    best = max(scored, key=lambda group: fmean(scored[group]))
    rows = []
    for group, picks in groups.items():
        columns = {name: [column.value(named[i][1]) for i in picks] for name, column in COLUMNS.items()}
        rows.append(
            Row(
                names=tuple(named[i][0] for i in picks),
                differing={key: settings[picks[0]].get(key) for key in differing},
                values={name: _over_seeds(numbers, fmean, 1) for name, numbers in columns.items()},
                spread={name: _over_seeds(numbers, stdev, 2) for name, numbers in columns.items()},
                p_value=None if group == best else welch(scored[best], scored[group]),
                selection="; ".join(dict.fromkeys(records.selection_text(named[i][1]) for i in picks)),
            )
        )
    sign = 1 if sort in LESS_IS_BETTER else -1
    return sorted(rows, key=lambda row: math.inf if (value := row.values[sort]) is None else sign * value)


def check(named: Sequence[tuple[str, Record]]) -> None:
    """Raise a ``UsageError`` with every difference and the commands that remove it, unless all protocols match."""
    reference, first = named[0]
    mismatches, commands = [], []
    for name, record in named[1:]:
        if differences := records.differences(first, record):
            commands.append(records.command(name, record, first))
        for key, (left, right) in differences.items():
            mismatches.append(f"{key} is {_short(left)} in {reference} and {_short(right)} in {name}")
    if mismatches:
        raise UsageError(
            f"these scores were not taken by the same protocol: {'; '.join(mismatches)}.",
            f"Score by the same protocol: {'; '.join(commands)}. Or compare different protocols: --anyway",
        )


def welch(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p-value of Welch's t-test (Welch 1947) for equal means; None if a group has fewer than 2 values."""
    if min(len(a), len(b)) < 2:
        return None
    left, right = variance(a) / len(a), variance(b) / len(b)
    difference = abs(fmean(a) - fmean(b))
    if left + right == 0:
        return 1.0 if difference == 0 else 0.0
    freedom = (left + right) ** 2 / (left**2 / (len(a) - 1) + right**2 / (len(b) - 1))
    t2 = difference**2 / (left + right)
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t2))  # P(|T| > t) of Student's distribution


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22, Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # here the fraction of the other tail converges fast
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    )
    c, d, result = 1.0, 0.0, 1.0
    for i in range(1000):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / ((1 + term * d) or 1e-300)
        c = (1 + term / c) or 1e-300
        result *= c * d
        if i and abs(c * d - 1) < 1e-15:
            break
    return front * (result - 1)


def _settings(record: Record) -> dict[str, Any]:
    """The settings that affect the model, flat: ``{"kl.type": "cyclical", ...}``."""
    flat = {f"{part}.{key}": value for part, table in record["config"].items() for key, value in table.items()}
    return {key: value for key, value in flat.items() if key not in NO_DIFFERENCE}


def _over_seeds(numbers: Sequence[float | None], reduce: Any, least: int) -> float | None:
    known = [value for value in numbers if value is not None]
    return float(reduce(known)) if len(known) == len(numbers) >= least else None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _short(value: Any) -> str:
    text = "not recorded" if value is None else _text(value)
    return text if len(text) <= 60 else text[:57] + "..."
