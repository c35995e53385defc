"""Clips of the synthetic dancer whose joints are known, and files of them as cameras and estimators write them."""

from __future__ import annotations

import csv
import json
import os
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from vidcvae.own_clips.skeleton import JOINTS
from vidcvae.scenes import dancer, dancing


class Clip(NamedTuple):
    """frames: uint8 (N, H, W, 3); joints: (N, 25, 2) in pixels, NaN where the face is turned away."""

    frames: np.ndarray
    joints: np.ndarray


def make_clip(count: int, size: tuple[int, int], seed: int = 0) -> Clip:
    tracks = dancer.choreography(count, seed)
    light = dancing._light(count, size, seed, 0)
    room = dancing._room(size, seed)
    frames, joints = [], np.full((count, 25, 2), np.nan)
    for t in range(count):
        pose = {key: float(track[t]) for key, track in tracks.items()}
        body = dancer.joints(pose)
        frames.append(dancing._paint(body, pose, room, light[t], size).transpose(1, 2, 0))
        for name, point in dancing._seen(body, pose, size).items():
            joints[t, JOINTS.index(name)] = point
    return Clip(np.stack(frames), joints)


def write_video(
    path: Path, frames: Sequence[np.ndarray], fps: float = 25, times: Sequence[float] = (), **options: Any
) -> None:
    """An H.264 file; ``times`` in seconds make the rate variable; options: turn (degrees), format, gop."""
    import av

    with av.open(str(path), "w", format=options.get("format", "mp4"), options=options.get("muxer", {})) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv444p"  # odd sides are allowed
        stream.options = {"crf": "12", "preset": "veryfast", "g": str(options.get("gop", 25)), "bf": "0"}
        if "turn" in options:
            stream.set_display_rotation(options["turn"])
        if len(times):
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if len(times):
                picture.pts, picture.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def write_images(folder: Path, frames: Sequence[np.ndarray], name: str = "{}.png", first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames, first):
        Image.fromarray(frame).save(folder / name.format(index))


COCO = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle")  # fmt: skip
FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
OPENPOSE18 = ("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
              "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
              "right_eye", "left_eye", "right_ear", "left_ear")  # fmt: skip
# names of OpenPose's poseParameters.cpp and of the README of Halpe-FullBody; what is not drawn is empty
BODY25B = (*COCO, "", "", *FEET)
HALPE26 = (*COCO, "", "", "", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel",
           "right_heel")  # fmt: skip
MEDIAPIPE = ("nose", "", "left_eye", "", "", "right_eye", "", "left_ear", "right_ear", "", "", "left_shoulder",
             "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "", "", "", "", "", "",
             "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel",
             "right_heel", "left_big_toe", "right_big_toe")  # fmt: skip


def triples(joints: np.ndarray, names: Sequence[str], score: float = 0.9) -> list[float]:
    """x, y, score of the joints ``names``; 0, 0, 0 for those not found, as estimators write it."""
    flat: list[float] = []
    for name in names:
        x, y = joints[JOINTS.index(name)] if name in JOINTS else (np.nan, np.nan)
        flat += [float(x), float(y), score] if np.isfinite(x) else [0.0, 0.0, 0.0]
    return flat


def coco(joints: np.ndarray, first: int = 0, names: Sequence[str] = COCO, length: int = 0) -> list[dict[str, Any]]:
    """Results: frames with nobody in them are left out."""
    found = []
    for index, frame in enumerate(joints, first):
        if np.isfinite(frame).any():
            points = triples(frame, names)
            points += [1.0, 1.0, 0.9] * ((length or len(names)) - len(names))
            found.append({"image_id": index, "category_id": 1, "keypoints": points, "score": 0.9})
    return found


def write_coco(path: Path, joints: np.ndarray, **options: Any) -> Path:
    path.write_text(json.dumps(coco(joints, **options)))
    return path


def write_openpose(folder: Path, joints: np.ndarray, names: Sequence[str] = JOINTS, first: int = 0) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(joints, first):
        people = [{"person_id": [-1], "pose_keypoints_2d": triples(frame, names)}] if np.isfinite(frame).any() else []
        text = json.dumps({"version": 1.3, "people": people})
        (folder / f"clip_{index:012d}_keypoints.json").write_text(text)
    return folder


def landmarks(joints: np.ndarray, size: tuple[int, int]) -> list[dict[str, float]]:
    """MediaPipe's 33 landmarks in fractions of the picture ``size`` (height, width)."""
    rows = np.array(triples(joints, MEDIAPIPE)).reshape(-1, 3)
    return [{"x": x / size[1], "y": y / size[0], "z": 0.0, "visibility": v} for x, y, v in rows.tolist()]


def write_mediapipe(path: Path, joints: np.ndarray, size: tuple[int, int]) -> Path:
    """CSV in the wide form, or JSON, by the name of ``path``."""
    people = [landmarks(frame, size) if np.isfinite(frame).any() else [] for frame in joints]
    if path.suffix == ".json":
        path.write_text(json.dumps([{"frame": t, "landmarks": person} for t, person in enumerate(people)]))
        return path
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", *(f"{axis}{k}" for k in range(33) for axis in ("x", "y", "z", "v"))])
        for t, person in enumerate(people):
            cells = [str(p[key]) for p in person for key in ("x", "y", "z", "visibility")]
            writer.writerow([str(t), *(cells or [""] * 132)])
    return path


@dataclass
class StandIn:
    """What a stand-in for MediaPipe was shown, at which milliseconds, for how many people, and how often it closed."""

    seen: list[np.ndarray] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    most: int = 0
    closed: int = 0


def install_mediapipe(monkeypatch: pytest.MonkeyPatch, people: list[list[dict[str, float]]]) -> StandIn:
    """Put a package with the names of MediaPipe's in its place; it finds ``people``, one in each image.

    Like MediaPipe's its native code writes to the process's standard error, and the same time twice is an error.
    """
    record, stand_in = types.SimpleNamespace, StandIn()

    class Landmarker:
        @classmethod
        def create_from_options(cls, options: Any) -> Landmarker:
            assert Path(options.base_options.model_asset_path).read_bytes() == b"model"
            assert options.running_mode == "video"
            stand_in.most = options.num_poses
            os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
            return cls()

        def detect_for_video(self, image: Any, milliseconds: int) -> Any:
            os.write(2, b"W0000 landmark_projection_calculator.cc:81\n")
            if stand_in.times and milliseconds <= stand_in.times[-1]:
                raise ValueError("Input timestamp must be monotonically increasing.")
            stand_in.times.append(milliseconds)
            stand_in.seen.append(image.data)
            points = [record(**point) for point in people[len(stand_in.seen) - 1]]
            return record(pose_landmarks=[points])

        def close(self) -> None:
            os.write(2, b"closing\n")
            stand_in.closed += 1

    vision = record(PoseLandmarkerOptions=record, RunningMode=record(VIDEO="video"), PoseLandmarker=Landmarker)
    tasks = types.ModuleType("mediapipe.tasks.python")
    tasks.BaseOptions, tasks.vision = record, vision  # type: ignore[attr-defined]
    package = types.ModuleType("mediapipe")
    package.Image, package.ImageFormat = record, record(SRGB=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mediapipe", package)
    monkeypatch.setitem(sys.modules, "mediapipe.tasks", types.ModuleType("mediapipe.tasks"))
    monkeypatch.setitem(sys.modules, "mediapipe.tasks.python", tasks)
    return stand_in
