"""A synthetic dance: a drawn figure in a room, and its skeleton, as ``VideoData`` of any length.

Apart from a slow drift of the light, a frame is a function of pose and room. A model that follows the pose can
therefore score well, and a model that repeats its first frame cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vidcvae import rng
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.data.room import SMALLER, check_bytes
from vidcvae.errors import UsageError
from vidcvae.own_clips import skeleton
from vidcvae.progress import Progress, unreported
from vidcvae.scenes import dancer

NAME = "synthetic-dance"
FPS = 25.0

_SHIRT, _TROUSERS, _SKIN, _HAIR, _SHOES = (56, 72, 100), (22, 24, 30), (196, 148, 122), (30, 24, 22), (12, 12, 14)
# (start, end, radius at the start and at the end in metres, colour)
_BODY = (
    ("right_hip", "right_knee", 0.088, 0.064, _TROUSERS), ("right_knee", "right_ankle", 0.064, 0.048, _TROUSERS),
    ("left_hip", "left_knee", 0.088, 0.064, _TROUSERS), ("left_knee", "left_ankle", 0.064, 0.048, _TROUSERS),
    ("right_heel", "right_big_toe", 0.045, 0.036, _SHOES), ("left_heel", "left_big_toe", 0.045, 0.036, _SHOES),
    ("right_shoulder", "right_elbow", 0.062, 0.050, _SHIRT), ("right_elbow", "right_wrist", 0.048, 0.040, _SHIRT),
    ("left_shoulder", "left_elbow", 0.062, 0.050, _SHIRT), ("left_elbow", "left_wrist", 0.048, 0.040, _SHIRT),
    ("right_wrist", "right_hand", 0.036, 0.038, _SKIN), ("left_wrist", "left_hand", 0.036, 0.038, _SKIN),
)  # fmt: skip
# (left, top, right, bottom, colour), measured from the top middle of the wall, in heights of the picture
_PICTURES = ((-0.86, 0.16, -0.52, 0.44, (0.30, 0.42, 0.50)), (0.56, 0.12, 0.74, 0.46, (0.62, 0.40, 0.28)))
_FACE = ("right_eye", "left_eye", "right_ear", "left_ear", "nose")


def dance(
    frames: int,
    val: int,
    test: int,
    seed: int,
    size: tuple[int, int] = (32, 64),
    progress: Progress = unreported,
) -> VideoData:
    """``frames`` training frames in up to four stretches, ``val`` validation frames, ``test`` test sequences.

    A test sequence has its first frame and as many poses as val has frames. The same arguments give the same data.
    Raises ``UsageError`` for a count below 0, no training frame, or test sequences without poses.
    """
    if frames < 1 or min(val, test) < 0 or (test and not val):
        raise UsageError(
            f"cannot draw {frames} + {val} frames and {test} test sequences.",
            "Ask for at least 1 training frame, and with test sequences for validation frames too.",
        )
    stretches = max(1, min(4, frames // 64))
    edges = [round(i * frames / stretches) for i in range(stretches + 1)]
    plan = [("train", f"{a}-{b - 1}", b - a, b - a) for a, b in pairwise(edges)]
    plan += [("val", f"0-{val - 1}", val, val)] if val else []
    plan += [("test", str(k), 1, val) for k in range(test)]

    count = sum(shown + poses for *_, shown, poses in plan)
    check_bytes(f"{count:,} drawn images of {size[0]}x{size[1]}", count * 3 * size[0] * size[1], SMALLER)
    room = _room(size, seed)
    total, done = sum(poses for *_, poses in plan), 0
    splits: dict[str, tuple[Sequence, ...]] = {}
    for index, (split, name, shown, poses) in enumerate(plan):
        tracks = dancer.choreography(poses, seed, index)
        light = _light(poses, size, seed, index)
        images, labels = np.empty((shown, 3, *size), np.uint8), np.empty((poses, 3, *size), np.uint8)
        for t in range(poses):
            pose = {key: float(track[t]) for key, track in tracks.items()}
            body = dancer.joints(pose)
            labels[t] = skeleton.draw(_seen(body, pose, size), size)
            if t < shown:
                images[t] = _paint(body, pose, room, light[t], size)
            done += 1
            progress(done, total)
        splits[split] = (*splits.get(split, ()), Sequence(name, images, {"pose": labels}))
    return VideoData(NAME, "dance", FPS, Path(NAME), splits)


# --- camera ----------------------------------------------------------------------------------------


def _scale(pose: dict[str, float], size: tuple[int, int]) -> float:
    """Pixels a metre."""
    return 0.45 * size[0] * pose["depth"]


def _floor(pose: dict[str, float], size: tuple[int, int]) -> float:
    """The image row of the feet; a dancer who is nearer stands lower."""
    return size[0] * (0.86 + 0.3 * (pose["depth"] - 1))


def _project(point: np.ndarray, pose: dict[str, float], size: tuple[int, int]) -> tuple[float, float]:
    scale = _scale(pose, size)
    # points nearer to the viewer than the middle of the body appear a little lower
    return size[1] / 2 + float(point[0]) * scale, _floor(pose, size) - float(point[1] - 0.12 * point[2]) * scale


def _seen(body: dict[str, np.ndarray], pose: dict[str, float], size: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """The joints that a pose estimator would find: all except hidden parts of the face."""
    hidden = {name for name in _FACE if body[name][2] < body["head"][2] - 0.03}
    return {name: _project(body[name], pose, size) for name in skeleton.JOINTS if name not in hidden}


# --- painting --------------------------------------------------------------------------------------


def _paint(
    body: dict[str, np.ndarray], pose: dict[str, float], room: np.ndarray, light: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The dancer in the room as uint8 (3, H, W); room (H, W, 3) in 0..1, light (H, W, 1) multiplies it."""
    figure = np.asarray(_figure(body, pose, size), np.float32) / 255
    colour, cover = figure[..., :3], figure[..., 3:]
    floor = _floor(pose, size)

    rows = np.arange(size[0])
    mirrored = np.clip(np.rint(2 * floor - rows).astype(int), 0, size[0] - 1)
    depth_below = (rows - floor) / size[0]
    strength = np.where(depth_below > 0, 0.38 * np.exp(-np.clip(depth_below, 0, None) / 0.12), 0)[:, None, None]
    reflected = _soften(cover[mirrored]) * strength

    middle = size[1] / 2 + pose["x"] * _scale(pose, size)
    columns = np.arange(size[1])
    across = ((columns + 0.5 - middle) / (0.34 * _scale(pose, size)))[None, :, None]
    along = ((rows + 0.5 - floor) / (0.07 * _scale(pose, size)))[:, None, None]
    shadow = 0.45 * np.exp(-(across**2) - along**2)

    scene = room * (1 - shadow)
    scene = scene * (1 - reflected) + colour[mirrored] * reflected
    scene = scene * (1 - cover) + colour * cover
    pixels: np.ndarray = np.rint(np.clip(scene * light, 0, 1) * 255).astype(np.uint8)
    return pixels.transpose(2, 0, 1)


def _soften(image: np.ndarray) -> np.ndarray:
    """Blur over neighbouring columns, because the floor is not a perfect mirror."""
    padded = np.pad(image, ((0, 0), (1, 1), (0, 0)), "edge")
    return np.asarray((padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4)


def _figure(body: dict[str, np.ndarray], pose: dict[str, float], size: tuple[int, int]) -> Image.Image:
    """The dancer on a transparent background (RGBA); limbs that are farther away are painted first."""
    factor = max(2, 256 // size[0])
    layer = Image.new("RGBA", (size[1] * factor, size[0] * factor), (*_SHIRT, 0))
    pen = ImageDraw.Draw(layer)
    metre = _scale(pose, size) * factor
    flat = {name: np.array(_project(point, pose, size)) * factor for name, point in body.items()}

    jobs: list[tuple[float, Callable[[], None]]] = []
    for start, end, r0, r1, colour in _BODY:
        depth = float(body[start][2] + body[end][2]) / 2
        jobs.append((depth, partial(_limb, pen, flat[start], flat[end], r0 * metre, r1 * metre, colour)))
    jobs.append((0.0, partial(_torso, pen, flat, metre)))
    jobs.append((0.02 + float(body["head"][2]), partial(_head, pen, body, flat, metre)))
    for _, paint in sorted(jobs, key=lambda job: job[0]):
        paint()
    return layer.reduce(factor)


def _limb(pen: ImageDraw.ImageDraw, a: np.ndarray, b: np.ndarray, r: float, q: float, colour: tuple[int, ...]) -> None:
    """A tapered limb that is lighter on the side of the lamps."""
    _capsule(pen, a, b, r, q, colour)
    shift = np.array([-0.28, -0.2])
    _capsule(pen, a + shift * r, b + shift * q, 0.55 * r, 0.55 * q, _lighter(colour, 1.28))


def _capsule(
    pen: ImageDraw.ImageDraw, a: np.ndarray, b: np.ndarray, r: float, q: float, colour: tuple[int, ...]
) -> None:
    (ax, ay), (bx, by) = a.tolist(), b.tolist()  # Python's floats give the same numbers in a fifth of the time
    length = float(np.hypot(bx - ax, by - ay))
    if length > 1e-6:
        x, y = -(by - ay) / length, (bx - ax) / length
        pen.polygon(
            [(ax + x * r, ay + y * r), (bx + x * q, by + y * q), (bx - x * q, by - y * q), (ax - x * r, ay - y * r)],
            fill=colour,
        )
    for x, y, radius in ((ax, ay, r), (bx, by, q)):
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _torso(pen: ImageDraw.ImageDraw, flat: dict[str, np.ndarray], metre: float) -> None:
    neck, hip = flat["neck"], flat["mid_hip"]
    chest = 0.75 * neck + 0.25 * hip
    for side in ("right", "left"):
        _capsule(
            pen, 0.25 * neck + 0.75 * flat[f"{side}_shoulder"], flat[f"{side}_hip"], 0.07 * metre, 0.085 * metre, _SHIRT
        )
    _capsule(pen, chest, 0.2 * neck + 0.8 * hip, 0.125 * metre, 0.11 * metre, _SHIRT)
    _capsule(pen, flat["right_hip"], flat["left_hip"], 0.088 * metre, 0.088 * metre, _TROUSERS)
    shift = np.array([-0.045, -0.01]) * metre
    _capsule(pen, chest + shift, 0.35 * neck + 0.65 * hip + shift, 0.06 * metre, 0.05 * metre, _lighter(_SHIRT, 1.22))
    _capsule(pen, neck, 0.5 * (neck + flat["head"]), 0.052 * metre, 0.048 * metre, _lighter(_SKIN, 0.8))


def _head(pen: ImageDraw.ImageDraw, body: dict[str, np.ndarray], flat: dict[str, np.ndarray], metre: float) -> None:
    """The hair, and on it the face in the direction of the nose; a dancer seen from behind has no face."""
    x, y = flat["head"]
    r = 0.105 * metre
    pen.ellipse([x - 0.92 * r, y - 1.15 * r, x + 0.92 * r, y + 1.1 * r], fill=_HAIR)
    facing = float(body["nose"][2] - body["head"][2]) / 0.09
    if facing > -0.35:
        fx, fy = np.array([x, y]) + (flat["nose"] - flat["head"]) * 0.45 + np.array([0, 0.16 * r])
        width = r * (0.5 + 0.28 * max(0.0, facing))
        pen.ellipse([fx - width, fy - 0.78 * r, fx + width, fy + 0.92 * r], fill=_SKIN)


def _lighter(colour: tuple[int, ...], by: float) -> tuple[int, ...]:
    return tuple(min(255, round(c * by + 4 * (by > 1))) for c in colour)


# --- room ------------------------------------------------------------------------------------------


def _room(size: tuple[int, int], seed: int) -> np.ndarray:
    """The empty room, float (H, W, 3) in 0..1: a lit plaster wall with two pictures, and a floor of planks."""
    factor = max(2, 512 // size[0])
    height, width = size[0] * factor, size[1] * factor
    y, x = (np.mgrid[0:height, 0:width] + 0.5) / height  # x runs to the picture's aspect
    x = x - width / height / 2
    edge = 0.70
    wall = 0.67 - 0.12 * y
    for lamp in (-0.72, 0.06, 0.80):  # cones of light below three lamps
        wall = wall + 0.34 * np.exp(-(((x - lamp) / (0.16 + 0.35 * y)) ** 2) - (y / 0.45) ** 2)
    wall = wall + 0.035 * _noise((height, width), seed, 24) + 0.02 * _noise((height, width), seed + 1, 80)
    wall = wall - 0.10 * np.exp(-(((edge - y) / 0.05) ** 2))

    away = np.clip((y - 0.45) / (1 - 0.45), 1e-3, 1)
    plank = x / away * 7
    floor = 0.60 + 0.16 * (y - edge) / (1 - edge) + 0.045 * np.sin(np.floor(plank) * 2.4)
    floor = floor - 0.10 * (np.abs(plank - np.rint(plank)) < 0.05) + 0.03 * _noise((height, width), seed + 2, 40)
    floor = floor + 0.12 * np.exp(-(((x - 0.06) / 0.5) ** 2))

    grey = np.where(y < edge, wall, floor)
    grey = np.where(np.abs(y - edge) < 0.012, 0.36, grey)  # the skirting board
    tint = np.where(y[..., None] < edge, np.array([1.0, 0.985, 0.955]), np.array([1.04, 0.96, 0.86]))
    room = grey[..., None] * tint
    for left, top, right, bottom, colour in _PICTURES:
        frame = (x > left) & (x < right) & (y > top) & (y < bottom)
        inner = (x > left + 0.02) & (x < right - 0.02) & (y > top + 0.02) & (y < bottom - 0.02)
        room = np.where(frame[..., None], 0.22, room)
        room = np.where(inner[..., None], np.array(colour) * (0.85 + 0.5 * (bottom - y[..., None])), room)
    pixels = np.rint(np.clip(room, 0, 1) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).reduce(factor), np.float32) / 255


def _noise(size: tuple[int, int], seed: int, cells: int) -> np.ndarray:
    """Smooth noise in about -1..1, with ``cells`` random values across the height."""
    draw = np.random.default_rng(rng.seed_of(seed, "room", cells))
    coarse = Image.fromarray(draw.integers(0, 256, (cells, cells * size[1] // size[0]), np.uint8))
    fine = coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC).filter(ImageFilter.SMOOTH)
    return np.asarray(np.asarray(fine, np.float32) / 127.5 - 1)


def _light(frames: int, size: tuple[int, int], seed: int, index: int) -> np.ndarray:
    """Slow changes of the light, float (frames, 1, W, 1) around 1: of all lamps together, and of a spot that moves."""
    phase = np.random.default_rng(rng.seed_of(seed, "light", index)).uniform(0, 2 * np.pi, 2)
    t = np.arange(frames)[:, None, None, None] / FPS
    x = (np.arange(size[1]) + 0.5)[None, None, :, None] / size[1]
    wander = 0.5 + 0.4 * np.sin(2 * np.pi * t / 31 + phase[1])
    return np.asarray(1 + 0.02 * np.sin(2 * np.pi * t / 17 + phase[0]) + 0.03 * np.exp(-(((x - wander) / 0.25) ** 2)))
