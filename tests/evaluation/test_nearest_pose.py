"""The training frame of the nearest pose against a slow search with SciPy's Gaussian, and what a record says of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tests.evaluation.test_score import Average
from vidcvae.config import Config, DataConfig
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.data.dataset import open_dataset
from vidcvae.evaluation import nearest_pose, records
from vidcvae.evaluation.nearest_pose import NearestPose
from vidcvae.evaluation.score import score_split
from vidcvae.models.loading import Loaded
from vidcvae.storage.checkpoint import CheckpointMeta


def loaded(size: tuple[int, int], meta: CheckpointMeta | None = None, path: str = "") -> Loaded:
    config = replace(Config(), data=DataConfig(size=size, path=path))
    return Loaded(Average().eval(), config, meta or CheckpointMeta(), Path("x.safetensors"), "abc", None, "raw", False)


def slow_distances(asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(T, N): L2 distances of the images, blurred by a Gaussian of 2 pixels, one image after the other."""
    blurred = [
        np.stack([gaussian_filter(image.astype(np.float64), (0, 2, 2)) for image in images])
        for images in (asked, known)
    ]
    return np.stack([np.sqrt(((blurred[1] - image) ** 2).sum(axis=(1, 2, 3))) for image in blurred[0]])


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(a / 255 - b / 255).mean()))


@pytest.mark.golden
def test_on_the_real_data_it_is_a_slow_search_s_and_23_4_db(dance: Path) -> None:
    data = open_dataset(dance)
    val, train = data.split("val")[0], data.split("train")
    poses = np.concatenate([s.tracks["pose"] for s in train])
    frames = np.concatenate([s.frames for s in train])
    picks = range(1, 630, 20)
    distances = slow_distances(val.tracks["pose"][picks], poses)
    search, begin = NearestPose(train), time.process_time()
    found = search.find(val.tracks["pose"])
    assert time.process_time() - begin < 2, "seconds of one processor, with the first look at all training poses"
    assert len(search) == 2516
    assert [found[t] for t in picks] == distances.argmin(axis=1).tolist()
    assert all(np.array_equal(search.frame(k), frames[k]) for k in (0, 628, 629, 2515))
    record = score_split(loaded((32, 64)), data)
    expected = np.mean([decibels(frames[found[t]], val.frames[t]) for t in range(1, 630)])
    assert record["baseline_nearest_pose_psnr"] == pytest.approx(expected, abs=1e-3)
    assert record["baseline_nearest_pose_psnr"] == pytest.approx(23.4, abs=0.1)
    told = record["nearest_pose"]
    assert (told["searched"], told["frames"], told["blur"]) == ("2516 frames of train", 2516, 2.0)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (9, 15), (8, 8)])
def test_distances_are_those_of_the_blurred_images(height: int, width: int) -> None:
    """Noise, so that every frequency is there; sides may be odd, and shorter than the blur is wide."""
    poses = np.random.default_rng(0).integers(0, 256, (7, 3, height, width), np.uint8)
    search = NearestPose([Sequence("a", poses, {"pose": poses})])
    known = search._coefficients(poses)
    found = (known[:, None] - known).norm(dim=2).numpy() * 255
    assert found == pytest.approx(slow_distances(poses, poses), rel=5e-3)


def dots(*columns: int) -> np.ndarray:
    """White pose images with a black dot in the middle of these columns, (T, 3, 8, 64)."""
    images = np.full((len(columns), 3, 8, 64), 255, np.uint8)
    for image, column in zip(images, columns, strict=True):
        image[:, 3:5, column - 1 : column + 2] = 0
    return images


def greys(*values: int) -> np.ndarray:
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), 3, 8, 64)).copy()


TRAIN = (
    # its frame 1 is a stand-in's, and of the pose at column 50 there is no frame
    Sequence("a", greys(10, 99, 20), {"pose": dots(10, 30, 20, 50)}, frozenset({1})),
    Sequence("b", greys(40, 60), {"pose": dots(40, 60)}),
)
VAL = Sequence("v", greys(0, 32, 52, 12), {"pose": dots(5, 27, 54, 12)})  # nearest: those at 20 (not 30), 60, 10
DATA = VideoData("dots", "dance", 25, Path("dots"), {"train": TRAIN, "val": (VAL,)})


def test_stand_ins_and_poses_without_a_frame_are_not_searched() -> None:
    search = NearestPose(TRAIN)
    assert len(search) == 4
    found = [int(search.frame(k)[0, 0, 0]) for k in search.find(dots(27, 47, 54, 12, 10))]
    assert found == [20, 40, 60, 10, 10]


def test_blocks_and_what_is_kept_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    known, asked = (random.integers(0, 256, (n, 3, 16, 24), np.uint8) for n in (11, 7))
    sequences = [Sequence("a", known, {"pose": known})]
    expected = slow_distances(asked, known).argmin(axis=1).tolist()
    for block, at_once, kept in ((128, 512, 1 << 20), (3, 2, 1 << 20), (3, 2, 0), (11, 7, 0)):
        for name, value in {"BLOCK": block, "QUERIES": at_once, "KEPT": kept}.items():
            monkeypatch.setattr(nearest_pose, name, value)
        search = NearestPose(sequences)
        assert search.find(asked) == search.find(asked) == expected
        assert bool(search._kept) is bool(kept)
        assert search.find(asked[:0]) == []


def test_a_record_of_dance_has_it_frame_by_frame() -> None:
    record = score_split(loaded((8, 64)), DATA)
    expected = [-20 * np.log10(abs(a - b) / 255) for a, b in ((20, 32), (60, 52), (10, 12))]
    assert record["baseline_nearest_pose_psnr"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert record["baseline_nearest_pose_psnr_per_channel"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert record["nearest_pose"] == {
        "searched": "4 frames of train",
        "dataset": "dots",
        "data": "dots",
        "frames": 4,
        "blur": 2.0,
        "distance": "L2 over all pixels and channels of the pose images, blurred by a Gaussian of so many pixels",
    }
    assert (
        "baseline_nearest_pose_psnr" not in score_split(loaded((8, 64)), DATA, every_latent=True)["by_latent"]["prior"]
    )


def test_the_training_frames_are_those_of_the_model_s_training() -> None:
    """Not those of other data that it is scored on."""
    other = replace(
        DATA, name="other", splits={"train": (Sequence("o", greys(77, 7), {"pose": dots(30, 9)}),), "val": (VAL,)}
    )
    record = score_split(loaded((8, 64)), other, trained_on=DATA)
    assert (record["nearest_pose"]["dataset"], record["nearest_pose"]["frames"]) == ("dots", 4)
    own = score_split(loaded((8, 64)), DATA)
    assert record["baseline_nearest_pose_psnr"] == own["baseline_nearest_pose_psnr"]
    assert score_split(loaded((8, 64)), other)["nearest_pose"]["frames"] == 2
    assert score_split(loaded((8, 64)), other, "train", trained_on=DATA)["nearest_pose"]["frames"] == 4


@pytest.mark.parametrize(
    ("data", "split", "trained_on", "reason"),
    [
        (replace(DATA, splits={"val": (VAL,)}), "val", "", "dots has no train split"),
        (DATA, "train", "", "the scored frames are the training frames"),
        (DATA, "val", "there is no dataset away.", "there is no dataset away"),
        (
            replace(DATA, splits={"train": (replace(TRAIN[1], unknown_poses=frozenset({0, 1})),), "val": (VAL,)}),
            "val",
            "",
            "the train split of dots has no frames with poses",
        ),
    ],
)
def test_where_nothing_can_be_searched_the_record_says_so(
    data: VideoData, split: str, trained_on: str, reason: str
) -> None:
    record = json.loads(json.dumps(score_split(loaded((8, 64)), data, split, trained_on=trained_on), allow_nan=False))
    assert record["baseline_nearest_pose_psnr"] is None
    assert record["nearest_pose"] == {"searched": None, "reason": f"none was searched: {reason}"}
    assert record["psnr_mean"] > 0 and records.nearest_pose_text(record) == ""


def test_the_protocol_knows_nothing_of_it() -> None:
    """So that the records of older versions compare, and are told apart by nothing else."""
    with_it, without = score_split(loaded((8, 64)), DATA), score_split(loaded((8, 64)), DATA, trained_on="away")
    assert with_it["protocol"] == without["protocol"]
    older = {key: value for key, value in with_it.items() if "nearest" not in key and "still" not in key}
    assert records.differences(with_it, older) == {}
    assert not any("nearest" in key or "still" in key for key in with_it["protocol"])


def test_in_words_whether_it_is_beaten() -> None:
    for ahead, words in (
        (1.234, "beats the nearest training frame by 1.23 dB"),
        (
            0.0,
            "does not beat repeating the training frame of the nearest pose: it does no better than memorising would",
        ),
        (
            -3.0,
            "does not beat repeating the training frame of the nearest pose: it does no better than memorising would",
        ),
    ):
        record = {"psnr_mean": 20 + ahead, "baseline_nearest_pose_psnr": 20.0}
        assert records.nearest_pose_text(record) == words
        warning = records.nearest_pose_warning([("a", record), ("old", {"psnr_mean": 1.0})])
        assert warning == ("" if ahead > 0 else f"a {words}.")
    equal = {"psnr_mean": 20.0, "baseline_nearest_pose_psnr": 20.0}
    assert records.nearest_pose_warning([("a", equal), ("b", equal)]).startswith("a, b do not beat repeating")
    assert records.nearest_pose_text({"psnr_mean": 20.0}) == "", "a record of an older version"


def test_data_are_the_model_s_own_by_their_digest_or_their_place(tmp_path: Path) -> None:
    digest = records.digest_of([VAL], [4])
    meta = CheckpointMeta(validation={"split": "val", "data_digest": digest, "metric": "psnr_zero", "count": 1})
    assert records.was_trained_on(loaded((8, 64), meta, "elsewhere"), DATA), "the same frames, at another place"
    changed = replace(DATA, splits={**DATA.splits, "val": (replace(VAL, frames=VAL.frames + 1),)})
    assert not records.was_trained_on(loaded((8, 64), meta, "dots"), changed), "other frames, at the same place"
    assert records.was_trained_on(loaded((8, 64), path="dots"), changed), "an older checkpoint keeps no digest"
    assert not records.was_trained_on(loaded((8, 64), path="elsewhere"), DATA)
    assert records.was_trained_on(loaded((8, 64)), DATA), "a checkpoint that does not tell"
