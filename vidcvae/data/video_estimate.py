"""A pose estimator run over the pictures of a clip: MediaPipe's Pose Landmarker, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidcvae.data.keypoint_checks import MAX_PEOPLE, Person, as_person
from vidcvae.data.landmarks import JOINT_ROWS
from vidcvae.errors import UsageError

MODEL = "pose_landmarker_full.task"
_PEOPLE = 4  # looked for in each picture
_OTHERWISE = (
    "or run any estimator over every frame yourself and name what it wrote: --keypoints FILE, which is COCO JSON "
    "([{image_id, keypoints}, ..]), a folder of OpenPose JSON, or MediaPipe landmarks in JSON or CSV."
)


def estimator(model: Path | None, min_score: float) -> Callable[[Image.Image], list[Person]]:
    """A function from an RGB picture to the people in it, their joints in its pixels.

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
        running_mode=vision.RunningMode.IMAGE,
        num_poses=_PEOPLE,
    )
    try:
        landmarker: Any = vision.PoseLandmarker.create_from_options(options)
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(
            f"{model} is no pose model that MediaPipe can load ({error}).", f"Download {MODEL} again."
        ) from None

    def estimate(image: Image.Image) -> list[Person]:
        pixels = np.asarray(image)
        found = landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)).pose_landmarks
        size = np.array([image.width, image.height, 1.0])
        rows = ([[p.x, p.y, 1.0 if p.visibility is None else p.visibility] for p in one] for one in found[:MAX_PEOPLE])
        people = (as_person(np.array(each) * size, JOINT_ROWS, min_score) for each in rows)
        return [person for person in people if person is not None]

    return estimate
