"""Pose estimation for the pictures of a clip with MediaPipe's Pose Landmarker, an optional dependency."""

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
from vidcvae.own_clips.keypoint_checks import MAX_PEOPLE

MODEL = "pose_landmarker_full.task"
DEFAULT_PEOPLE = 4
_OTHERWISE = (
    "or run any estimator over every frame yourself and name what it wrote: --keypoints FILE, which is COCO JSON "
    "([{image_id, keypoints}, ..]), a folder of OpenPose JSON, or MediaPipe landmarks in JSON or CSV."
)

# (picture, seconds) -> people, each 33 landmarks of x, y (fractions of the picture), z and visibility
Estimator = Callable[[Image.Image, float], list[list[list[float]]]]
_DIGITS = 6  # of a fraction: a thousandth of a pixel, and short in a file


@contextlib.contextmanager
def estimator(model: Path | None, clip: Path, most: int = DEFAULT_PEOPLE) -> Iterator[Estimator]:
    """Yield a function that finds the people in an RGB picture; call it with the pictures of one clip in order.

    model: MediaPipe's model file; None looks for ``MODEL`` beside the clip and in ~/.cache/vidcvae.
    most: the largest number of people to find. MediaPipe tracks a single person, which is steadier and three times as
        fast; several people are detected again in each picture.
    Raises ``UsageError`` that says what to install or download if MediaPipe or its model is missing.
    """
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError:
        raise UsageError(
            "--estimate needs MediaPipe, which is not installed.", f"pip install 'vidcvae[pose]', {_OTHERWISE}"
        ) from None
    places = [model] if model else [clip.parent / MODEL, Path.home() / ".cache" / "vidcvae" / MODEL]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UsageError(
            f"--estimate needs MediaPipe's pose model, and there is no {' and no '.join(map(str, places))}.",
            f"Download {MODEL} from MediaPipe's Pose Landmarker page into the clip's folder, or name it: --pose-model "
            f"FILE; {_OTHERWISE}",
        )
    options = vision.PoseLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(found)),
        running_mode=vision.RunningMode.VIDEO,
        num_poses=most,
    )
    try:
        with _library_silent():
            landmarker: Any = vision.PoseLandmarker.create_from_options(options)
    except OSError as error:  # the model exists, so a system library is missing
        raise UsageError(
            f"MediaPipe cannot be started ({error}).", "On Debian and Ubuntu: apt-get install libegl1 libgles2"
        ) from None
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"{found} is not a pose model that MediaPipe can load ({error}).", f"Download {MODEL} again."
        ) from None
    last = -1

    def estimate(image: Image.Image, seconds: float) -> list[list[list[float]]]:
        nonlocal last
        last = max(last + 1, round(1000 * seconds))  # milliseconds; MediaPipe rejects equal time stamps
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.asarray(image))
        with _library_silent():
            people = landmarker.detect_for_video(picture, last).pose_landmarks
        return [
            [[round(v, _DIGITS) for v in (p.x, p.y, p.z, 1.0 if p.visibility is None else p.visibility)] for p in one]
            for one in people[:MAX_PEOPLE]
        ]

    try:
        yield estimate
    finally:
        with _library_silent():
            landmarker.close()  # otherwise it fails with a traceback when the interpreter exits


@contextlib.contextmanager
def _library_silent() -> Iterator[None]:
    """Redirect the process's standard error, to which MediaPipe's native code logs."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
