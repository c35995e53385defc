"""A clip filmed by hand, imported: its background stands still, and the joints stay where the person is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidcvae.own_clips import footage, importing
from vidcvae.own_clips.keypoint_checks import Keypoints

from .test_steady import HEIGHT, WIDTH, filmed, picture, walk, with_person

COUNT, SIZE = 40, (72, 128)


@lru_cache(1)
def shaken() -> tuple[footage.Pictures, Keypoints]:
    """Somebody who walks before a wall, filmed by a hand; the joints are in pixels of the pictures."""
    seen = [with_person(filmed(motion), 40 + 10 * k) for k, motion in enumerate(walk(COUNT, 0.5))]
    images = [picture(grey) for grey, _ in seen]

    def each() -> Iterator[tuple[float, Image.Image]]:
        yield from ((k / 10, image) for k, image in enumerate(images))

    joints = {k: [joints] for k, (_, joints) in enumerate(seen)}
    clip = footage.Pictures(Path("clip.mp4"), footage.Again(each), COUNT, 10)
    return clip, Keypoints(Path("k.json"), "COCO-17", joints, first=0, frames=COUNT)


def made(hold: bool) -> tuple[importing.Plan, np.ndarray]:
    clip, joints = shaken()
    settings = importing.Settings(SIZE, "stretch", "none", val_fraction=0, steady=hold)
    plan = importing.plan(importing.scan(clip), joints, settings)
    data, _ = importing.read(plan)
    return plan, data.split("train")[0].frames.astype(float).mean(1)


@pytest.mark.parametrize("hold", [True, False])
def test_the_background_stands_still_unless_it_is_left_as_it_is(hold: bool) -> None:
    """The upper right corner of the frames, where nobody walks: by how much its grey levels vary over time."""
    plan, frames = made(hold)
    varies = frames[:, 4:14, 80:120].std(0).mean()
    assert (varies < 2) == hold and (varies > 8) == (not hold)
    assert any("this motion is removed" in note for note in plan.notes) == hold


def test_joints_and_window_follow_the_pictures() -> None:
    """The first of the five joints is at the middle of the shirt, 40 right and 15 below its corner: the shirt of the
    steady picture begins there, where scipy finds it by the wall that it hides."""
    plan, _ = made(True)
    width, height = plan.scan.picture
    assert 0.9 * WIDTH < width < WIDTH and 0.9 * HEIGHT < height < HEIGHT
    wall = np.median([np.asarray(image.convert("L"), float) for _, image in plan.scan.pictures.images], axis=0)
    for k, (_, image) in enumerate(plan.scan.pictures.images):
        if k % 13 == 5:
            hides = np.abs(np.asarray(image.convert("L"), float) - wall) > 12
            rows, columns = np.nonzero(hides[60:320])
            middle = (np.quantile(columns, 0.05) + np.quantile(columns, 0.95)) / 2
            assert abs(plan.joints[k, 0, 0] - middle) < 4 and abs(plan.joints[k, 0, 1] - (60 + rows.min() + 15)) < 8
