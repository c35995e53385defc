"""Videos for a web page: all frames in one image, of which the page's script shows one at a time, and a row of stills.

Frames are uint8 (T, 3, H, W).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from vidcvae.output import templates
from vidcvae.output.video import spread

MOST_PIXELS = 16_000_000  # of one image, which phones can decode; longer videos show every second, third .. frame
LOSSLESS_PIXELS = 24_000_000  # of all videos together, about 20 MB; beyond it, compression is lossy
QUALITY = 90
STILLS = 8


@dataclass(frozen=True)
class Video:
    """frames: uint8 (T, 3, H, W); psnr: of the frames from ``past`` on, in dB, or empty."""

    name: str
    frames: np.ndarray
    psnr: Sequence[float] = ()


@dataclass(frozen=True)
class Scene:
    """Videos of one sequence, of the same length and size, shown side by side; ``past`` frames are given."""

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


def player(scene: Scene) -> Markup:
    """The player with its controls, which ``page/report.js`` runs, and a row of stills for each video."""
    length, _, height, width = scene.videos[0].frames.shape
    frames, times = scene.shown, spread(length, STILLS)
    count, wide = len(scene.videos), width > 1.5 * height
    columns = max(1, round(math.sqrt(len(frames) * height / width)))
    plan = {
        "fps": scene.fps / frames.step,
        "columns": columns,
        "start": len(frames) // 2,  # a run begins with true frames, which show nothing of the model
        "frames": list(frames),
        "videos": [
            {"name": v.name, "psnr": [_at(v.psnr, t - scene.past) for t in frames] if len(v.psnr) else None}
            for v in scene.videos
        ],
    }
    screens = [
        {
            "name": video.name,
            "sheet": _data_uri(_sheet(video.frames[:: frames.step], columns), scene.lossless),
            "stills": _data_uri(_sheet(video.frames[times], len(times)), lossless=True),
        }
        for video in scene.videos
    ]
    return templates.render(
        "player.html.j2",
        scene=scene,
        plan=plan,
        screens=screens,
        across=2 if wide and count == 4 else min(count, 3 if wide else 4),
        width=width,
        height=height,
        times=", ".join(map(str, times)),
        still_count=len(times),
        quality=QUALITY,
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


def _at(values: Sequence[float], index: int) -> float | None:
    return round(values[index], 2) if 0 <= index < len(values) else None
