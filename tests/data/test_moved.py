"""Clips mirrored and moved, cut on the CPU and gathered in one memory: the same by either way, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidcvae.data import clips
from vidcvae.data.clips import Place, Sequence
from vidcvae.data.resident import Resident


def sequence(name: str, length: int) -> Sequence:
    random = np.random.default_rng(length)
    frames, poses = random.integers(0, 256, (2, length, 3, 8, 16), dtype=np.uint8)
    rows = {"action": random.random((length, 4), np.float32), "position": random.random((length, 3), np.float32)}
    return Sequence(name, frames, {"pose": poses, **rows})


SEQUENCES = (sequence("a", 9), sequence("b", 12))
PLACES = [Place(1, 3, 11, 1, 0, 0), Place(0, 0, 0, 0, 2, -5), Place(1, 8, 4, 1, -3, 4), Place(0, 5, 8)]


def test_a_clip_is_mirrored_and_then_moved_with_its_pose_and_anchor() -> None:
    batch = clips.cut(SEQUENCES, [Place(1, 3, 11, 1, 2, -5)], 2, "pose", "source")
    want = np.flip(SEQUENCES[1].frames[3:5], -1)
    want = np.pad(want, [(0, 0), (0, 0), (2, 0), (0, 5)], mode="edge")[:, :, :8, 5:]
    assert np.array_equal(batch.frames[0].numpy(), want)
    pose = np.flip(SEQUENCES[1].tracks["pose"][11], -1)
    pose = np.pad(pose, [(0, 0), (2, 0), (0, 5)], constant_values=255)[:, :8, 5:]
    assert batch.anchor is not None
    assert np.array_equal(batch.anchor[1][0].numpy(), pose), "what comes into a pose image is paper"


@pytest.mark.parametrize("kind", ["pose", "actions+positions", "none"])
@pytest.mark.parametrize("pairing", ["source", "target"])
def test_gathering_from_one_memory_is_cutting(kind: str, pairing: str) -> None:
    places = PLACES if kind == "pose" else [p._replace(anchor=-1) for p in PLACES]
    want = clips.cut(SEQUENCES, places, 4, kind, pairing) if kind == "pose" else None
    if want is None:  # actions are not moved with the images
        places = [p._replace(mirrored=0, down=0, right=0) for p in places]
        want = clips.cut(SEQUENCES, places, 4, kind, pairing)
    got = Resident(SEQUENCES, kind, pairing, "cpu").cut(places, 4)
    assert torch.equal(got.frames, want.frames)
    assert (got.condition is None) == (want.condition is None)
    if got.condition is not None and want.condition is not None:
        assert torch.equal(got.condition, want.condition)
    assert (got.anchor is None) == (want.anchor is None)
    if got.anchor is not None and want.anchor is not None:
        assert all(torch.equal(a, b) for a, b in zip(got.anchor, want.anchor, strict=True))


def test_a_pose_track_that_is_too_short_moves_nothing_of_the_next_sequence() -> None:
    short = Sequence("short", SEQUENCES[0].frames, {"pose": SEQUENCES[0].tracks["pose"][:6]})
    long = Sequence("long", SEQUENCES[1].frames, {"pose": SEQUENCES[1].tracks["pose"]})
    places = [Place(0, 2, 5), Place(1, 3, 11), Place(1, 8, 0)]
    want = clips.cut((short, long), places, 4, "pose", "source")
    got = Resident((short, long), "pose", "source", "cpu").cut(places, 4)
    assert want.condition is not None and got.condition is not None and want.anchor and got.anchor
    assert torch.equal(got.frames, want.frames) and torch.equal(got.condition, want.condition)
    assert torch.equal(got.condition[1], torch.from_numpy(long.tracks["pose"][3:7]))
    assert all(torch.equal(a, b) for a, b in zip(got.anchor, want.anchor, strict=True))
