"""Records compare only where their protocols agree; seeds make groups; significance equals SciPy's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import betainc
from scipy.stats import ttest_ind

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.errors import DataError, UsageError
from vidcvae.evaluation import compare, records
from vidcvae.evaluation.score import score_split
from vidcvae.models import build_model
from vidcvae.models.loading import Loaded
from vidcvae.storage.checkpoint import CheckpointMeta

MODEL = {"name": "anchor-cvae", "channels": 8, "latent_channels": 2}
BASE: dict[str, dict[str, object]] = {"model": MODEL, "data": {"size": [8, 16]}}


def _config(**sections: dict[str, object]) -> Config:
    return settings.resolve(BASE, sections)


def _loaded(config: Config, digest: str = "abc") -> Loaded:
    torch.manual_seed(config.training.seed)
    meta = CheckpointMeta(step=7, progress={"minutes": 1.5})
    return Loaded(build_model(config).eval(), config, meta, Path("x.safetensors"), digest, None, "raw", False)


def _data(name: str = "tiny", seed: int = 0, length: int = 6) -> VideoData:
    random = np.random.default_rng(seed)
    video = random.integers(0, 256, (length, 3, 8, 16), dtype=np.uint8)
    return VideoData(name, "dance", 25, Path(name), {"val": (Sequence(f"{name}/0", video, {"pose": video.copy()}),)})


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return json.loads(json.dumps(score_split(_loaded(_config()), _data())))  # type: ignore[no-any-return]


def _changed(record: dict[str, Any], **protocol: object) -> dict[str, Any]:
    return {**record, "protocol": {**record["protocol"], **protocol}}


# --- records ---------------------------------------------------------------------------------------


def test_a_record_carries_its_whole_protocol_and_the_baselines(record: dict[str, Any]) -> None:
    told = {
        *("split", "sequences", "past", "future", "given_frames_counted", "latent", "samples", "reduce", "best"),
        *("data_range", "averaging", "weights", "batch_norm", "checkpoint", "version", "dataset", "data_digest"),
        *("size", "condition", "precision", "seed"),
    }
    assert told <= record["protocol"].keys()
    for name in ("copy_first", "copy_last_past", "copy_previous_truth"):
        assert 0 < record[f"baseline_{name}_psnr"] < 20
    assert record["model"]["parameters"] == sum(p.numel() for p in build_model(_config()).parameters())
    assert (record["model"]["minutes"], record["config"]["model"]["channels"]) == (1.5, 8)
    assert record["latent_dimensions"] == 2 * 1 * 2
    assert (record["protocol"]["batch_norm"], record["protocol"]["weights_available"]) == ("none", "raw")


def test_another_checkpoint_or_version_compares_and_anything_else_is_named(record: dict[str, Any]) -> None:
    assert records.differences(record, _changed(record, checkpoint="x", step=9, version="9")) == {}
    other = _changed(record, latent="prior", future=3, seed=4)
    expected = {"latent": ("zero", "prior"), "future": (5, 3), "seed": (0, 4)}
    assert records.differences(record, other) == expected
    assert "precision" in records.differences(record, _changed(record, precision="bf16"))
    old = {**record, "protocol": {k: v for k, v in record["protocol"].items() if k != "data_digest"}}
    assert records.differences(record, old)["data_digest"][1] is None


def test_what_cannot_matter_is_no_difference(record: dict[str, Any]) -> None:
    assert records.differences(record, _changed(record, seed=4)) == {}  # nothing is drawn
    assert "seed" in records.differences(_changed(record, actions="of other clips"), _changed(record, seed=4))
    ema = _changed(record, weights="ema", weights_available="raw, ema")
    assert records.differences(record, ema) == {}  # the other model has no average
    assert records.differences(ema, _changed(ema, weights="raw")) == {"weights": ("ema", "raw")}
    norm = _changed(record, batch_norm="running")
    assert records.differences(record, norm) == {}
    assert records.differences(norm, _changed(record, batch_norm="batch")) == {"batch_norm": ("running", "batch")}


def test_data_are_known_by_their_content() -> None:
    loaded = _loaded(_config())
    one, renamed, other = (score_split(loaded, data) for data in (_data(), _data("copy"), _data(seed=1)))
    assert records.differences(one, renamed) == {}
    assert records.differences(one, other).keys() == {"data_digest"}
    data = _data()
    sequence = data.split("val")[0]
    before = records.digest_of([sequence], [6])
    assert records.digest_of([sequence], [5]) != before
    video = sequence.frames.copy()
    video[5, 2, 7, 15] ^= 1
    assert records.digest_of([replace(sequence, frames=video)], [6]) != before
    assert records.digest_of([replace(sequence, frames=video)], [5]) == records.digest_of([sequence], [5])


def test_names_keep_the_ordinary_record_apart(record: dict[str, Any]) -> None:
    loaded = _loaded(settings.with_values(_config(), {"data": {"path": "tiny"}}))
    assert records.name_of(loaded, record) == "val-zero"
    assert records.name_of(loaded, {**record, "by_latent": {}}) == "val-all"
    assert records.name_of(loaded, record, whole=False) == "val-zero-1to5"
    other = _changed(record, latent="prior", samples=4, seed=2, weights="raw", weights_available="raw, ema")
    assert records.name_of(loaded, {**other, "data": "elsewhere/b", "long": {}}) == (
        f"val-prior-x4-long-seed2-raw-b-{record['protocol']['data_digest'][:8]}"
    )


def test_the_command_that_makes_scores_alike_names_what_differs(record: dict[str, Any]) -> None:
    wanted = _changed(record, latent="prior", future=3, data_digest="other")
    assert records.command("b", record, {**wanted, "data": "my data"}) == (
        "vidcvae evaluate b --data 'my data' --latent prior --future 3"
    )
    assert records.command("b", _changed(record, split="train"), record) == "vidcvae evaluate b --split val"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no score record"), ("{", "is not JSON"), ("[1]", "not a score"), ('{"psnr": 1}', "protocol")],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=words):
        records.read(path)


# --- the table -------------------------------------------------------------------------------------


def _scored(record: dict[str, Any], psnr: float, **sections: dict[str, object]) -> dict[str, Any]:
    return {**record, "psnr_mean": psnr, "config": settings.to_table(_config(**sections))}


def test_runs_that_differ_by_their_seed_are_one_row(record: dict[str, Any]) -> None:
    scores = {0.0: [20.0, 21.0, 22.5], 0.1: [25.0, 25.5, 26.5], 0.2: [30.0]}
    named = [
        (f"{rate}-{seed}", _scored(record, psnr, loss={"smoothing": rate}, training={"seed": seed}))
        for rate, found in scores.items()
        for seed, psnr in enumerate(found)
    ]
    rows = compare.table(named)
    assert [row.differing for row in rows] == [{"loss.smoothing": rate} for rate in (0.2, 0.1, 0.0)]
    assert rows[1].names == ("0.1-0", "0.1-1", "0.1-2")
    assert (rows[1].values["psnr"], rows[1].spread["psnr"]) == pytest.approx((np.mean(scores[0.1]), 0.7638), abs=1e-4)
    assert (rows[0].spread["psnr"], rows[0].p_value, rows[1].p_value) == (None, None, None)  # one run tells no spread
    rows = compare.table(named[:6], sort="minutes")
    first, second, _ = scores.values()
    by_group = {row.names[0]: row.p_value for row in rows}
    assert by_group["0.1-0"] is None  # the best
    assert by_group["0.0-0"] == pytest.approx(ttest_ind(first, second, equal_var=False).pvalue)
    json.dumps([row.to_json() for row in rows])


def test_scores_of_unlike_protocols_are_refused_with_every_key_and_the_way_out(record: dict[str, Any]) -> None:
    named = [("a", record), ("b", _changed(record, latent="prior")), ("c", _changed(record, future=2))]
    with pytest.raises(UsageError) as refused:
        compare.table(named)
    assert 'latent is "zero" in a and "prior" in b' in refused.value.message
    assert "future is 5 in a and 2 in c" in refused.value.message
    assert "vidcvae evaluate b --latent zero; vidcvae evaluate c --future 5" in refused.value.hint
    assert "--anyway" in refused.value.hint
    assert len(compare.table(named, anyway=True)) == 1  # the same settings
    with pytest.raises(UsageError, match="Did you mean 'psnr'"):
        compare.table(named, sort="psrn")


def test_less_is_better_for_size_and_time_and_what_is_not_known_comes_last(record: dict[str, Any]) -> None:
    rows = [
        (
            str(i),
            {**_scored(record, 20.0 + i, loss={"smoothing": i / 10}), "model": {"parameters": 5, "minutes": minutes}},
        )
        for i, minutes in enumerate([3.0, None, 1.0])
    ]
    assert [row.names[0] for row in compare.table(rows, sort="minutes")] == ["2", "0", "1"]
    assert [row.names[0] for row in compare.table(rows)] == ["2", "1", "0"]


def test_the_incomplete_beta_function_and_welchs_test_are_scipys() -> None:
    for a, b, x in [(1, 1, 0.3), (2, 0.5, 0.1), (2, 0.5, 0.999), (50, 0.5, 0.7), (300.2, 0.5, 0.99), (1.3, 0.5, 1e-6)]:
        assert compare.incomplete_beta(a, b, x) == pytest.approx(betainc(a, b, x), rel=1e-10)
    random = np.random.default_rng(0)
    for _ in range(50):
        left, right = (random.normal(m, s, random.integers(2, 7)).tolist() for m, s in ((0, 1), (1, 3)))
        assert compare.welch(left, right) == pytest.approx(ttest_ind(left, right, equal_var=False).pvalue, rel=1e-8)
    assert compare.welch([1.0], [2.0, 3.0]) is None
    assert (compare.welch([1.0, 1.0], [1.0, 1.0]), compare.welch([1.0, 1.0], [2.0, 2.0])) == (1, 0)


def test_the_best_row_is_the_one_of_the_best_mean_not_of_the_best_run(record: dict[str, Any]) -> None:
    lucky, steady = [20.0, 30.0], [26.0, 27.0]
    named = [
        (f"{rate}-{seed}", _scored(record, psnr, loss={"smoothing": rate}, training={"seed": seed}))
        for rate, found in ((0.1, lucky), (0.2, steady))
        for seed, psnr in enumerate(found)
    ]
    first, second = compare.table(named)
    assert (first.names, first.values["psnr"], first.p_value) == (("0.2-0", "0.2-1"), 26.5, None)
    assert (second.values["psnr"], second.p_value) == (
        25.0,
        pytest.approx(ttest_ind(lucky, steady, equal_var=False)[1]),
    )


def test_a_row_tells_how_its_checkpoints_were_chosen(record: dict[str, Any]) -> None:
    best = {"chosen": "best", "of": 70, "metric": "psnr_zero", "split": "val", "on_scored_data": True}
    named = [(str(i), {**record, "selection": chosen}) for i, chosen in enumerate([best, {"chosen": "last"}, None])]
    (row,) = compare.table(named)
    assert row.selection == "best of 70 validations by psnr_zero on val; last; not recorded"
