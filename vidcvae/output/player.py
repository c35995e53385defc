"""Videos for a web page: all frames in one image, which the page's script shows one at a time, and stills in a row.

Frames are uint8 (T, 3, H, W).
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from vidcvae.output.media import spread

MOST_PIXELS = 16_000_000  # of one image, which phones still decode; longer videos show every second, third .. frame
LOSSLESS_PIXELS = 24_000_000  # of all videos together, about 20 MB; more are compressed with loss
QUALITY = 90
STILLS = 8
KEYS = (
    '<span class="keys">Keys: <kbd>space</kbd> or <kbd>k</kbd> plays, <kbd>←</kbd> <kbd>→</kbd> step a frame, with '
    "<kbd>shift</kbd> 25 frames, <kbd>home</kbd> and <kbd>end</kbd> jump.</span>"
)
SPEEDS = (0.25, 0.5, 1, 2, 4)


@dataclass(frozen=True)
class Video:
    """frames: uint8 (T, 3, H, W); psnr: in dB of the frames from ``past`` on, or none."""

    name: str
    frames: np.ndarray
    psnr: Sequence[float] = ()


@dataclass(frozen=True)
class Scene:
    """Videos of one sequence, shown side by side: ``past`` frames are given, and all have the same length and size."""

    name: str
    fps: float
    past: int
    videos: tuple[Video, ...]

    @property
    def shown(self) -> range:
        """The frames that are shown."""
        length, _, height, width = self.videos[0].frames.shape
        return range(0, length, max(1, math.ceil(length * height * width / MOST_PIXELS)))

    @property
    def lossless(self) -> bool:
        _, _, height, width = self.videos[0].frames.shape
        return bool(len(self.videos) * len(self.shown) * height * width <= LOSSLESS_PIXELS)


def player(scene: Scene) -> str:
    """The player with its controls; ``page/report.js`` brings it to life."""
    frames = scene.shown
    _, _, height, width = scene.videos[0].frames.shape
    count, wide = len(scene.videos), width > 1.5 * height
    across = 2 if wide and count == 4 else min(count, 3 if wide else 4)
    columns = max(1, round(math.sqrt(len(frames) * height / width)))
    screens = "".join(_screen(video, frames, columns, scene.lossless) for video in scene.videos)
    middle = len(frames) // 2  # a model begins with the truth: only later is it seen what it can do
    plan = {
        "fps": scene.fps / frames.step,
        "columns": columns,
        "start": middle,
        "frames": list(frames),
        "videos": [
            {"name": v.name, "psnr": [_at(v.psnr, t - scene.past) for t in frames] if len(v.psnr) else None}
            for v in scene.videos
        ],
    }
    speeds = "".join(f'<option value="{s:g}"{" selected" if s == 1 else ""}>{s:g}x</option>' for s in SPEEDS)
    return (
        f'<div class="player" role="group" aria-label="Videos of {escape(scene.name)}, frame by frame" tabindex="0">'
        f'<div class="screens across-{across}">{screens}</div>'
        '<div class="controls"><button type="button" disabled>Play</button>'
        f'<input type="range" min="0" max="{len(frames) - 1}" value="{middle}" step="1" aria-label="Frame" disabled>'
        f'<span class="frame">frame {frames[middle]} of {frames[-1]}</span>'
        f"<label>Speed <select disabled>{speeds}</select></label></div>"
        f'<script type="application/json">{_json(plan)}</script></div>'
        "<noscript><p>The videos need JavaScript; the stills below do not.</p></noscript>"
        f'<p class="note">{escape(_limits(scene))} {KEYS}</p>'
    )


def stills(scene: Scene) -> str:
    """Evenly spread frames of every video, a row for each."""
    times = spread(len(scene.videos[0].frames), STILLS)
    told = ", ".join(map(str, times))
    rows = []
    for video in scene.videos:
        picture = np.concatenate([video.frames[t] for t in times], axis=2)  # (3, H, STILLS W)
        data = _data_uri(picture.transpose(1, 2, 0), lossless=True)
        alt = escape(f"{video.name}: frames {told}")
        height, width = picture.shape[1:]
        rows.append(
            f'<span>{escape(video.name)}</span><img alt="{alt}" width="{width}" height="{height}" src="{data}">'
        )
    caption = f"The same as stills: frames {told} of {escape(scene.name)}."
    return f'<figure><div class="stills">{"".join(rows)}</div><figcaption>{caption}</figcaption></figure>'


def _screen(video: Video, frames: range, columns: int, lossless: bool) -> str:
    _, _, height, width = video.frames.shape
    name = escape(video.name)
    data = _data_uri(_sheet(video.frames[frames.start : frames.stop : frames.step], columns), lossless)
    return (
        f'<figure class="screen"><canvas role="img" aria-label="{name}" width="{width}" height="{height}"></canvas>'
        f'<img alt="All frames of {name}, as the player takes them" src="{data}" hidden>'
        f"<figcaption>{name} <output></output></figcaption></figure>"
    )


def _sheet(frames: np.ndarray, columns: int) -> np.ndarray:
    """(T, 3, H, W) -> (rows H, columns W, 3), frame t in row t // columns; the rest of the last row is black."""
    count, _, height, width = frames.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, 3, height, width), np.uint8)
    sheet[:count] = frames
    grid = sheet.reshape(rows, columns, 3, height, width).transpose(0, 3, 1, 4, 2)  # rows, H, columns, W, 3
    return grid.reshape(rows * height, columns * width, 3)


def _data_uri(pixels: np.ndarray, lossless: bool) -> str:
    file = io.BytesIO()
    options = {"lossless": True} if lossless else {"quality": QUALITY}
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _limits(scene: Scene) -> str:
    step = scene.shown.step
    said = f"Every {step}th frame is shown, to keep this file small. " if step > 1 else ""
    return said + (
        "Pixels are as the model made them, rounded to 8 bits."
        if scene.lossless
        else f"So many videos are compressed with a little loss (WebP, quality {QUALITY}); scores are of the originals."
    )


def _at(values: Sequence[float], index: int) -> float | None:
    return round(values[index], 2) if 0 <= index < len(values) else None


def _json(value: object) -> str:
    """JSON that cannot end its script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
