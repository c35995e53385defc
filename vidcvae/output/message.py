"""The messages between the live page and its session: requests, which are validated strictly, and answers."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from vidcvae import reading
from vidcvae.config.schema import DrawnLatent
from vidcvae.errors import UsageError
from vidcvae.own_clips import skeleton

FAR, MOST_ACTION = 4096.0, 1000.0  # the largest coordinate of a joint, in pixels, and the largest action


@dataclass(frozen=True)
class FrameRequest:
    """A request for a frame, with one of pose: joints (25, 2); play: a row of the sequence; and action: (A,)."""

    pose: np.ndarray | None = None
    play: int | None = None
    action: np.ndarray | None = None
    latent: DrawnLatent = "zero"
    scale: float = 1.0
    seed: int = 0
    beside: bool = False
    nearest: bool = False
    truth: bool = False


def frame_request(table: Mapping[str, Any], dance: bool, actions: int) -> FrameRequest:
    """The request in a message. Raises ``UsageError`` that says what is wrong with it."""
    rest = dict(table)
    request = FrameRequest(
        latent=one_of(rest.pop("latent", "zero"), "latent", get_args(DrawnLatent)),
        scale=number(rest.pop("scale", 1.0), "scale", 0, 10),
        seed=whole(rest.pop("seed", 0), "seed", 1 << 53),
        beside=flag(rest.pop("beside", False), "beside"),
        nearest=flag(rest.pop("nearest", False), "nearest"),
        truth=flag(rest.pop("truth", False), "truth"),
    )
    if len(rest) != 1:
        raise UsageError("a frame needs exactly one of pose, play and action, and no unknown name.")
    ((name, value),) = rest.items()
    if name == "play":
        return replace(request, play=whole(value, "play", 1 << 31))
    if name == "pose" and dance:
        return replace(request, pose=_joints(value))
    if name == "action" and not dance:
        return replace(request, action=_vector(value, "action", actions, MOST_ACTION))
    raise UsageError(f"this model does not take {reading.shown(name)}.")


def table(body: bytes) -> dict[str, Any]:
    """The JSON object in a message. Raises ``UsageError`` if it is something else."""
    try:
        message = reading.parse_json(body)
    except ValueError as error:
        raise UsageError(f"this message is not JSON: {error}.") from None
    if not isinstance(message, dict):
        raise UsageError("a message must be a JSON object.")
    return message


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


def one_of(value: Any, name: str, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise UsageError(f"{name} must be {' or '.join(known)}.")
    return value


def _joints(value: Any) -> np.ndarray:
    """25 points [x, y], or null for a missing joint, as (25, 2); NaN if missing."""
    if not isinstance(value, list) or len(value) != len(skeleton.JOINTS):
        raise UsageError(f"pose must be a list of {len(skeleton.JOINTS)} points [x, y] or null.")
    points = [(np.nan, np.nan) if point is None else _vector(point, "a point of the pose", 2, FAR) for point in value]
    return np.array(points, float)


def _vector(value: Any, name: str, length: int, most: float) -> np.ndarray:
    if not isinstance(value, list) or len(value) != length:
        raise UsageError(f"{name} must be a list of {length} numbers.")
    return np.array([number(x, name, -most, most) for x in value])


def pack(about: Mapping[str, Any], pictures: Items[np.ndarray] = ()) -> bytes:
    """An answer: the length of the JSON in four bytes, little-endian, the JSON, and the pictures as RGB bytes.

    pictures: uint8 (3, H, W) each.
    """
    text = json.dumps(about, allow_nan=False).encode()
    rows = [np.ascontiguousarray(picture.transpose(1, 2, 0)).tobytes() for picture in pictures]
    return b"".join([struct.pack("<I", len(text)), text, *rows])
