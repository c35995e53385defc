"""Which record is the ordinary score of a checkpoint, where records lie, and how a checkpoint was chosen."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidcvae import config as settings
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.evaluation import records
from vidcvae.evaluation.score import protocol_of, score_split
from vidcvae.models import build_model
from vidcvae.models.loading import Loaded, load_model
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.run import RunFolder, create_run

MODEL = {"name": "pose-cvae", "frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8}
CONFIG = settings.resolve(
    {"model": MODEL, "data": {"size": [8, 16], "path": "a/dance"}, "training": {"ema": 0.9}, "optimizer": {"lr": 0.1}}
)


def _data(path: str, seed: int = 0) -> VideoData:
    video = np.random.default_rng(seed).integers(0, 256, (4, 3, 8, 16), dtype=np.uint8)
    sequence = Sequence("val/0", video, {"pose": video[::-1].copy()})
    return VideoData("dance", "dance", 25, Path(path), {"val": (sequence,), "train": (sequence,)})


DATA = _data("a/dance")


def _save(run: RunFolder, name: str, seed: int, count: int, **meta: Any) -> None:
    torch.manual_seed(seed)
    weights = build_model(CONFIG).state_dict()
    parameters = dict(build_model(CONFIG).named_parameters())
    tensors = {f"model.{key}": t for key, t in weights.items()} | {
        f"ema.{key}": weights[key] + 0.01 for key in parameters
    }
    table: dict[str, Any] = {"config": settings.to_table(CONFIG), "step": seed, "epoch": 1}
    digest = records.digest_of(DATA.split("val"), [4])
    told = {"split": "val", "data_digest": digest, "metric": "psnr_zero", "count": count}
    table |= {"validation": told} if count else {}
    checkpoint.save(run.checkpoints / name, tensors, CheckpointMeta(**table, **meta))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Its best is the third of seven validations."""
    monkeypatch.chdir(tmp_path)
    run = create_run("x", Path("x"))
    run.config.write_text(settings.to_toml(CONFIG))
    _save(run, "best.safetensors", 3, 3)
    _save(run, "last.safetensors", 7, 7)
    return run


def _keep(loaded: Loaded, data: VideoData, **options: Any) -> Path:
    assert loaded.run
    record = score_split(loaded, data, **options)
    path = records.path_in(loaded.run, records.name_of(loaded, record))
    records.write(path, record)
    return path


def _found(run: RunFolder) -> list[float]:
    """The ordinary score of the run's best, first as it is known beside the data, then without them."""
    loaded = load_model(run.path)
    told = records.ordinary(run, asdict(protocol_of(loaded, DATA)))
    alone = records.ordinary_without_data(run, *checkpoint.read_header(loaded.path))
    assert (told[0] if told else None) == alone
    return [record["psnr_mean"] for record in told]


def test_only_the_whole_protocol_is_the_ordinary_score(run: RunFolder) -> None:
    loaded = load_model(run.path)
    _keep(loaded, DATA, frames=3)
    _keep(load_model(run.path, batch_stats=True), DATA)
    _keep(load_model(run.path, weights="raw"), DATA)
    _keep(load_model(run.path, which="last"), DATA)
    _keep(loaded, _data("b/dance", seed=1))
    _keep(loaded, DATA, split="train")
    _keep(loaded, DATA, latent="prior")
    precise = score_split(loaded, DATA)
    precise["protocol"]["precision"] = "bfloat16"
    records.write(records.path_in(run, "val-zero-bfloat16"), precise)
    (run.path / "scores/val-age.json").write_text('{"protocol": 1}')
    assert len(list((run.path / "scores").iterdir())) == 9 and _found(run) == []
    everything = _keep(loaded, DATA, every_latent=True)
    expected = score_split(loaded, DATA)["psnr_mean"]
    assert everything.stem == "val-all" and _found(run) == [pytest.approx(expected)], "z = 0, and more beside it"
    assert _keep(loaded, DATA).stem == "val-zero"
    assert len(_found(run)) == 2
    records.write(run.path / "scores/val-zero.json", score_split(loaded, DATA, frames=3) | {"whole": True})
    wanted = asdict(protocol_of(loaded, DATA))
    assert [r["psnr_mean"] for r in records.ordinary(run, wanted)] == [pytest.approx(expected)], "by its frames"


def test_data_are_told_apart_by_their_content_not_by_their_folders_name(run: RunFolder) -> None:
    loaded = load_model(run.path)
    other = _keep(loaded, _data("b/dance", seed=1))
    assert other.stem.startswith("val-zero-dance-"), "even if nothing lies there yet"
    ordinary = _keep(loaded, DATA)
    before = ordinary.read_bytes()
    assert _keep(loaded, _data("b/dance", seed=1)) == other != ordinary
    assert _keep(loaded, _data("a/dance", seed=2)) not in (ordinary, other), "the same place, but not the same data"
    assert ordinary.read_bytes() == before
    assert _keep(loaded, _data("moved/away")) == ordinary, "the same data in another place"
    _save(run, "best.safetensors", 3, 0)  # of an older version, that did not keep the digest
    old = load_model(run.path)
    assert _keep(old, DATA) == ordinary and _keep(old, _data("b/dance", seed=1)) == other


def test_records_of_older_versions_are_found(run: RunFolder) -> None:
    for name in ("best", "last"):
        _save(run, f"{name}.safetensors", 3, 0)
    record = score_split(load_model(run.path), DATA)
    for key in ("whole", "selection"):
        del record[key]
    header = checkpoint.read_header(run.checkpoints / "best.safetensors")
    records.write(run.path / "scores/val-zero-1to2.json", record)  # it does not say that it is of a part; its name does
    assert records.ordinary_without_data(run, *header) is None
    records.write(run.path / "scores/val-zero.json", record | {"data": "it/was/there"})
    found = records.ordinary_without_data(run, *header)
    assert found and found["data"] == "it/was/there"
    assert records.selection_text(found) == "not recorded" and not records.is_chosen_by_its_score(found)


def test_a_record_says_how_its_checkpoint_was_chosen(run: RunFolder) -> None:
    def selection(loaded: Loaded, data: VideoData = DATA, split: str = "val") -> tuple[str, bool]:
        record = json.loads(json.dumps(score_split(loaded, data, split)))
        return records.selection_text(record), records.is_chosen_by_its_score(record)

    best = load_model(run.path)
    assert selection(best) == ("best of 7 validations by psnr_zero on val", True), "four more came after it"
    assert selection(best, _data("b", seed=1)) == ("best of 7 validations by psnr_zero on val of other data", False)
    assert selection(best, split="train")[1] is False
    assert selection(load_model(run.path, which="last")) == ("last", False)
    (run.checkpoints / "step-00000007.safetensors").hardlink_to(run.checkpoints / "last.safetensors")
    assert selection(load_model(run.checkpoints / "step-00000007.safetensors")) == ("unknown", False)
    lone = Path("best.safetensors")
    lone.write_bytes((run.checkpoints / "best.safetensors").read_bytes())
    assert selection(load_model(lone)) == ("unknown", False)
    (run.checkpoints / "last.safetensors").write_bytes(b"damaged")
    assert selection(best)[0] == "best of 3 validations by psnr_zero on val"
    _save(run, "best.safetensors", 3, 0)
    assert selection(load_model(run.path)) == ("best by psnr_zero on val", True), "nobody counted, but it was chosen"
    _save(run, "best.safetensors", 3, 1)
    assert selection(load_model(run.path)) == ("best of 1 validation by psnr_zero on val", False), (
        "there was nothing to choose"
    )


def test_what_was_chosen_on_the_very_data_is_told_beside_what_was_not(run: RunFolder) -> None:
    best, last = (score_split(load_model(run.path, which=name), DATA) for name in ("best", "last"))
    old = {key: value for key, value in best.items() if key != "selection"}
    for other in (last, old):
        warning = records.selection_warning([("a", best), ("b", other)])
        assert warning.startswith(
            "a: the checkpoint was chosen by its score on these very data (best of 7 validations by psnr_zero"
        )
        assert f"beside b ({records.selection_text(other)})" in warning
    assert records.selection_warning([("a", best), ("b", best)]) == ""
    assert records.selection_warning([("a", last), ("b", old)]) == ""


@pytest.mark.parametrize("track", ["pose", "action", "position"])
def test_the_digest_of_data_is_of_their_conditions_too(track: str) -> None:
    frames = np.zeros((3, 3, 8, 16), np.uint8)
    rows = np.zeros((3, 3, 8, 16), np.uint8) if track == "pose" else np.zeros((3, 4), np.float32)
    sequence = Sequence("a", frames, {track: rows})
    changed = rows.copy()
    changed[2].flat[-1] = 1
    before = records.digest_of([sequence], [3])
    assert records.digest_of([replace(sequence, tracks={track: changed})], [3]) != before
    assert records.digest_of([replace(sequence, tracks={track: changed})], [2]) == records.digest_of([sequence], [2])
    assert records.digest_of([replace(sequence, tracks={})], [3]) != before


def test_a_record_that_cannot_be_read_is_passed_over(run: RunFolder) -> None:
    durable.write_text(run.path / "scores/val-zero.json", "{")
    assert _found(run) == []
