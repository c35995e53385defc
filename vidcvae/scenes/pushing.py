"""A synthetic robot that pushes objects over a table, with actions, positions and frames that match exactly.

The view is from above. A two-link arm reaches in over the far edge, and its gripper moves by a random action at every
step. Lowered, it pushes balls, boxes and cups; lifted, it passes over them. The next frame follows from the action,
but not from the frames alone, since each action is drawn independently.

N clips, T frames, M objects. Positions are in units of the workspace, -1..1 (z: 0 on the table, 1 lifted); pixels
have their origin in the upper left corner, y pointing down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vidcvae.data import dataset_toml, images, trajectories
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.data.room import check_bytes
from vidcvae.errors import UsageError
from vidcvae.progress import Progress, unreported
from vidcvae.rng import seed_of
from vidcvae.storage import durable

Array = np.ndarray

SIZE = 64
FPS = 10.0
SPLITS = ("train", "validate", "test")
CENTRE, SCALE = np.array([32.0, 36.0]), 22.0  # of the workspace, in pixels
STEP = (0.12, 0.42)  # shortest and longest move in the plane, in workspace units
TOUCHES_BELOW = 0.4  # the gripper pushes below this height
GRIPPER_RADIUS = 4.5
OBJECTS = 4
SUBSTEPS = 8  # of the motion between two frames, so that the gripper jumps over nothing
TABLE = (4.0, 60.0)  # pixels: the range that objects stay in

PALETTE = np.array(
    [(206, 52, 46), (240, 186, 44), (66, 148, 72), (52, 104, 190), (232, 124, 40), (134, 74, 158), (236, 236, 228)]
)


@dataclass(frozen=True)
class Scene:
    """One clip before it is drawn. action (T, 4): dx, dy, dz, gripper opening; position (T, 3);
    opening (T,) in the frame; objects at the start (M, 2) in pixels, radii (M,), shapes (M,), colours (M, 3)."""

    action: Array
    position: Array
    opening: Array
    objects: Array
    radii: Array
    shapes: Array
    colours: Array
    light: float


def push(clips: int, val: int, test: int, frames: int, seed: int, progress: Progress = unreported) -> VideoData:
    """A dataset of ``clips`` training, ``val`` validation and ``test`` clips of ``frames`` frames, 64x64.

    Row t of "action" causes frame t+1, and row t of "position" shows in frame t:
    position[t+1] = position[t] + action[t, :3]. The same arguments give the same bytes.
    Raises ``UsageError`` for a count below 0, no clips at all, or fewer than 2 frames, and ``VidcvaeError`` if the
    images do not fit into memory.
    """
    counts = (clips, val, test)
    if min(counts) < 0 or not any(counts) or frames < 2:
        raise UsageError(
            f"cannot make {clips} + {val} + {test} clips of {frames} frames.",
            "Ask for at least one clip, of at least 2 frames.",
        )
    count = sum(counts) * frames
    hint = "Ask for fewer clips, or shorter ones: --clips 256 --frames 30"
    check_bytes(f"{count:,} drawn images of {SIZE}x{SIZE}", count * 3 * SIZE * SIZE, hint)
    table = draw_table(np.random.default_rng(seed_of(seed, "push/table")))
    splits: dict[str, tuple[Sequence, ...]] = {}
    for split, count in zip(SPLITS, counts, strict=True):
        drawn: list[Sequence] = []
        for sequence in _clips(split, count, frames, seed, table):
            drawn.append(sequence)
            progress(sum(map(len, splits.values())) + len(drawn), sum(counts))
        splits[split] = tuple(drawn)
    return VideoData(f"synthetic-push-{seed}", "push", FPS, Path(f"synthetic-push-{seed}"), splits)


def write_folder(data: VideoData, out: Path, progress: Progress = unreported) -> None:
    """Write ``data`` in the course's layout (see ``trajectories``), with a dataset.toml.

    Raises ``UsageError`` unless ``out`` is new or an empty folder.
    """
    durable.must_be_new(out)
    sequences = [(out / split / sequence.name, sequence) for split, found in data.splits.items() for sequence in found]
    files = [file for folder, sequence in sequences for file in _files_of(folder, sequence)]
    for done, _ in enumerate(durable.write_many(files), 1):
        progress(done, len(files))
    facts = dataset_toml.Facts(data.name, data.fps, size=(SIZE, SIZE))
    durable.write_text(out / dataset_toml.FILE, dataset_toml.to_toml(facts))


def _files_of(folder: Path, sequence: Sequence) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    for track, file in trajectories.TRACK_FILES.items():
        lines = (",".join(f"{value:.9g}" for value in row) for row in sequence.tracks[track])
        yield folder / file, "".join(f"{line}\n" for line in lines).encode
    for t, frame in enumerate(sequence.frames):
        yield folder / f"{t}.png", partial(images.encode_png, frame)


def _clips(split: str, count: int, frames: int, seed: int, table: Array) -> Iterator[Sequence]:
    if not count:
        return
    scenes = [draw_scene(np.random.default_rng(seed_of(seed, f"push/{split}", k)), frames) for k in range(count)]
    objects, angles = simulate(
        np.stack([s.position for s in scenes]),
        np.stack([s.objects for s in scenes]),
        np.stack([s.radii for s in scenes]),
    )
    for k, scene in enumerate(scenes):
        frames_seen = render(scene, objects[k], angles[k], table)
        tracks = {"action": scene.action, "position": scene.position}
        yield Sequence(f"traj_0_to_{count - 1}/{k}", frames_seen, tracks)


# --- motion ----------------------------------------------------------------------------------------


def draw_scene(rng: np.random.Generator, frames: int) -> Scene:
    """Random actions with the positions that follow from them, and objects on the table."""
    action = np.zeros((frames, 4), np.float32)
    position = np.zeros((frames, 3), np.float32)
    position[0] = (*rng.uniform(-0.9, 0.9, 2), 0)
    for t in range(frames):
        here = position[t]
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*STEP)
        move = length * np.array([np.cos(angle), np.sin(angle)])
        move = np.where(np.abs(here[:2] + move) > 1, -move, move)  # turn back at the edge of the workspace
        height = rng.uniform(0.6, 1.0) if rng.random() < 0.25 else rng.uniform(0.0, 0.2)
        action[t] = (*move, height - here[2], rng.uniform(0, 1))
        if t + 1 < frames:
            position[t + 1] = here + action[t, :3]
    opening = np.concatenate([[0.5], action[:-1, 3]]).astype(np.float32)

    cells = rng.choice(9, OBJECTS, replace=False)  # of a 3 x 3 grid over the table, so that no two objects overlap
    grid = np.stack([cells % 3, cells // 3], axis=1)
    objects = 14 + 18 * grid + rng.uniform(-4, 4, (OBJECTS, 2))
    return Scene(
        action,
        position,
        opening,
        objects.astype(np.float32),
        rng.uniform(3.8, 5.6, OBJECTS).astype(np.float32),
        rng.integers(0, 3, OBJECTS),
        PALETTE[rng.choice(len(PALETTE), OBJECTS, replace=False)].astype(np.float32),
        float(rng.uniform(0.92, 1.06)),
    )


def simulate(position: Array, objects: Array, radii: Array) -> tuple[Array, Array]:
    """Quasi-static pushing: an object that is touched moves out of the way and turns.

    position (N, T, 3), objects (N, M, 2) at the start, radii (N, M) -> objects (N, T, M, 2), angles (N, T, M).
    """
    clips, frames, _ = position.shape
    place, angle = objects.astype(np.float64), np.zeros(radii.shape)
    places, angles = np.zeros((clips, frames, *objects.shape[1:])), np.zeros((clips, frames, radii.shape[1]))
    hand = to_pixels(position)
    for t in range(frames):
        before = max(t - 1, 0)
        for part in np.arange(1, SUBSTEPS + 1) / SUBSTEPS:
            here = hand[:, before] + part * (hand[:, t] - hand[:, before])
            height = position[:, before, 2] + part * (position[:, t, 2] - position[:, before, 2])
            place, turn = _push_away(place, here, radii, (height < TOUCHES_BELOW)[:, None])
            angle = angle + turn
            place = np.clip(_push_apart(place, radii), TABLE[0] + radii[..., None], TABLE[1] - radii[..., None])
        places[:, t], angles[:, t] = place, angle
    return places.astype(np.float32), angles.astype(np.float32)


def _push_away(place: Array, hand: Array, radii: Array, touching: Array) -> tuple[Array, Array]:
    """Move objects (N, M, 2) out of the gripper's circle; also returns the angle that each turns by (N, M)."""
    away = place - hand[:, None]
    distance = np.maximum(np.linalg.norm(away, axis=-1), 1e-3)
    overlap = np.where(touching, np.maximum(GRIPPER_RADIUS + radii - distance, 0), 0)
    normal = away / distance[..., None]
    # a push turns an object the more, the farther it misses the centre
    turn = overlap / radii * 0.5 * np.sign(normal[..., 0] * normal[..., 1])
    return place + normal * overlap[..., None], turn


def _push_apart(place: Array, radii: Array) -> Array:
    """Move overlapping objects (N, M, 2) apart, each by half of the overlap."""
    away = place[:, :, None] - place[:, None]  # (N, M, M, 2)
    distance = np.maximum(np.linalg.norm(away, axis=-1), 1e-3)
    overlap = np.maximum(radii[:, :, None] + radii[:, None] - distance, 0) * (1 - np.eye(place.shape[1]))
    moved: Array = place + (away / distance[..., None] * overlap[..., None] / 2).sum(axis=2)
    return moved


def to_pixels(position: Array) -> Array:
    """(..., 3) in the workspace -> (..., 2) pixels."""
    pixels: Array = CENTRE + SCALE * position[..., :2]
    return pixels


# --- drawing ---------------------------------------------------------------------------------------

Y, X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5
SHOULDER = np.array([32.0, -18.0])
LINK = 46.0  # length of both arm links
DARK, RED, STEEL = (40, 40, 46), (150, 34, 38), (188, 192, 198)


class Canvas:
    """T frames that are painted together. Each stroke is a signed distance (T, 64, 64), negative inside."""

    def __init__(self, background: Array, frames: int) -> None:
        self.pixels = np.repeat(background[None], frames, axis=0)  # (T, 64, 64, 3)

    def paint(self, distance: Array, colour: object, opacity: float = 1.0, softness: float = 1.0) -> None:
        """``colour`` is (3,) or (T, 64, 64, 3); the edge fades over ``softness`` pixels."""
        cover = (np.clip(0.5 - distance / softness, 0, 1) * opacity)[..., None].astype(np.float32)
        self.pixels += cover * (np.asarray(colour, np.float32) - self.pixels)


def render(scene: Scene, objects: Array, angles: Array, table: Array) -> Array:
    """Frames (T, 3, 64, 64) of objects at (T, M, 2), turned by (T, M)."""
    canvas = Canvas(table, len(objects))
    for m, radius in enumerate(scene.radii):
        _draw_object(canvas, int(scene.shapes[m]), scene.colours[m], radius, objects[:, m], angles[:, m])
    _draw_arm(canvas, scene)
    lit = np.clip(canvas.pixels * scene.light, 0, 255)
    return np.ascontiguousarray(np.rint(lit).astype(np.uint8).transpose(0, 3, 1, 2))


def draw_table(rng: np.random.Generator) -> Array:
    """A table of planks with grain, a dark rim, and light from the upper left: (64, 64, 3)."""
    plank = np.repeat(rng.uniform(-9, 9, 6), 11)[:SIZE]
    grain = rng.normal(0, 1, (SIZE, SIZE + 24)).cumsum(axis=1)
    grain = (grain[:, 24:] - grain[:, :-24]) * 1.1  # averaged along the plank
    seams = np.where(np.arange(SIZE) % 11 == 0, -16, 0)
    shade = (plank + seams)[:, None] + grain + (32 - X) * 0.25 + (32 - Y) * 0.2
    wood = np.array([206, 178, 138]) + shade[..., None] * np.array([1, 0.95, 0.8])
    edge = np.minimum.reduce([X, Y, SIZE - X, SIZE - Y])
    return np.where(edge[..., None] < 2, np.array([92, 66, 48]), wood).astype(np.float32)


def _draw_object(canvas: Canvas, shape: int, colour: Array, radius: float, place: Array, angle: Array) -> None:
    x, y = X - place[:, 0, None, None], Y - place[:, 1, None, None]  # (T, 64, 64)
    canvas.paint(np.hypot(x - 1.5, y - 1.5) - radius, (40, 30, 20), opacity=0.4, softness=3)
    c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    across, along = np.abs(c * x + s * y), np.abs(c * y - s * x)
    if shape == 0:  # a ball, lit from the upper left
        brightness = np.clip(1 - (x + y) / radius * 0.28, 0.5, 1.4)[..., None]
        canvas.paint(np.hypot(x, y) - radius, np.clip(colour * brightness, 0, 255))
        canvas.paint(np.hypot(x + radius * 0.4, y + radius * 0.4) - 0.9, (255, 255, 250), opacity=0.8)
    elif shape == 1:  # a box with a lid
        side = radius * 0.88
        canvas.paint(np.maximum(across, along) - side, colour * 0.72)
        canvas.paint(np.maximum(across, along) - side + 1.3, colour)
        canvas.paint(np.maximum(across - side + 1.3, along - 0.5), colour * 0.6)
    else:  # a cup, seen from above
        canvas.paint(np.hypot(x, y) - radius, colour)
        canvas.paint(np.hypot(x, y) - radius + 1.6, colour * 0.45)
        canvas.paint(np.hypot(x - 0.8, y - 0.8) - radius + 2.6, colour * 0.62)


def _draw_arm(canvas: Canvas, scene: Scene) -> None:
    hand = to_pixels(scene.position)
    height = scene.position[:, 2, None, None]
    reach = hand - SHOULDER
    distance = np.linalg.norm(reach, axis=1, keepdims=True)
    ahead = reach / distance
    aside = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    elbow = SHOULDER + reach / 2 - aside * np.sqrt(LINK**2 - (distance / 2) ** 2)
    forearm = (hand - elbow) / np.linalg.norm(hand - elbow, axis=1, keepdims=True)
    wrist = hand - 7 * forearm

    drop = 2 + 5 * height  # the higher the arm is, the farther away its shadow falls
    for start, end, thick in ((SHOULDER[None], elbow, 4.0), (elbow, hand, 4.5)):
        shadow = _capsule(start, end, drop) - thick
        canvas.paint(shadow, (40, 30, 20), opacity=0.35, softness=4)
    grown = 1 + 0.25 * height
    canvas.paint(_capsule(SHOULDER[None], elbow) - 4.2, DARK)
    canvas.paint(_capsule(elbow, wrist) - 3.4 * grown, DARK)
    canvas.paint(_capsule(elbow + 10 * forearm, wrist - 7 * forearm) - 2.0 * grown, RED)
    canvas.paint(_capsule(elbow, elbow) - 5.0, RED)

    side = np.stack([-forearm[:, 1], forearm[:, 0]], axis=1)
    half = (1.4 + 2.2 * scene.opening)[:, None]  # half of the gap between the fingers
    canvas.paint(_capsule(wrist - 4.2 * side, wrist + 4.2 * side) - 2.0 * grown, STEEL)
    for sign in (-1, 1):
        base, tip = wrist + sign * half * side, hand + sign * half * side + 2 * forearm
        canvas.paint(_capsule(base, tip) - 1.5 * grown, DARK)
        canvas.paint(_capsule(base, tip) - 0.7 * grown, STEEL)


def _capsule(start: Array, end: Array, shift: Array | float = 0.0) -> Array:
    """Distance (T, 64, 64) to the line from ``start`` to ``end``, (T or 1, 2) each, moved right and down."""
    x, y = X - shift - start[:, 0, None, None], Y - shift - start[:, 1, None, None]
    dx, dy = ((end - start)[:, i, None, None] for i in (0, 1))
    along = np.clip((x * dx + y * dy) / np.maximum(dx**2 + dy**2, 1e-6), 0, 1)
    distance: Array = np.hypot(x - along * dx, y - along * dy)
    return distance
