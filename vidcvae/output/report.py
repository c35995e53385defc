"""The report: runs side by side on one page that needs nothing but itself, no network and no server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from vidcvae.config import differences, to_table, to_toml
from vidcvae.data import sizes
from vidcvae.evaluation import records
from vidcvae.evaluation.columns import COLUMNS, STEPS
from vidcvae.evaluation.drift import Drift
from vidcvae.output import inline_svg, player, plots, templates
from vidcvae.output.chart import Chart, Line, Panel
from vidcvae.storage.run import command_of

Record = dict[str, Any]

SHOWN = (*(column for name, column in COLUMNS.items() if name != "parameters"), STEPS)  # in the table of scores
EQUAL = 0.005  # dB: less does not show in two digits


@dataclass(frozen=True)
class Entry:
    """A run as the report shows it. ``info`` is its run.json, ``notes`` say what could not be had, and why."""

    run: plots.Run
    info: dict[str, Any]
    record: Record | None = None
    drift: Drift | None = None
    latents: Record | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What goes into a page. ``environment`` and ``command`` are of the report itself."""

    entries: tuple[Entry, ...]
    scenes: tuple[player.Scene, ...]
    environment: dict[str, str]
    command: str
    made: str
    labels: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", plots.labels([entry.run for entry in self.entries]))

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
    """The page as HTML. Everything that came from outside is escaped; scripts and styles are allowed by their hash."""
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
    keys = _differing(report)
    if 1 <= len(keys) <= 3:
        return f"{len(report.entries)} runs that differ in {_list(keys)}"
    return f"{len(report.entries)} runs side by side"


def _lead(report: Report) -> str:
    """The best score in words, and whether it is better than a still picture's."""
    if not report.scored:
        return "None of these runs has a score yet."
    label, best = max(report.scored, key=lambda pair: float(pair[1]["psnr_mean"]))
    protocol, alone = best["protocol"], len(report.entries) == 1
    frames = f"{protocol['future']} frames made from {_given(protocol['past'])}"
    ahead, model = float(best["psnr_mean"]) - _baseline(best), "the model" if alone else label
    if abs(ahead) < EQUAL:
        winner = "they are equal, so the model is of no use"
    else:
        winner = f"{model} wins by {ahead:.2f} dB" if ahead > 0 else f"a still picture wins by {-ahead:.2f} dB"
    remembered = records.nearest_pose_text(best)
    nearest = f" {'The model' if alone else label} {remembered}." if remembered else ""
    reaches = "Its free run reaches" if alone else f"The best, {label}, reaches"
    return (
        f"{reaches} {best['psnr_mean']:.2f} dB over {frames}. "
        f"Repeating the {'last given' if protocol['past'] > 1 else 'first'} frame scores {_baseline(best):.2f} dB: "
        f"{winner}.{nearest} More is better."
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


# --- what the sections show, under the names that the template has for it ---------------------------


def _scores(report: Report) -> dict[str, Any]:
    best_first = sorted(report.scored, key=lambda pair: -float(pair[1]["psnr_mean"]))
    rows = [
        [label, *(column.cell(column.value(record)) for column in SHOWN), records.selection_text(record)]
        for label, record in best_first
    ]
    if rows:
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


def _notes(report: Report) -> list[str]:
    named = sorted(report.scored, key=lambda pair: -float(pair[1]["psnr_mean"]))
    return [
        *filter(
            None, (records.selection_warning(named), records.nearest_pose_warning(named[1:]))
        ),  # the lead tells of the best
        *(f"{label}: {note}" for label, entry in report.named() for note in entry.notes),
    ]


def _psnr_chart(report: Report) -> Chart | None:
    """PSNR of each frame of the free run beside the baseline; none without scores."""
    lines = []
    for index, entry in enumerate(report.entries):
        if entry.record:
            curve, past = entry.record["psnr_per_frame"], entry.record["protocol"]["past"]
            lines.append(Line(report.labels[index], range(past, past + len(curve)), curve, index, "fine"))
    if not lines:
        return None
    baseline = [_baseline(report.scored[0][1])] * 2
    lines.append(Line("copy of a given frame, mean", [lines[0].x[0], lines[0].x[-1]], baseline, -1, "dashed"))
    return Chart("PSNR of each frame of the free run", "frame", (Panel("PSNR (dB)", tuple(lines)),))


def _drifts(report: Report) -> dict[str, Any]:
    drifts = [(label, entry.drift) for label, entry in report.named() if entry.drift]
    rows = [
        [
            label,
            f"{d.slope_per_100:+.2f}",
            f"{d.gap_slope_per_100:+.2f}",
            f"{d.age_test.from_start:.2f}",
            f"{d.age_test.from_restart:.2f}",
            f"{d.age_test.lost:.2f}",
        ]
        for label, d in drifts
    ]
    if not drifts:
        return {"drifts": rows}
    return {"drifts": rows, "drift_chart": plots.drift_chart(drifts), "age_test": drifts[0][1].age_test}


def _training(report: Report) -> dict[str, Any]:
    """What was done and its curves; before any run begins, what is planned."""
    trained = [(label, entry) for label, entry in report.named() if _trained(entry.run)]
    if not trained:
        return {"training": [], "schedule_chart": plots.schedule_chart(report.runs)}
    runs = [entry.run for _, entry in trained]
    kl = plots.kl_chart(runs)
    return {
        "training": [_did(label, entry) for label, entry in trained],
        "loss_chart": plots.loss_chart(runs),
        "terms_chart": replace(kl, panels=kl.panels[:-2]),  # without beta and teacher forcing, which the losses have
        "lr_chart": plots.lr_chart(runs),
    }


def _trained(run: plots.Run) -> list[Record]:
    return [*run.records("step"), *run.records("epoch")]


def _did(label: str, entry: Entry) -> list[str]:
    """How far a run came, of what was planned."""
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
    tables = [to_table(run.config) for run in report.runs]
    return {
        "names": [run.name for run in report.runs],
        "differing": [[key, *(_value(table, key) for table in tables)] for key in _differing(report)],
        "settings": [(run.name, to_toml(run.config)) for run in report.runs],
    }


def _protocol(report: Report) -> dict[str, Any]:
    """What of the scores' protocol is the same for all of them, and what is not."""
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


def _differing(report: Report) -> list[str]:
    """Settings in which the runs differ; not where the data lie."""
    runs = report.runs
    keys = dict.fromkeys(key for run in runs for key in differences(runs[0].config, run.config))
    return [key for key in keys if key != "data.path"]


def _value(table: dict[str, dict[str, Any]], key: str) -> str:
    section, _, name = key.partition(".")
    return _text(table[section].get(name, "-"))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value[:12])) + (f" .. ({len(value)} in all)" if len(value) > 12 else "")
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _baseline(record: Record) -> float:
    key = "last_past" if record["protocol"]["past"] > 1 else "first"
    return float(record[f"baseline_copy_{key}_psnr"])


def _given(past: int) -> str:
    return "one given frame" if past == 1 else f"{past} given frames"


def _list(words: Iterable[str]) -> str:
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last
