"""The contents of a dataset: counts, sizes, faults, and how hard it is to predict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from vidcvae.data import packed, pose_folder, room, trajectories
from vidcvae.data.clips import Sequence, Stream
from vidcvae.data.dataset import check_packed_size, layout, open_stream, own_size, resize_note
from vidcvae.errors import DataError, VidcvaeError, counted
from vidcvae.evaluation import metrics, nearest_pose
from vidcvae.output.table import Table
from vidcvae.progress import Progress, unreported

Report = dict[str, Any]

_STATIC_DB = 30.0
_SHOWN_FAULTS = 40
_PAST, _FUTURE = 2, 10  # frames of the usual score of robot pushing
_AT_ONCE = 256  # frames measured at once
_ROWS, _COLUMNS = 3, 6  # sequences of a split, and frames of a sequence, in the contact sheet


@dataclass(frozen=True)
class Inspection:
    """report: the results, ready for JSON. rows: (title, some frames of a sequence) for ``contact_sheet``."""

    report: Report
    rows: list[tuple[str, Sequence]]

    @property
    def shown(self) -> Counter[str]:
        """The number of sequences of each split in the contact sheet."""
        return Counter(title.partition(" ")[0] for title, _ in self.rows)


def inspect(path: Path, size: tuple[int, int] | None = None, progress: Progress = unreported) -> Inspection:
    """Read every file of the dataset at ``path``, or check every checksum, and measure its splits.

    size: the frame size (height, width) at which folders are measured; by default the dataset's own.
    The report's "faults" list what makes the data unusable; it contains measures only if there are none. A PSNR
    is the mean over frames of each frame's PSNR, in dB, for the range 0..1.
    Raises ``DataError`` if ``path`` is not a dataset.
    """
    kind = layout(path)
    report: Report = {"path": str(path), "layout": kind, "faults": [], "notes": [], "splits": {}}
    stream: Stream | None = None
    if kind == "packed":
        data = packed.open_packed(path, verify=False)
        check_packed_size(data, size or data.size, "without --size")
        report["faults"] = packed.damage(path)
        pairs = ((split, sequence) for split, sequences in data.splits.items() for sequence in sequences)
        stream = Stream(data.name, data.kind, data.fps, path, pairs)
        size = data.size
    else:
        size = size or own_size(path)
        if kind == "dance":
            _scan_dance(report, path, progress)
        else:
            report["faults"] = [error.message for error in trajectories.faults(path, progress)]
        if not report["faults"]:
            stream = open_stream(path, size, progress)
            room.check(stream, max(stream.counts))
            report["notes"] += filter(None, [resize_note(stream, "--size ")])
    report["size"] = list(size)
    if stream is None or report["faults"]:
        return Inspection(report, [])
    report |= {"name": stream.name, "kind": stream.kind, "fps": stream.fps}
    rows = _measure(report, stream)
    _note_static(report)
    return Inspection(report, rows)


def _scan_dance(report: Report, path: Path, progress: Progress) -> None:
    scan = pose_folder.scan(path, progress)
    report["faults"] = [str(problem) for problem in scan.faults]
    report["notes"] = [str(problem) for problem in scan.notes]
    for (split, side), sizes in scan.sizes.items():
        files = report["splits"].setdefault(split, {}).setdefault("files", {})
        files[side] = {
            "count": sizes.total(),
            "sizes": {f"{height}x{width}": count for (width, height), count in sizes.items()},
            "modes": dict(scan.modes[split, side]),
        }


# --- measures --------------------------------------------------------------------------------------


class _Totals:
    """Sums over the frames of a split."""

    def __init__(self) -> None:
        self.future = 0
        self.rows: dict[str, int] = {}
        self.mean = self.motion = self.first = self.previous = self.last_past = 0.0
        self.lengths: list[int] = []
        self.ranges: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, sequence: Sequence) -> None:
        self.lengths.append(len(sequence))
        for name, rows in sequence.tracks.items():
            self.rows[name] = self.rows.get(name, 0) + len(rows)
            if rows.dtype != np.uint8 and len(rows):
                low, high = self.ranges.get(name, (rows[0], rows[0]))
                self.ranges[name] = np.minimum(low, rows.min(0)), np.maximum(high, rows.max(0))
        first = before = _unit(sequence.frames[:1])
        self.mean += float(first.mean())
        for frames in _pieces(sequence.frames[1:]):
            earlier = np.concatenate([before, frames[:-1]])
            self.mean += float(frames.mean((1, 2, 3)).sum())
            self.motion += float(np.abs(frames - earlier).mean((1, 2, 3)).sum())
            self.first += float(_psnr(frames, first).sum())
            self.previous += float(_psnr(frames, earlier).sum())
            before = frames[-1:]
        future = _unit(sequence.frames[_PAST : _PAST + _FUTURE])
        self.future += len(future)
        self.last_past += float(_psnr(future, _unit(sequence.frames[_PAST - 1 : _PAST])).sum()) if len(future) else 0.0

    def report(self, kind: str) -> Report:
        def mean(total: float, count: int) -> float | None:
            return total / count if count else None

        frames, sequences = sum(self.lengths), len(self.lengths)
        predicted = frames - sequences  # all but each sequence's first
        measured: Report = {
            "sequences": sequences,
            "frames": frames,
            "lengths": [min(self.lengths), max(self.lengths)],
            "rows": self.rows,
            "mean": mean(self.mean, frames),
            "motion": mean(self.motion, predicted),
            "copy_first_psnr": mean(self.first, predicted),
            "copy_previous_psnr": mean(self.previous, predicted),
        }
        if kind == "push":
            measured["copy_last_past"] = {"psnr": mean(self.last_past, self.future), "past": _PAST, "future": _FUTURE}
            measured["ranges"] = {name: [low.tolist(), high.tolist()] for name, (low, high) in self.ranges.items()}
        return measured


def _measure(report: Report, stream: Stream) -> list[tuple[str, Sequence]]:
    totals: dict[str, _Totals] = {}
    stretches: dict[str, list[Report]] = {}
    rows: list[tuple[str, Sequence]] = []
    searched = _room_to_search(report, stream)
    for split, sequence in stream.sequences:
        if searched is not None:
            searched.setdefault(split, []).append(sequence)
        total = totals.setdefault(split, _Totals())
        total.add(sequence)
        if stream.kind == "dance":
            stretches.setdefault(split, []).append(
                {"name": sequence.name, "frames": len(sequence), "poses": sequence.condition_length,
                 "unknown_poses": sorted(sequence.unknown_poses)}
            )  # fmt: skip
        if len(total.lengths) <= _ROWS:
            rows.append((f"{split} {sequence.name}", _pictures(sequence)))
    for split, total in totals.items():
        summary = report["splits"].setdefault(split, {})
        summary |= total.report(stream.kind)
        if split in stretches:
            summary["stretches"] = stretches[split]
            summary["nearest_pose_psnr"] = _nearest_pose_psnr(searched or {}, split)
    return rows


def _room_to_search(report: Report, stream: Stream) -> dict[str, list[Sequence]] | None:
    """A store of all sequences for the nearest-pose search; None if they do not fit into memory, or have no poses."""
    if stream.kind != "dance":
        return None
    try:
        room.check(stream, sum(stream.counts))
    except VidcvaeError as error:
        report["notes"].append(f"the nearest poses were not searched: {error.message}")
        return None
    return {}


def _nearest_pose_psnr(splits: dict[str, list[Sequence]], split: str) -> float | None:
    """Mean PSNR of the training frames with the nearest poses, over all frames except each sequence's first.

    None for the training split itself, and if there is nothing to search or to compare."""
    search = nearest_pose.NearestPose(splits.get("train", ()))
    if split == "train" or not len(search):
        return None
    scores = []
    for sequence in splits.get(split, ()):
        frames, poses = sequence.frames[1 : sequence.known], sequence.tracks["pose"][1 : sequence.known]
        numbers = search.find(poses)
        for begin in range(0, len(frames), _AT_ONCE):
            nearest = np.stack([search.frame(number) for number in numbers[begin : begin + _AT_ONCE]])
            scores.append(_psnr(_unit(frames[begin : begin + _AT_ONCE]), _unit(nearest)))
    return float(np.concatenate(scores).mean()) if scores else None


def _note_static(report: Report) -> None:
    """Note splits that hardly move: every model scores well on them, as even a repeated first frame does."""
    for split, summary in report["splits"].items():
        score = summary["copy_first_psnr"]
        if score is not None and score > _STATIC_DB:
            report["notes"].append(f"{split} hardly moves: repeating the first frame scores {score:.2f} dB.")


def _pieces(frames: np.ndarray) -> Iterator[np.ndarray]:
    """Some frames at a time, as float 0..1: a whole training video may not fit into memory."""
    for start in range(0, len(frames), _AT_ONCE):
        yield _unit(frames[start : start + _AT_ONCE])


def _unit(frames: np.ndarray) -> np.ndarray:
    return np.asarray(frames, np.float32) / 255


def _psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """PSNR of each frame, in dB."""
    return metrics.psnr(torch.from_numpy(a), torch.from_numpy(b)).double().numpy()


# --- contact sheet ---------------------------------------------------------------------------------


def _pictures(sequence: Sequence) -> Sequence:
    """A few frames of the sequence, evenly spaced, with their poses."""
    poses = sequence.tracks.get("pose", sequence.frames)
    picks = np.linspace(0, len(poses) - 1, _COLUMNS).astype(int)
    shown = sequence.frames[picks[picks < len(sequence)]]
    tracks = {"pose": poses[picks].copy()} if "pose" in sequence.tracks else {}
    return Sequence(sequence.name, shown.copy(), tracks)


def contact_sheet(rows: list[tuple[str, Sequence]]) -> np.ndarray:
    """One enlarged picture, uint8 (3, H, W): for each row its title, its frames, and below them their poses."""
    if not rows:
        raise DataError("there is nothing to show.")
    height, width = rows[0][1].frames.shape[-2:]
    zoom = max(1, round(192 / width))
    height, width, title, gap = height * zoom, width * zoom, 16, 4
    blocks = [title + gap + (height + gap) * (1 + bool(row.tracks)) for _, row in rows]
    sheet = Image.new("RGB", (gap + (width + gap) * _COLUMNS, sum(blocks)), (232, 232, 232))
    pen = ImageDraw.Draw(sheet)
    top = 0
    for (name, row), block in zip(rows, blocks, strict=True):
        pen.text((gap, top + 3), name, fill=(40, 40, 40))
        for line, pictures in enumerate((row.frames, *row.tracks.values())):
            for column, picture in enumerate(pictures):
                image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
                place = gap + column * (width + gap), top + title + gap + line * (height + gap)
                sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), place)
        top += block
    return np.asarray(sheet).transpose(2, 0, 1)


def summary(report: Report) -> Iterator[str | Table]:
    """The report in words and tables."""
    if "kind" in report:
        form = "packed" if report["layout"] == "packed" else "image files"
        height, width = report["size"]
        yield f"{report['name']}: {report['kind']}, {form}, {height}x{width}, {report['fps']:g} frames per second"
        yield _measures(report)
    if any("files" in split for split in report["splits"].values()):
        yield _files(report)
    yield from _lines(report)


def _measures(report: Report) -> Table:
    """The measures of each split."""
    push = report["kind"] == "push"
    columns = ["split", "sequences", "frames", "conditions", "mean", "motion"]
    columns += ["copy last"] if push else ["copy first", "copy previous", "nearest pose"]
    rows: list[list[object]] = []
    for split, summary in report["splits"].items():
        counts = "/".join(str(count) for count in sorted(set(summary["rows"].values())))
        conditions = f"{counts} {'+'.join(f'{name}s' for name in summary['rows'])}" if counts else "none"
        copied = ("copy_first_psnr", "copy_previous_psnr", "nearest_pose_psnr")
        scores = [summary["copy_last_past"]["psnr"]] if push else [summary[key] for key in copied]
        numbers = [_number(summary["mean"], 4), _number(summary["motion"], 4), *(_number(score, 2) for score in scores)]
        rows.append([split, summary["sequences"], summary["frames"], conditions, *numbers])
    repeated = "copy" if push else "copy, nearest pose"
    heading = f"\nmeasures (mean, motion: of values in 0..1; {repeated}: the PSNR in dB of repeating a frame)"
    return Table(heading, columns, rows)


def _files(report: Report) -> Table:
    """The number of image files in each folder, their sizes and their colour modes."""
    rows: list[list[object]] = []
    for split, summary in report["splits"].items():
        for side, files in summary["files"].items():
            kinds = [", ".join(f"{name} ({count})" for name, count in files[key].items()) for key in ("sizes", "modes")]
            rows.append([f"{split}_{side}", files["count"], *kinds])
    return Table("\nfiles", ("folder", "readable", "sizes", "modes"), rows)


def _lines(report: Report) -> list[str]:
    """The lines below the tables: ranges of actions, sequences, notes and faults."""
    shown = []
    for split, summary in report["splits"].items():
        for name, (low, high) in summary.get("ranges", {}).items():
            ranges = ", ".join(f"{a:.3g} to {b:.3g}" for a, b in zip(low, high, strict=True))
            shown.append(f"{split} {name}: {ranges}")
        if "stretches" in summary:
            spans = [
                f"{s['name']} ({counted(s['frames'], 'frame')}, {counted(s['poses'], 'pose')})"
                for s in summary["stretches"]
            ]
            more = f" and {len(spans) - 8} more" if len(spans) > 8 else ""
            shown.append(f"{split} sequences: {', '.join(spans[:8])}{more}")
    hidden = 0
    for kind in ("note", "fault"):
        shown += [f"{kind}: {text}" for text in report[f"{kind}s"][:_SHOWN_FAULTS]]
        hidden += len(report[f"{kind}s"][_SHOWN_FAULTS:])
    return [*shown, f"and {hidden} more; all of them: --json"] if hidden else shown


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
