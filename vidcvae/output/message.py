"""What the page and a session say to each other: messages, read strictly, and answers."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidcvae import reading
from vidcvae.errors import UsageError
from vidcvae.own_clips import skeleton

FAR, MOST_ACTION = 4096.0, 1000.0  # beyond which no joint, in pixels, and no action is


@dataclass(frozen=True)
class Wish:
    """What the page asks for with a frame. pose: joints (25, 2), or play: a row of the sequence, or action (A,)."""

    pose: np.ndarray | None = None
    play: int | None = None
    action: np.ndarray | None = None
    latent: str = "zero"
    scale: float = 1.0
    seed: int = 0
    beside: bool = False
    nearest: bool = False
    truth: bool = False


def wish(given: Mapping[str, Any], dance: bool, actions: int) -> Wish:
    """What a message asks for; raises ``UsageError`` that says what is wrong with it."""
    rest = dict(given)
    found = Wish(
        latent=one_of(rest.pop("latent", "zero"), "latent", ("zero", "prior")),
        scale=number(rest.pop("scale", 1.0), "scale", 0, 10),
        seed=whole(rest.pop("seed", 0), "seed", 1 << 53),
        beside=flag(rest.pop("beside", False), "beside"),
        nearest=flag(rest.pop("nearest", False), "nearest"),
        truth=flag(rest.pop("truth", False), "truth"),
    )
    if len(rest) != 1:
        raise UsageError("a frame needs one of pose, play and action, and nothing that is not known.")
    ((name, value),) = rest.items()
    if name == "play":
        return replace(found, play=whole(value, "play", 1 << 31))
    if name == "pose" and dance:
        return replace(found, pose=_joints(value))
    if name == "action" and not dance:
        return replace(found, action=_vector(value, "action", actions, MOST_ACTION))
    raise UsageError(f"this model takes no {reading.shown(name)}.")


def table(body: bytes) -> dict[str, Any]:
    try:
        found = reading.parse_json(body)
    except ValueError as error:
        raise UsageError(f"this message is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise UsageError("a message is a table of names and values.")
    return found


def number(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}.")
    return float(value)


def whole(value: Any, name: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise UsageError(f"{name} must be a whole number from 0 to {most}.")
    return value


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false.")
    return value


def one_of(value: Any, name: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError(f"{name} must be {' or '.join(known)}.")
    return str(value)


def _joints(value: Any) -> np.ndarray:
    """25 points [x, y], or null where there is none, as (25, 2)."""
    if not isinstance(value, list) or len(value) != len(skeleton.JOINTS):
        raise UsageError(f"pose must be a list of {len(skeleton.JOINTS)} points [x, y] or null.")
    points = [(np.nan, np.nan) if point is None else _vector(point, "a point of the pose", 2, FAR) for point in value]
    return np.array(points, float)


def _vector(value: Any, name: str, length: int, most: float) -> np.ndarray:
    if not isinstance(value, list) or len(value) != length:
        raise UsageError(f"{name} must be a list of {length} numbers.")
    return np.array([number(x, name, -most, most) for x in value])


def pack(about: Mapping[str, Any], pictures: Items[np.ndarray] = ()) -> bytes:
    """An answer: four bytes that say how long the JSON is, little end first, the JSON, and the pictures, uint8
    (3, H, W) each, as RGB bytes row by row."""
    text = json.dumps(about, allow_nan=False).encode()
    rows = [np.ascontiguousarray(picture.transpose(1, 2, 0)).tobytes() for picture in pictures]
    return b"".join([struct.pack("<I", len(text)), text, *rows])
