"""The report: runs side by side on one self-contained page, which needs no network and no server."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from vidcvae.config import to_toml
from vidcvae.data import sizes
from vidcvae.evaluation import records
from vidcvae.evaluation.columns import COLUMNS, STEPS
from vidcvae.evaluation.drift import Drift
from vidcvae.output import inline_svg, player, plots, templates
from vidcvae.output.chart import Chart, Line, Panel
from vidcvae.storage.run import command_of

Record = dict[str, Any]

SHOWN = (*(column for name, column in COLUMNS.items() if name != "parameters"), STEPS)  # in the table of scores
EQUAL = 0.005  # dB; a smaller difference does not show in two digits


@dataclass(frozen=True)
class Entry:
    """One run of the report. ``info`` is its run.json; ``notes`` say what is missing from the report, and why."""

    run: plots.Run
    info: dict[str, Any]
    record: Record | None = None
    drift: Drift | None = None
    latents: Record | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The contents of a page. ``environment`` and ``command`` describe how the report itself was made."""

    entries: tuple[Entry, ...]
    scenes: tuple[player.Scene, ...]
    environment: dict[str, str]
    command: str
    made: str

    @functools.cached_property
    def labels(self) -> list[str]:
        return plots.labels(self.runs)

    @property
    def runs(self) -> list[plots.Run]:
        return [entry.run for entry in self.entries]

    @property
    def scored(self) -> list[tuple[str, Record]]:
        """The score records, under the labels of their runs."""
        return [(label, entry.record) for label, entry in self.named() if entry.record]

    def named(self) -> Iterable[tuple[str, Entry]]:
        return zip(self.labels, self.entries, strict=True)


def render(report: Report) -> str:
    """The page as HTML. All outside text is escaped; the content-security policy allows scripts and styles by hash."""
    style, script = templates.source("report.css"), templates.source("report.js")
    return templates.render(
        "report.html.j2",
        report=report,
        title=_title(report),
        lead=_lead(report),
        byline=_byline(report),
        style=style,
        script=script,
        style_hash=templates.digest(style),
        script_hash=templates.digest(script),
        figure=inline_svg.figure,
        notes=_notes(report),
        videos=[player.player(scene) for scene in report.scenes],
        **_scores(report),
        **_drifts(report),
        **_training(report),
        **_latents(report),
        **_settings(report),
        **_protocol(report),
        **_origin(report),
    )


# --- the head ---------------------------------------------------------------------------------------


def _title(report: Report) -> str:
    if len(report.entries) == 1:
        return f"The run {report.entries[0].run.name}"
    keys = plots.differing(report.runs)
    if 1 <= len(keys) <= 3:
        return f"{len(report.entries)} runs that differ in {_list(keys)}"
    return f"{len(report.entries)} runs side by side"


def _lead(report: Report) -> str:
    """The best score in words, and whether it beats a still picture."""
    if not report.scored:
        return "None of these runs has a score yet."
    if _incomparable(report):
        return "The scores of these runs were not taken by the same protocol, so they cannot be compared."
    label, best = _best_first(report)[0]
    protocol, alone = best["protocol"], len(report.entries) == 1
    given = "one given frame" if protocol["past"] == 1 else f"{protocol['past']} given frames"
    frames = f"{protocol['future']} frames made from {given}"
    ahead, model = float(best["psnr_mean"]) - _baseline(best), "the model" if alone else label
    if abs(ahead) < EQUAL:
        winner = "the two are equal, so the model adds nothing"
    else:
        winner = f"{model} wins by {ahead:.2f} dB" if ahead > 0 else f"a still picture wins by {-ahead:.2f} dB"
    remembered = records.nearest_pose_text(best)
    nearest = f" {'The model' if alone else label} {remembered}." if remembered else ""
    reaches = "Its free run reaches" if alone else f"The best, {label}, reaches"
    return (
        f"{reaches} {best['psnr_mean']:.2f} dB over {frames}. "
        f"Repeating the {'last given' if protocol['past'] > 1 else 'first'} frame scores {_baseline(best):.2f} dB: "
        f"{winner}.{nearest} Higher is better."
    )


def _byline(report: Report) -> dict[str, str]:
    protocols = [record["protocol"] for _, record in report.scored]
    configs = [run.config for run in report.runs]
    return {
        "Models": _list(dict.fromkeys(config.model.name for config in configs)),
        "Data": _list(dict.fromkeys(f"{protocol['dataset']}, {protocol['split']}" for protocol in protocols))
        or _list(dict.fromkeys(config.data.path for config in configs)),
        "Frames": _list(dict.fromkeys(sizes.text(config.data.frame_size) for config in configs)),
        "Made": report.made,
    }


# --- the sections, as values for the template ------------------------------------------------------


def _scores(report: Report) -> dict[str, Any]:
    best_first = _best_first(report)
    rows = [
        [label, *(column.cell(column.value(record)) for column in SHOWN), records.selection_text(record)]
        for label, record in best_first
    ]
    if rows and not _incomparable(report):
        copied = COLUMNS["psnr"].cell(_baseline(best_first[0][1]))
        rows.append(["copy of a given frame", copied, *[""] * len(SHOWN)])
        if nearest := best_first[0][1].get("baseline_nearest_pose_psnr"):
            rows.append(["training frame of the nearest pose", COLUMNS["psnr"].cell(nearest), *[""] * len(SHOWN)])
    heads = ["run", *(column.title for column in SHOWN), "checkpoint"]
    return {
        "score_heads": heads,
        "scores": rows,
        "scored": [label for label, _ in report.scored],
        "psnr_chart": _psnr_chart(report),
    }


def _incomparable(report: Report) -> str:
    return records.protocol_warning(report.scored) if report.scored else ""


def _best_first(report: Report) -> list[tuple[str, Record]]:
    return sorted(report.scored, key=lambda pair: -float(pair[1]["psnr_mean"]))


def _notes(report: Report) -> list[str]:
    best_first = _best_first(report)
    # The lead already compares the best run with the nearest pose
    warnings = (
        *((_incomparable(report),) if _incomparable(report) else (records.selection_warning(best_first),)),
        records.nearest_pose_warning(best_first[1:]),
    )
    return [
        *filter(None, warnings),
        *(f"{label}: {note}" for label, entry in report.named() for note in entry.notes),
    ]


def _psnr_chart(report: Report) -> Chart | None:
    """PSNR of each frame of the free run, and of the baseline; None if there are no scores."""
    lines = []
    for index, entry in enumerate(report.entries):
        if entry.record:
            curve, past = entry.record["psnr_per_frame"], entry.record["protocol"]["past"]
            lines.append(Line(report.labels[index], range(past, past + len(curve)), curve, index, "fine"))
    if not lines:
        return None
    if not _incomparable(report):
        baseline = [_baseline(report.scored[0][1])] * 2
        lines.append(Line("copy of a given frame, mean", [lines[0].x[0], lines[0].x[-1]], baseline, -1, "dashed"))
    return Chart("PSNR of each frame of the free run", "frame", (Panel("PSNR (dB)", tuple(lines)),))


def _drifts(report: Report) -> dict[str, Any]:
    drifts = [(label, entry.drift) for label, entry in report.named() if entry.drift]
    if not drifts:
        return {"drifts": []}
    rows = []
    for label, drift in drifts:
        slopes, age = (drift.slope_per_100, drift.gap_slope_per_100), drift.age_test
        scores = (age.from_start, age.from_restart, age.lost)
        rows.append([label, *(f"{slope:+.2f}" for slope in slopes), *(f"{score:.2f}" for score in scores)])
    return {"drifts": rows, "drift_chart": plots.drift_chart(drifts), "age_test": drifts[0][1].age_test}


def _training(report: Report) -> dict[str, Any]:
    """How far each run has trained, and its curves; before any run begins, the planned schedules."""
    trained = [(label, entry) for label, entry in report.named() if _trained(entry.run)]
    if not trained:
        return {"training": [], "schedule_chart": plots.schedule_chart(report.runs)}
    runs = [entry.run for _, entry in trained]
    kl = plots.kl_chart(runs)
    return {
        "training": [_progress(label, entry) for label, entry in trained],
        "loss_chart": plots.loss_chart(runs),
        "terms_chart": replace(kl, panels=kl.panels[:-2]),  # beta and teacher forcing stand beneath the losses
        "lr_chart": plots.lr_chart(runs),
    }


def _trained(run: plots.Run) -> list[Record]:
    return [*run.records("step"), *run.records("epoch")]


def _progress(label: str, entry: Entry) -> list[str]:
    """A row of the table of training: how far the run is, and how far it is planned to go."""
    run = entry.run
    last = max(_trained(run), key=lambda record: int(record["step"]))
    length, record = run.length(), entry.record or {}
    parameters = record.get("model", {}).get("parameters")
    return [
        label,
        f"{parameters:,}" if parameters else "-",
        f"{last['step']:,} of {length.steps:,}",
        f"{run.epochs_of([last])[0]:.3g} of {length.epochs}",
        COLUMNS["minutes"].cell(last.get("minutes")),
        str(entry.info.get("processor", "-")),
    ]


def _latents(report: Report) -> dict[str, Any]:
    return {
        "latents": [
            (number, label, plots.latents_chart(entry.latents), entry.latents["latents"])
            for number, (label, entry) in enumerate(report.named())
            if entry.latents
        ]
    }


def _settings(report: Report) -> dict[str, Any]:
    return {
        "names": [run.name for run in report.runs],
        "differing": [
            [key, *(_text(plots.value_of(run, key)) for run in report.runs)] for key in plots.differing(report.runs)
        ],
        "settings": [(run.name, to_toml(run.config)) for run in report.runs],
    }


def _protocol(report: Report) -> dict[str, Any]:
    """The parts of the scores' protocols that are the same for all, and those that are not."""
    protocols = [record["protocol"] for _, record in report.scored]
    keys = dict.fromkeys(key for protocol in protocols for key in protocol)
    parts = [(key.replace("_", " "), [_text(protocol.get(key)) for protocol in protocols]) for key in keys]
    return {
        "same_protocol": [[name, texts[0]] for name, texts in parts if len(set(texts)) == 1],
        "other_protocol": [[name, *texts] for name, texts in parts if len(set(texts)) > 1],
    }


def _origin(report: Report) -> dict[str, Any]:
    commands = [(entry.run.name, command_of(entry.info)) for entry in report.entries]
    return {
        "commands": [(name, command) for name, command in commands if command],
        "versions": [
            [entry.run.name, *(str(entry.info.get(key, "-")) for key in ("vidcvae", "torch", "python"))]
            for entry in report.entries
        ],
    }


# --- words ------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value[:12])) + (f" .. ({len(value)} in all)" if len(value) > 12 else "")
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _baseline(record: Record) -> float:
    key = "last_past" if record["protocol"]["past"] > 1 else "first"
    return float(record[f"baseline_copy_{key}_psnr"])


def _list(words: Iterable[str]) -> str:
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last
