"""A pose estimator run over the pictures of a clip: MediaPipe's Pose Landmarker, where it is installed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidcvae.errors import UsageError
from vidcvae.own_clips.keypoint_checks import MAX_PEOPLE, Person, as_person
from vidcvae.own_clips.landmarks import JOINT_ROWS

MODEL = "pose_landmarker_full.task"
DEFAULT_PEOPLE = 4
_OTHERWISE = (
    "or run any estimator over every frame yourself and name what it wrote: --keypoints FILE, which is COCO JSON "
    "([{image_id, keypoints}, ..]), a folder of OpenPose JSON, or MediaPipe landmarks in JSON or CSV."
)

Estimator = Callable[[Image.Image, float], list[Person]]  # a picture and its second to joints in the picture's pixels


@contextlib.contextmanager
def estimator(model: Path | None, min_score: float, most: int = DEFAULT_PEOPLE) -> Iterator[Estimator]:
    """A function from an RGB picture and its time to the people in it, for the pictures of one clip in their order.

    most: how many people are looked for. MediaPipe follows one person from picture to picture, which is steadier and
        three times as fast; several it looks for in each picture anew.
    Raises ``UsageError`` that says what to install or to fetch where MediaPipe or its model is missing.
    """
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError:
        raise UsageError(
            "--estimate needs MediaPipe, which is not installed.", f"pip install 'vidcvae[pose]', {_OTHERWISE}"
        ) from None
    if model is None or not model.is_file():
        missing = f"there is no {model}" if model else "--pose-model is missing"
        raise UsageError(
            f"--estimate needs MediaPipe's pose model, and {missing}.",
            f"Download {MODEL} from MediaPipe's Pose Landmarker page and name it: --pose-model {MODEL}; {_OTHERWISE}",
        )
    options = vision.PoseLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)),
        running_mode=vision.RunningMode.VIDEO,
        num_poses=most,
    )
    try:
        with _library_silent():
            landmarker: Any = vision.PoseLandmarker.create_from_options(options)
    except OSError as error:  # the model is there: it is a system library that is missing
        raise UsageError(
            f"MediaPipe cannot be started ({error}).", "On Debian and Ubuntu: apt-get install libegl1 libgles2"
        ) from None
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"{model} is no pose model that MediaPipe can load ({error}).", f"Download {MODEL} again."
        ) from None
    last = -1

    def estimate(image: Image.Image, seconds: float) -> list[Person]:
        nonlocal last
        last = max(last + 1, round(1000 * seconds))  # milliseconds; the same one twice is an error to MediaPipe
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.asarray(image))
        with _library_silent():
            found = landmarker.detect_for_video(picture, last).pose_landmarks
        size = np.array([image.width, image.height, 1.0])
        rows = ([[p.x, p.y, 1.0 if p.visibility is None else p.visibility] for p in one] for one in found[:MAX_PEOPLE])
        people = (as_person(np.array(each) * size, JOINT_ROWS, min_score) for each in rows)
        return [person for person in people if person is not None]

    try:
        yield estimate
    finally:
        with _library_silent():
            landmarker.close()  # left to the interpreter's end, it fails there with a traceback


@contextlib.contextmanager
def _library_silent() -> Iterator[None]:
    """MediaPipe's native code logs to the process's standard error, whatever Python is told: hold it shut meanwhile."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
