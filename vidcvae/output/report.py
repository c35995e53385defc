"""The report: runs side by side on one page that needs nothing but itself, no network and no server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import Any

from vidcvae.config import differences, to_table, to_toml
from vidcvae.errors import typed
from vidcvae.evaluation import records
from vidcvae.evaluation.drift import Drift
from vidcvae.output import inline_svg, player, plots
from vidcvae.output.chart import Chart, Line, Panel

Record = dict[str, Any]

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

    def named(self) -> Iterable[tuple[str, Entry]]:
        return zip(self.labels, self.entries, strict=True)


def render(report: Report) -> str:
    """The page as HTML. Everything that came from outside is escaped; scripts and styles are allowed by their hash."""
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    sections = [(name, title, body) for name, title, body in _sections(report) if body]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections)
    bodies = "".join(f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, title, body in sections)
    title = escape(_title(report))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{title}</title><link rel="icon" href="data:,">'
        f'<style>{style}</style></head>\n<body><a class="skip" href="#main">To the results</a>'
        f'<header><h1>{title}</h1>{_lead(report)}{_byline(report)}<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'</header>\n<main id="main">{bodies}</main>\n<footer>Made by vidcvae on {escape(report.made)}. '
        f"This file is complete in itself: it asks nothing of the network.</footer>"
        f"<script>{script}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return (resources.files("vidcvae.output") / "page" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _sections(report: Report) -> Iterable[tuple[str, str, str]]:
    """Anchor, title and content of each section; an empty one is left out."""
    yield "scores", "Scores", _scores(report)
    yield "videos", "Videos", "".join(player.player(scene) + player.stills(scene) for scene in report.scenes)
    yield "frames", "Quality of each frame", _frames(report)
    yield "training", "Training", _training(report)
    yield "schedules", "Schedules", _schedules(report)
    yield "latents", "Latents", _latents(report)
    yield "settings", "Settings", _settings(report)
    yield "protocol", "How the scores were taken", _protocol(report)
    yield "origin", "How all this was made", _origin(report)


# --- the head ---------------------------------------------------------------------------------------


def _title(report: Report) -> str:
    if len(report.entries) == 1:
        return f"The run {report.entries[0].run.name}"
    keys = _differing(report)
    if 1 <= len(keys) <= 3:
        return f"{len(report.entries)} runs that differ in {_list(keys)}"
    return f"{len(report.entries)} runs side by side"


def _lead(report: Report) -> str:
    scored = [(label, entry.record) for label, entry in report.named() if entry.record]
    if not scored:
        return '<p class="lead">None of these runs has a score yet.</p>'
    label, best = max(scored, key=lambda pair: float(pair[1]["psnr_mean"]))
    protocol = best["protocol"]
    who = "Its" if len(report.entries) == 1 else f"The best, {label}, reaches"
    frames = f"{protocol['future']} frames made from {_given(protocol['past'])}"
    ahead, model = float(best["psnr_mean"]) - _baseline(best), "the model" if len(report.entries) == 1 else label
    if abs(ahead) < EQUAL:
        winner = "they are equal, so the model is of no use"
    else:
        winner = f"{model} wins by {ahead:.2f} dB" if ahead > 0 else f"a still picture wins by {-ahead:.2f} dB"
    baseline = (
        f"Repeating the {'last given' if protocol['past'] > 1 else 'first'} frame scores {_baseline(best):.2f} dB: "
        f"{winner}. More is better."
    )
    said = f"{who} {'free run reaches ' if len(report.entries) == 1 else ''}{best['psnr_mean']:.2f} dB over {frames}. "
    return f'<p class="lead">{escape(said + baseline)}</p>'


def _byline(report: Report) -> str:
    records = [entry.record for entry in report.entries if entry.record]
    facts = {
        "Models": _list(dict.fromkeys(entry.run.config.model.name for entry in report.entries)),
        "Data": _list(dict.fromkeys(f"{r['protocol']['dataset']}, {r['protocol']['split']}" for r in records))
        or _list(dict.fromkeys(entry.run.config.data.path for entry in report.entries)),
        "Frames": _list(dict.fromkeys("{}x{}".format(*entry.run.config.data.size) for entry in report.entries)),
        "Made": report.made,
    }
    return (
        '<dl class="byline">'
        + "".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
        + "</dl>"
    )


# --- sections ---------------------------------------------------------------------------------------


def _scores(report: Report) -> str:
    heads = ["run", "PSNR (dB)", "first 50", "last 50", "SSIM", "KL (nats)", "active units", "minutes", "steps"]
    heads.append("checkpoint")
    found = [(label, entry.record) for label, entry in report.named() if entry.record]
    found.sort(key=lambda pair: -float(pair[1]["psnr_mean"]))
    rows = [
        [
            label,
            *(
                _cell(value, digits)
                for value, digits in (
                    (r["psnr_mean"], 2),
                    (r.get("psnr_first_50"), 2),
                    (r.get("psnr_last_50"), 2),
                    (r["ssim_mean"], 4),
                    (r.get("kl"), 2),
                    (r.get("active_units"), 0),
                    (r.get("model", {}).get("minutes"), 1),
                    (r["protocol"]["step"], 0),
                )
            ),
            records.selection_text(r),
        ]
        for label, r in found
    ]
    if found:
        rows.append(["copy of a given frame", _cell(_baseline(found[0][1]), 2), *[""] * 8])
    notes = "".join(
        f'<p class="note">{escape(label)}: {escape(note)}</p>'
        for label, entry in report.named()
        for note in entry.notes
    )
    if warning := records.selection_warning(found):
        notes = f'<p class="note">{escape(warning)}</p>{notes}'
    said = (
        "<p>PSNR is the mean over all predicted frames, in decibels: the higher wins, and 3 dB more is half the "
        "squared error. A copy of a given frame stands beside the runs, as on a still video that alone scores high.</p>"
    )
    return (said + inline_svg.table(heads, rows) if rows else "") + notes


def _frames(report: Report) -> str:
    parts = []
    scored = [(i, label, entry.record) for i, (label, entry) in enumerate(report.named()) if entry.record]
    if scored:
        lines = []
        for index, label, record in scored:
            curve, past = record["psnr_per_frame"], record["protocol"]["past"]
            lines.append(Line(label, range(past, past + len(curve)), curve, index, "fine"))
        first = scored[0][2]
        ends = [first["protocol"]["past"], first["protocol"]["past"] + len(first["psnr_per_frame"]) - 1]
        lines.append(Line("copy of a given frame, mean", ends, [_baseline(first)] * 2, -1, "dashed"))
        chart = Chart("PSNR of each frame of the free run", "frame", (Panel("PSNR (dB)", tuple(lines)),))
        caption = (
            "PSNR of each frame of the free run, mean over the sequences. The dotted line is the frame shown above."
        )
        parts.append(inline_svg.figure(chart, "psnr", caption, cursor=True))
    drifts = [(label, entry.drift) for label, entry in report.named() if entry.drift]
    if drifts:
        chart = plots.drift_chart(drifts)
        caption = (
            "Drift: the free run beside runs begun anew from true frames; what lies between them is the cost of age."
        )
        parts.append("<h3>Drift</h3>" + inline_svg.figure(chart, "drift", caption))
        heads = [
            "run",
            "PSNR per 100 frames (dB)",
            "gap per 100 frames (dB)",
            "last frames, from the start",
            "from a restart",
            "lost to age (dB)",
        ]
        rows = [
            [label, f"{d.slope_per_100:+.2f}", f"{d.gap_slope_per_100:+.2f}"]
            + [f"{v:.2f}" for v in (d.age_test.from_start, d.age_test.from_restart, d.age_test.lost)]
            for label, d in drifts
        ]
        tail, restart = drifts[0][1].age_test.tail, drifts[0][1].age_test.restart
        parts.append(
            inline_svg.table(
                heads, rows, f"Age test: frames {tail[0]} to {tail[1]}, against a run begun at frame {restart}"
            )
        )
    return "".join(parts)


def _training(report: Report) -> str:
    trained = [run for run in report.runs if any(r["kind"] in ("step", "epoch") for r in run.history)]
    if not trained:
        return ""
    heads = ["run", "parameters", "steps", "epochs", "minutes", "processor"]
    did = inline_svg.table(heads, [_did(label, e) for label, e in report.named() if e.run in trained], "What was done")
    kl = plots.kl_chart(trained)
    terms = Chart(kl.title, kl.xlabel, kl.panels[:-2])  # beta and teacher forcing stand in the figure before it
    return (
        did
        + inline_svg.figure(
            plots.loss_chart(trained),
            "loss",
            "Training loss per predicted frame, with beta (the weight of the KL term) and the teacher-forcing ratio.",
        )
        + inline_svg.figure(terms, "terms", "The KL term and the reconstruction error, per predicted frame.")
    )


def _did(label: str, entry: Entry) -> list[str]:
    """How far a run came, of what was planned."""
    run = entry.run
    last = max([*run.records("step"), *run.records("epoch")], key=lambda record: int(record["step"]))
    length, record = run.length(), entry.record or {}
    parameters = record.get("model", {}).get("parameters")
    return [
        label,
        f"{parameters:,}" if parameters else "-",
        f"{last['step']:,} of {length.steps:,}",
        f"{run.epochs_of([last])[0]:.3g} of {length.epochs}",
        _cell(last.get("minutes"), 1),
        str(entry.info.get("processor", "-")),
    ]


def _schedules(report: Report) -> str:
    """What the runs had; beta and teacher forcing stand beneath their losses. Before a run begins: what is planned."""
    trained = [run for run in report.runs if run.records("step") or run.records("epoch")]
    if trained:
        return inline_svg.figure(plots.lr_chart(trained), "rate", "The learning rate that the training had.")
    caption = "Beta, teacher-forcing ratio and learning rate as the settings plan them over a whole run."
    return inline_svg.figure(plots.schedule_chart(report.runs), "plan", caption)


def _latents(report: Report) -> str:
    parts = []
    for number, (label, entry) in enumerate(report.named()):
        if entry.latents:
            found = entry.latents["latents"]
            caption = (
                f"{label}: quality for each way to choose z; KL and activity of its {found['dimensions']} dimensions. "
                f"KL is {found['kl']:.3g} nats a frame, and {found['active_units']} units are active."
            )
            parts.append(inline_svg.figure(plots.latents_chart(entry.latents), f"latents-{number}", caption))
    return "".join(parts)


def _settings(report: Report) -> str:
    parts = []
    keys = _differing(report)
    if len(report.entries) > 1:
        tables = [to_table(run.config) for run in report.runs]
        rows = [[key, *(_value(table, key) for table in tables)] for key in keys]
        parts.append(
            inline_svg.table(["setting", *(run.name for run in report.runs)], rows, "What differs")
            if rows
            else "<p>These runs have the same settings.</p>"
        )
    for run in report.runs:
        text = escape(to_toml(run.config))
        parts.append(f"<details><summary>All settings of {escape(run.name)}</summary><pre>{text}</pre></details>")
    return "".join(parts)


def _protocol(report: Report) -> str:
    records = {label: entry.record for label, entry in report.named() if entry.record}
    if not records:
        return ""
    keys = list(dict.fromkeys(key for record in records.values() for key in record["protocol"]))
    same, rows = [], []
    for key in keys:
        values = [_text(record["protocol"].get(key)) for record in records.values()]
        if len(set(values)) == 1:
            same.append([key.replace("_", " "), values[0]])
        else:
            rows.append([key.replace("_", " "), *values])
    head = ["the same for all" if len(records) > 1 else "part", "value"]
    parts = [f'<div class="words">{inline_svg.table(head, same)}</div>']
    if rows:
        parts.append(f'<div class="words">{inline_svg.table(["different", *records], rows)}</div>')
    return "".join(parts)


def _origin(report: Report) -> str:
    commands = [(run.name, _command(entry.info)) for run, entry in zip(report.runs, report.entries, strict=True)]
    lines = "\n".join(f"# {name}\n{command}" for name, command in commands if command)
    versions = [
        [run.name, *(str(entry.info.get(key, "-")) for key in ("vidcvae", "torch", "python"))]
        for run, entry in zip(report.runs, report.entries, strict=True)
    ]
    here = inline_svg.table(["this page was made with", ""], [list(item) for item in report.environment.items()])
    return (
        f"<pre>{escape(lines)}\n# this page\n{escape(report.command)}</pre>"
        + inline_svg.table(["run", "vidcvae", "torch", "python"], versions, "Trained with")
        + f'<div class="words">{here}</div>'
    )


# --- words ------------------------------------------------------------------------------------------


def _differing(report: Report) -> list[str]:
    """Settings in which the runs differ; not where the data lie."""
    runs = report.runs
    keys = dict.fromkeys(key for run in runs for key in differences(runs[0].config, run.config))
    return [key for key in keys if key != "data.path"]


def _command(info: dict[str, Any]) -> str:
    """What was typed; however Python was started, the program is called vidcvae."""
    words = info.get("command")
    return typed(*map(str, words[1:])) if isinstance(words, list) and words else ""


def _value(table: dict[str, dict[str, Any]], key: str) -> str:
    section, _, name = key.partition(".")
    return _text(table[section].get(name, "-"))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value[:12])) + (f" .. ({len(value)} in all)" if len(value) > 12 else "")
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _baseline(record: Record) -> float:
    key = "last_past" if record["protocol"]["past"] > 1 else "first"
    return float(record[f"baseline_copy_{key}_psnr"])


def _given(past: int) -> str:
    return "one given frame" if past == 1 else f"{past} given frames"


def _list(words: Iterable[str]) -> str:
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last
