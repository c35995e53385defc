"""The synthetic dancer's choreography and anatomy: from a seed to joints in space.

Lengths are metres; x points to the right of the picture, y up, z towards the viewer. At yaw 0 the dancer faces
the viewer, so that the dancer's right side is on the picture's left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vidcvae import rng

Tracks = dict[str, np.ndarray]
Vector = np.ndarray

# The numbers that define a pose. Angles are in radians; all are 0 if the dancer stands upright with hanging arms.
PARAMETERS = (
    "x", "depth", "yaw", "lean", "roll", "crouch", "spread", "gait", "phase",
    "right_raise", "right_swing", "right_flex", "left_raise", "left_swing", "left_flex",
)  # fmt: skip

REACH = 1.6  # metres: how far the dancer walks from the middle
_SPEED = 0.06  # metres per frame
_STRIDE = 1.3  # metres: two steps
_UP = np.array([0.0, 1.0, 0.0])


# --- choreography ----------------------------------------------------------------------------------


def choreography(frames: int, seed: int, *index: int) -> Tracks:
    """Every parameter for ``frames`` frames: walks to and fro, and in between moves in a random order."""
    draw = np.random.default_rng(rng.seed_of(seed, "dancer", *index))
    tracks: Tracks = {name: np.zeros(frames) for name in PARAMETERS}
    here = {"x": draw.uniform(-REACH, REACH), "depth": 1.0, "yaw": 0.0, "phase": 0.0}
    at = 0
    while at < frames:
        for move in draw.permutation(len(_MOVES)):
            at += _walk(draw, here, tracks, at)
            at += _MOVES[int(move)](draw, here, tracks, at)
    return {name: _smooth(track) for name, track in tracks.items()}


def _walk(draw: np.random.Generator, here: dict[str, float], tracks: Tracks, at: int) -> int:
    """Walk across the room, to the side with more space."""
    way = float(draw.uniform(0.3, 1.0)) * REACH * (-1 if here["x"] >= 0 else 1) - here["x"]
    length = max(12, round(abs(way) / _SPEED))
    steps = abs(way) / _STRIDE * 2 * np.pi
    here["yaw"] = _nearest(here["yaw"], 1.4 if way > 0 else -1.4)
    u = _ramp(length)
    _fill(tracks, at, x=here["x"] + way * u, depth=here["depth"], yaw=here["yaw"], gait=0.55,
          phase=here["phase"] + steps * u)  # fmt: skip
    here.update(x=here["x"] + way, phase=here["phase"] + steps)
    return length


def _stand(here: dict[str, float], tracks: Tracks, at: int, facing: float, **moves: np.ndarray | float) -> None:
    here["yaw"] = _nearest(here["yaw"], facing)
    _fill(tracks, at, **{"x": here["x"], "depth": here["depth"], "yaw": here["yaw"], "phase": here["phase"], **moves})


def _wave(draw: np.random.Generator, here: dict[str, float], tracks: Tracks, at: int) -> int:
    t = np.arange(length := 42)
    side, other = draw.permutation(["right", "left"])
    swinging = 0.9 + 0.6 * np.sin(2 * np.pi * t / 14)
    both = draw.random() < 0.4
    moves: dict[str, np.ndarray | float] = {f"{side}_raise": 1.9, f"{side}_flex": swinging}
    moves |= {f"{other}_raise": 1.9, f"{other}_flex": swinging[::-1]} if both else {}
    _stand(here, tracks, at, draw.uniform(-0.3, 0.3), **moves)
    return length


def _turn(draw: np.random.Generator, here: dict[str, float], tracks: Tracks, at: int) -> int:
    way = draw.choice([-1, 1])
    length = 44
    yaw = _nearest(here["yaw"], 0.0) + way * 2 * np.pi * _ramp(length)
    _stand(here, tracks, at, 0.0, yaw=yaw, right_raise=1.2, left_raise=1.2, spread=0.12)
    here["yaw"] = float(yaw[-1])
    return length


def _bend(draw: np.random.Generator, here: dict[str, float], tracks: Tracks, at: int) -> int:
    t = np.arange(length := 44)
    down = np.sin(np.pi * t / length) ** 2
    _stand(here, tracks, at, draw.choice([-1, 1]) * draw.uniform(0.8, 1.4), lean=1.25 * down, crouch=0.25 * down,
           right_swing=0.9 * down, left_swing=0.9 * down)  # fmt: skip
    return length


def _sway(draw: np.random.Generator, here: dict[str, float], tracks: Tracks, at: int) -> int:
    t = np.arange(length := 48)
    side = np.sin(2 * np.pi * t / 24)
    _stand(
        here, tracks, at, 0.0, roll=0.35 * side, spread=0.2, right_raise=1.2 - 1.1 * side, left_raise=1.2 + 1.1 * side
    )
    return length


def _jacks(draw: np.random.Generator, here: dict[str, float], tracks: Tracks, at: int) -> int:
    t = np.arange(length := 54)
    beat = 0.5 - 0.5 * np.cos(2 * np.pi * t / 18)
    _stand(
        here,
        tracks,
        at,
        draw.uniform(-0.2, 0.2),
        spread=0.42 * beat,
        right_raise=0.2 + 2.3 * beat,
        left_raise=0.2 + 2.3 * beat,
    )
    return length


def _squat(draw: np.random.Generator, here: dict[str, float], tracks: Tracks, at: int) -> int:
    t = np.arange(length := 40)
    down = np.sin(np.pi * t / 20) ** 2
    _stand(here, tracks, at, draw.uniform(-0.9, 0.9), crouch=down, lean=0.45 * down, spread=0.18,
           right_swing=1.5 * down, left_swing=1.5 * down)  # fmt: skip
    return length


def _approach(draw: np.random.Generator, here: dict[str, float], tracks: Tracks, at: int) -> int:
    """Walk towards the viewer, or away."""
    length = 36
    target = draw.uniform(1.08, 1.2) if here["depth"] < 1.05 else draw.uniform(0.8, 0.95)
    _stand(here, tracks, at, 0.0 if target > here["depth"] else np.pi, gait=0.4,
           depth=here["depth"] + (target - here["depth"]) * _ramp(length),
           phase=here["phase"] + 2.5 * np.pi * _ramp(length))  # fmt: skip
    here.update(depth=float(target), phase=here["phase"] + 2.5 * np.pi)
    return length


_Move = Callable[[np.random.Generator, dict[str, float], Tracks, int], int]
_MOVES: tuple[_Move, ...] = (_wave, _turn, _bend, _sway, _jacks, _squat, _approach)


def _fill(tracks: Tracks, at: int, **values: np.ndarray | float) -> None:
    """Set parameters from frame ``at`` on: arrays for as many frames as they have, numbers until the next call."""
    for name, track in tracks.items():
        value = values.get(name, 0.0)
        if isinstance(value, np.ndarray):
            room = min(len(value), max(0, len(track) - at))
            track[at : at + room] = value[:room]
        else:
            track[at:] = value


def _ramp(length: int) -> np.ndarray:
    """From 0 to 1, with a slow start and end."""
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.arange(length) / max(1, length - 1)))


def _nearest(angle: float, wanted: float) -> float:
    """``wanted``, plus the whole turns that bring it nearest to ``angle``, so that the dancer does not spin."""
    return float(wanted + 2 * np.pi * round((angle - wanted) / (2 * np.pi)))


def _smooth(track: np.ndarray, radius: int = 5) -> np.ndarray:
    """Let moves flow into each other: a Hann-weighted running mean over ``2 radius + 1`` frames."""
    bell = np.hanning(2 * radius + 3)[1:-1]
    return np.convolve(np.pad(track, radius, "edge"), bell / bell.sum(), "valid")


# --- anatomy ---------------------------------------------------------------------------------------


def joints(pose: dict[str, float]) -> dict[str, Vector]:
    """The joints of BODY_25, the head's middle and the hands, as (x, y, z). The lower foot is on the floor, y = 0."""
    yaw = pose["yaw"]
    forward = np.array([np.sin(yaw), 0, np.cos(yaw)])
    right = np.array([-np.cos(yaw), 0, np.sin(yaw)])
    spine = _unit(_UP * np.cos(pose["lean"]) + forward * np.sin(pose["lean"]) + right * np.sin(pose["roll"]))
    ahead = _unit(forward - spine * (forward @ spine))  # the direction of the chest

    j = {"mid_hip": np.zeros(3)}
    j["neck"] = 0.5 * spine
    j["head"] = j["neck"] + 0.2 * spine + 0.02 * ahead
    j["nose"] = j["head"] + 0.09 * ahead - 0.01 * spine
    for side, out, stride in (("right", right, np.sin(pose["phase"])), ("left", -right, -np.sin(pose["phase"]))):
        j[f"{side}_eye"] = j["head"] + 0.07 * ahead + 0.035 * out + 0.03 * spine
        j[f"{side}_ear"] = j["head"] + 0.075 * out + 0.01 * spine
        swing = pose[f"{side}_swing"] - 0.9 * pose["gait"] * stride
        flex = pose[f"{side}_flex"] + 0.15 + 0.5 * pose["gait"]
        _arm(j, side, spine, ahead, out, pose[f"{side}_raise"] + 0.12, swing, flex)
        _leg(j, side, forward, out, pose, stride)
    floor = min(p[1] for p in j.values())
    return {name: p + np.array([pose["x"], -floor, 0.0]) for name, p in j.items()}


def _arm(
    j: dict[str, Vector], side: str, spine: Vector, ahead: Vector, out: Vector, raised: float, swing: float, flex: float
) -> None:
    shoulder = j["neck"] + 0.19 * out - 0.04 * spine
    upper = _unit(np.sin(raised) * out - np.cos(raised) * spine * np.cos(swing) + np.sin(swing) * ahead)
    # a hanging arm bends forward, a raised arm bends up and inward
    lifted = float(np.clip((raised - 0.6) / 0.7, 0, 1))
    towards = (1 - lifted) * ahead + lifted * (spine - 0.4 * out)
    across = _unit(towards - upper * (towards @ upper))
    lower = np.cos(flex) * upper + np.sin(flex) * across
    j[f"{side}_shoulder"] = shoulder
    j[f"{side}_elbow"] = shoulder + 0.28 * upper
    j[f"{side}_wrist"] = j[f"{side}_elbow"] + 0.25 * lower
    j[f"{side}_hand"] = j[f"{side}_wrist"] + 0.09 * lower


def _leg(j: dict[str, Vector], side: str, forward: Vector, out: Vector, pose: dict[str, float], stride: float) -> None:
    lift = max(0.0, np.cos(pose["phase"]) * (1 if side == "right" else -1))  # the leg that swings forward is bent
    thigh = pose["gait"] * stride * 0.9 + 1.05 * pose["crouch"] + 0.3 * pose["gait"] * lift
    knee = 2.0 * pose["crouch"] + pose["gait"] * (0.25 + 1.5 * lift)
    aside = np.tan(pose["spread"] + 0.03) * out
    hip = 0.1 * out
    j[f"{side}_hip"] = hip
    j[f"{side}_knee"] = hip + 0.43 * _unit(np.sin(thigh) * forward - np.cos(thigh) * _UP + aside)
    shin = thigh - knee
    ankle = j[f"{side}_knee"] + 0.42 * _unit(np.sin(shin) * forward - np.cos(shin) * _UP + aside)
    j[f"{side}_ankle"] = ankle
    sole = ankle - 0.07 * _UP
    j[f"{side}_heel"] = sole - 0.05 * forward
    j[f"{side}_big_toe"] = sole + 0.18 * forward + 0.02 * out
    j[f"{side}_small_toe"] = sole + 0.15 * forward + 0.08 * out


def _unit(vector: Vector) -> Vector:
    return np.asarray(vector / max(1e-6, float(np.linalg.norm(vector))))
