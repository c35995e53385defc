"""The synthetic dance: the same each time, moving enough, and told by its poses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from vidcvae.data.clips import VideoData
from vidcvae.errors import UsageError
from vidcvae.scenes import dancer, dancing


@pytest.fixture(scope="module")
def data() -> VideoData:
    return dancing.dance(128, 160, 1, 0)


def test_splits_stretches_and_shapes(data: VideoData) -> None:
    assert [(s.name, len(s)) for s in data.split("train")] == [
        ("0-63", 64),
        ("64-127", 64),
    ]
    assert [(len(s), s.condition_length) for s in data.split("val")] == [(160, 160)]
    assert [(s.name, len(s), s.condition_length) for s in data.split("test")] == [("0", 1, 160)]
    assert data.size == (32, 64)


def test_the_same_arguments_give_the_same_bytes(data: VideoData) -> None:
    again = dancing.dance(128, 160, 1, 0)
    for split, sequences in data.splits.items():
        for a, b in zip(sequences, again.split(split), strict=True):
            assert np.array_equal(a.frames, b.frames) and np.array_equal(a.tracks["pose"], b.tracks["pose"])
    other = dancing.dance(64, 8, 0, 1)
    assert not np.array_equal(other.split("val")[0].frames, data.split("val")[0].frames[:8])


def test_the_first_frame_is_a_bad_guess_and_the_last_a_good_one(data: VideoData) -> None:
    frames = data.split("val")[0].frames
    first = np.mean([peak_signal_noise_ratio(frames[0], f) for f in frames[1:]])
    previous = np.mean([peak_signal_noise_ratio(a, b) for a, b in pairwise(frames)])
    assert 14 < first < 19
    assert previous > 26


def test_the_frame_is_told_by_pose_and_room(data: VideoData) -> None:
    """Where the skeleton is the picture differs from the empty room, and far from it it does not."""
    frames, poses = (data.split("val")[0].frames, data.split("val")[0].tracks["pose"])
    room = np.median(np.concatenate([s.frames for s in data.split("train")]), axis=0)
    bones = (poses < 250).any(1)
    change = np.abs(frames - room).mean(1)
    columns = np.array([np.convolve(b.any(0), np.ones(13), "same") > 0 for b in bones])
    assert change[bones].mean() > 8 * change[np.broadcast_to(~columns[:, None], change.shape)].mean()


def test_light_drifts_slowly_and_little(data: VideoData) -> None:
    corner = data.split("val")[0].frames[:, :, :3, :3].astype(float).mean((1, 2, 3))
    assert 0.01 < np.ptp(corner) / corner.mean() < 0.1
    assert np.abs(np.diff(corner)).max() < 1.5


def test_every_kind_of_motion_comes_up() -> None:
    tracks = dancer.choreography(900, 0)
    assert np.ptp(tracks["x"]) > 2  # walks across
    assert np.ptp(tracks["yaw"]) > 2 * np.pi - 0.5  # turns around
    assert tracks["lean"].max() > 1  # bends
    assert tracks["crouch"].max() > 0.8
    assert min(tracks["left_raise"].max(), tracks["right_raise"].max()) > 1.5  # waves
    assert np.ptp(tracks["depth"]) > 0.1
    assert max(np.abs(np.diff(tracks[name])).max() for name in ("x", "lean", "right_raise", "yaw")) < 0.6  # no jumps


def test_bones_keep_their_length_and_feet_the_floor() -> None:
    tracks = dancer.choreography(300, 1)
    for t in range(300):
        j = dancer.joints({name: float(track[t]) for name, track in tracks.items()})
        for a, b, length in (
            ("left_hip", "left_knee", 0.43), ("right_knee", "right_ankle", 0.42),
            ("right_shoulder", "right_elbow", 0.28), ("left_elbow", "left_wrist", 0.25), ("neck", "mid_hip", 0.5),
        ):  # fmt: skip
            assert np.linalg.norm(j[a] - j[b]) == pytest.approx(length, abs=1e-6)
        assert min(p[1] for p in j.values()) == pytest.approx(0, abs=1e-9)


def test_facing_the_viewer_the_right_hand_is_on_the_left() -> None:
    still = dict.fromkeys(dancer.PARAMETERS, 0.0)
    facing, turned = dancer.joints(still), dancer.joints(still | {"yaw": np.pi})
    assert facing["right_wrist"][0] < facing["left_wrist"][0]
    assert turned["right_wrist"][0] > turned["left_wrist"][0]
    assert facing["nose"][2] > facing["head"][2] and turned["nose"][2] < turned["head"][2]


def test_any_size_and_progress() -> None:
    calls: list[tuple[int, int]] = []
    data = dancing.dance(3, 2, 1, 0, (64, 128), lambda done, total: calls.append((done, total)))
    assert data.size == (64, 128)
    assert calls[-1] == (7, 7)


@pytest.mark.parametrize(("frames", "val", "test"), [(0, 2, 0), (4, -1, 0), (4, 2, -1), (4, 0, 1)])
def test_impossible_counts_are_refused(frames: int, val: int, test: int) -> None:
    with pytest.raises(UsageError, match="cannot draw"):
        dancing.dance(frames, val, test, seed=0)
