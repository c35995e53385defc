"""What a record is called, what is told of its checkpoint, and the command that makes one like another: tables."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError
from vidcvae.evaluation import records
from vidcvae.storage import checkpoint
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.run import RunFolder

PROTOCOL: dict[str, Any] = {
    "split": "val",
    "latent": "zero",
    "past": 1,
    "future": 5,
    "samples": 1,
    "seed": 0,
    "actions": "none",
    "weights": "raw",
    "weights_available": "raw",
    "batch_norm": "none",
    "precision": "float32",
    "data_digest": "0123456789abcdef",
    "checkpoint": "c",
}


def record(**protocol: Any) -> dict[str, Any]:
    return {
        "psnr_mean": 20.0,
        "data": "data/dance",
        "config": {"training": {"past": 1}},
        "protocol": PROTOCOL | protocol,
    }


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    folder.config.write_text("")
    for name in ("best", "last", "step-00000007"):
        (folder.checkpoints / f"{name}.safetensors").write_text("")
    return folder


def loaded(run: RunFolder | None, name: str = "best.safetensors", **meta: Any) -> Any:
    path = run.checkpoints / name if run else Path(name)
    return SimpleNamespace(
        run=run, path=path, meta=CheckpointMeta(**meta), config=SimpleNamespace(data=SimpleNamespace(path="data/dance"))
    )


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "val-zero"),
        ({"split": "test", "latent": "prior"}, "test-prior"),
        ({"past": 2, "future": 4}, "val-zero-2to4"),
        ({"past": 2, "future": [3, 8, 4]}, "val-zero-2to8"),
        ({"samples": 2}, "val-zero-x2"),
        ({"seed": 7}, "val-zero-seed7"),
        ({"actions": "of other clips"}, "val-zero-other-actions"),
        ({"actions": "own"}, "val-zero"),
        ({"weights": "raw", "weights_available": "raw, ema"}, "val-zero-raw"),
        ({"weights": "ema", "weights_available": "raw, ema"}, "val-zero"),
        ({"batch_norm": "batch"}, "val-zero-batch-stats"),
        ({"batch_norm": "running"}, "val-zero"),
        ({"precision": "bfloat16"}, "val-zero-bfloat16"),
    ],
)
def test_a_name_says_what_is_out_of_the_ordinary(run: RunFolder, change: dict[str, Any], name: str) -> None:
    assert records.name_of(loaded(run), record(**change)) == name


def test_a_name_says_what_else_was_scored_of_what_and_how_far(run: RunFolder) -> None:
    assert records.name_of(loaded(run), record(), whole=False) == "val-zero-1to5"
    assert records.name_of(loaded(run), {**record(), "whole": False}) == "val-zero-1to5"
    assert records.name_of(loaded(run), {**record(), "by_latent": {}}) == "val-all"
    for extra in ("bounds", "long", "perceptual"):
        assert records.name_of(loaded(run), {**record(), extra: {}}) == f"val-zero-{extra}"
    assert records.name_of(loaded(run, "last.safetensors"), record()) == "val-zero-last"
    assert records.name_of(loaded(run, "step-00000007.safetensors"), record()) == "val-zero-step-00000007"
    assert records.name_of(loaded(None, "lone.safetensors"), record()) == "val-zero"


def test_other_data_are_named_with_their_digest(run: RunFolder) -> None:
    elsewhere = {**record(), "data": "b/my data: 2"}
    assert records.name_of(loaded(run), elsewhere) == "val-zero-my-data-2-01234567"
    kept = {"split": "validate", "data_digest": PROTOCOL["data_digest"], "metric": "psnr_zero", "count": 3}
    assert records.name_of(loaded(run, validation=kept), elsewhere) == "val-zero", "the same data in another place"
    other = kept | {"data_digest": "f" * 16}
    assert records.name_of(loaded(run, validation=other), record()) == "val-zero-dance-01234567"
    tested = record(split="test")
    assert records.name_of(loaded(run, validation=other), tested) == "test-zero", "of which nothing was kept"
    broken = kept | {"count": "3"}
    assert records.name_of(loaded(run, validation=broken), elsewhere) == "val-zero-my-data-2-01234567"


def test_a_digest_is_of_names_kinds_shapes_and_content_of_the_first_frames() -> None:
    """Worked out again, longer than one block."""
    frames = np.random.default_rng(0).integers(0, 256, (70, 3, 8, 8), dtype=np.uint8)
    actions = np.arange(280, dtype=np.float32).reshape(70, 4)
    clips = [Sequence("a", frames, {"position": actions[:, :3], "action": actions}), Sequence("b", frames[:2])]
    text = hashlib.sha256()
    for name, track, length in (
        *(("frames", frames, 66), ("action", actions, 66), ("position", actions[:, :3], 66)),
        ("frames", frames, 2),
    ):
        shape = (length, *track.shape[1:])
        text.update(f"{name} {track.dtype} {shape}".encode() + np.ascontiguousarray(track[:length]).tobytes())
    assert records.digest_of(clips, [66, 2]) == text.hexdigest()[:16]


BOTH = {"weights_available": "raw, ema"}


# --- which parts must agree ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "differ"),
    [
        ({}, {"checkpoint": "x", "step": 3, "version": "9", "dataset": "d", "sequences": ["s"]}, set()),
        ({}, {"seed": 4}, set()),
        ({"latent": "prior"}, {"latent": "prior", "seed": 4}, {"seed"}),
        ({"latent": "posterior"}, {"latent": "posterior", "seed": 4}, {"seed"}),
        ({}, {"latent": "prior", "seed": 4}, {"latent", "seed"}),
        ({"actions": "of other clips"}, {"actions": "of other clips", "seed": 4}, {"seed"}),
        ({}, {"weights": "ema", "weights_available": "raw, ema"}, set()),
        ({"weights_available": "raw, ema"}, {"weights": "ema", "weights_available": "raw, ema"}, {"weights"}),
        ({}, {"batch_norm": "batch"}, set()),
        ({"batch_norm": "running"}, {"batch_norm": "batch"}, {"batch_norm"}),
        ({"future": (3, 4)}, {"future": [3, 4]}, set()),
        ({}, {"future": 4, "size": "8x8"}, {"future", "size"}),
    ],
)
def test_what_must_agree(left: dict[str, Any], right: dict[str, Any], differ: set[str]) -> None:
    assert records.differences(record(**left), record(**right)).keys() == differ
    assert records.differences(record(**right), record(**left)).keys() == differ


@pytest.mark.parametrize(
    ("run", "own", "like", "words"),
    [
        ("r", {}, {}, "r"),
        ("runs/r/scores/val-zero.json", {}, {}, "runs/r"),
        ("elsewhere/val-zero.json", {}, {}, "RUN"),
        ("r", {}, {"split": "test", "samples": 4, "latent": "prior", "seed": 2},
         "r --split test --latent prior --samples 4 --seed 2"),
        ("r", {"split": "test", "latent": "prior", "samples": 4, "seed": 2}, {},
         "r --split val --latent zero --samples 1 --seed 0"),
        ("r", {"past": 2, "future": 3}, {}, "r --past 1 --future 5"),
        ("r", {}, {"future": [3, 4]}, "r"),
        ("r", {"weights": "ema", **BOTH}, BOTH, "r --weights raw"),
        ("r", {}, {"batch_norm": "batch", "actions": "of other clips"}, "r --batch-stats --shuffle-actions"),
        ("r", {}, {"data_digest": "x"}, "r --data data/dance"),
        ("r", {}, {"size": "8x8"}, "r --data data/dance"),
        ("r", {}, {"precision": "bfloat16"}, "r --precision bf16"),
        ("r", {"precision": "bfloat16"}, {"precision": "bfloat16"}, "r --precision bf16"),
        ("r", {"precision": "bfloat16"}, {}, "r --precision float32"),
    ],
)  # fmt: skip
def test_the_command_says_what_is_out_of_the_ordinary_or_was(
    run: str, own: dict[str, Any], like: dict[str, Any], words: str
) -> None:
    assert records.command(run, record(**own), record(**like)) == f"vidcvae evaluate {words}"


# --- how a checkpoint was chosen -------------------------------------------------------------------------

BEST = {"chosen": "best", "of": 7, "metric": "psnr_zero", "split": "val", "on_scored_data": True}


@pytest.mark.parametrize(
    ("selection", "text", "flatters"),
    [
        (BEST, "best of 7 validations by psnr_zero on val", True),
        ({**BEST, "of": None}, "best by psnr_zero on val", True),
        ({**BEST, "of": 1}, "best of 1 validation by psnr_zero on val", False),
        ({**BEST, "on_scored_data": False}, "best of 7 validations by psnr_zero on val of other data", False),
        ({**BEST, "split": "test", "on_scored_data": False}, "best of 7 validations by psnr_zero on test", False),
        ({"chosen": "last"}, "last", False),
        ({"chosen": "unknown"}, "unknown", False),
        (None, "not recorded", False),
    ],
)
def test_how_a_checkpoint_was_chosen_in_words(selection: Any, text: str, flatters: bool) -> None:
    told = record() | ({} if selection is None else {"selection": selection})
    assert records.selection_text(told) == text
    assert records.is_chosen_by_its_score(told) == flatters


def test_scores_that_flatter_are_warned_of_beside_others_alone() -> None:
    best, last = record() | {"selection": BEST}, record() | {"selection": {"chosen": "last"}}
    assert records.selection_warning([("a", best), ("b", best)]) == records.selection_warning([("c", last)]) == ""
    assert records.selection_warning([("a", best), ("c", last), ("d", last)]) == (
        "a: the checkpoint was chosen by its score on these very data (best of 7 validations by psnr_zero on val), "
        "which flatters it beside c, d (last)."
    )
    many = [*((name, best) for name in "abcde"), ("z", last)]
    assert records.selection_warning(many).startswith("a, b, c and 2 more: the checkpoint")
    assert "beside z (last)" in records.selection_warning(many)
    assert records.selection_warning(many[2:]).startswith("c, d, e: the checkpoint"), "three are all named"
    assert records.selection_warning(many[1:]).startswith("b, c, d and 1 more: the checkpoint")


def test_only_the_best_and_the_last_of_a_run_are_known_to_be_chosen(run: RunFolder, tmp_path: Path) -> None:
    kept = {"split": "val", "data_digest": PROTOCOL["data_digest"], "metric": "ssim_zero", "count": 4}

    def chosen(path: Path, meta: dict[str, Any], of: RunFolder | None = run, **protocol: Any) -> dict[str, Any]:
        return records.selection_of(path, of, CheckpointMeta(**meta), PROTOCOL | protocol)

    best = run.checkpoints / "best.safetensors"
    for path in (run.checkpoints / "step-00000007.safetensors", tmp_path / "best.safetensors"):
        assert chosen(path, {"validation": kept}) == {"chosen": "unknown"}
    assert chosen(best, {"validation": kept}, None) == {"chosen": "unknown"}
    assert chosen(run.checkpoints / "last.safetensors", {"validation": kept}) == {"chosen": "last"}
    whole = {"chosen": "best", "of": 4, "metric": "ssim_zero", "split": "val", "on_scored_data": True}
    assert chosen(best, {"validation": kept}) == whole
    assert chosen(best, {"validation": kept}, split="validate") == whole
    for other in ({"split": "test"}, {"data_digest": "x"}):
        assert chosen(best, {"validation": kept}, **other) == whole | {"on_scored_data": False}
    old = {"config": {"validation": {"metric": "psnr_prior"}}}
    assert chosen(best, old) == whole | {"of": None, "metric": "psnr_prior"}, "of an older version"


def test_the_newest_checkpoint_knows_of_how_many_validations_the_best_is_the_best(run: RunFolder) -> None:
    """``best`` knows only those before it."""
    kept = {"split": "val", "data_digest": PROTOCOL["data_digest"], "metric": "psnr_zero", "count": 3}
    best, last = run.checkpoints / "best.safetensors", run.checkpoints / "last.safetensors"

    def of(**newest: Any) -> tuple[Any, Any]:
        checkpoint.save(last, {}, CheckpointMeta(**newest))
        found = records.selection_of(best, run, CheckpointMeta(validation=kept), PROTOCOL)
        return found["of"], found["metric"]

    assert of(validation=kept | {"count": 9}) == (9, "psnr_zero")
    assert of() == (3, "psnr_zero"), "where the newest one does not tell"
    assert of(validation=kept | {"count": "9"}) == (3, "psnr_zero"), "or not what a training keeps"


def test_what_is_no_record_says_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "run" / "scores" / "val-zero.json"
    assert records.path_in(RunFolder(tmp_path / "run")) == path
    with pytest.raises(DataError, match="there is no score record") as caught:
        records.read(path)
    assert caught.value.hint == f"Make one: vidcvae evaluate {tmp_path / 'run'}"
    path.parent.mkdir(parents=True)
    for text, says in (
        ('{"psnr_mean": 1}', "is not a score record"),
        ('{"protocol": {}}', "is not a score record"),
        ('{"protocol": [], "psnr_mean": 1}', "is not a score record"),
        ("3", "is not a score record"),
        ("{", "is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            records.read(path)
    records.write(path, record())
    assert records.read(path) == record()
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="cannot read"):
        records.read(path)


# --- the ordinary score ----------------------------------------------------------------------------------

KEPT = {"split": "validate", "data_digest": "d" * 16, "metric": "psnr_zero", "count": 3}


def test_the_ordinary_protocol_is_what_a_checkpoint_s_file_tells() -> None:
    plain = records.ordinary_protocol(CheckpointMeta(), "c")
    told = {"checkpoint": "c", "split": "val", "past": 1, "weights": "raw", "latent": "zero", "samples": 1}
    assert {key: plain[key] for key in told} == told and "data_digest" not in plain
    assert (plain["given_frames_counted"], plain["reduce"], plain["precision"]) == (False, "mean", "float32")
    assert not {"version", "step", "dataset", "sequences", "weights_available"} & plain.keys()
    ema = records.ordinary_protocol(CheckpointMeta(config={"training": {"ema": 0.9}}, validation=KEPT), "c")
    assert (ema["weights"], ema["data_digest"]) == ("ema", "d" * 16), "val is validate"
    assert "data_digest" not in records.ordinary_protocol(CheckpointMeta(validation=KEPT), "c", "test")


@pytest.mark.parametrize(
    ("change", "unlike"),
    [
        ({}, []),
        ({"seed": 5, "version": "9", "step": 3, "dataset": "x", "sequences": ["a"]}, []),
        ({"split": "validate"}, []),
        ({"split": "test"}, ["split"]),
        ({"checkpoint": "x"}, ["checkpoint"]),
        ({"past": 2}, ["past"]),
        ({"latent": "prior", "samples": 3}, ["latent", "samples"]),
        ({"batch_norm": "batch"}, ["batch_norm"]),
        ({"batch_norm": "running"}, []),
        ({"actions": "of other clips"}, ["actions"]),
        ({"actions": "own"}, []),
    ],
)
def test_what_an_ordinary_score_has_not(change: dict[str, Any], unlike: list[str]) -> None:
    wanted = records.ordinary_protocol(CheckpointMeta(), "c")
    assert sorted(records.unlike({"protocol": wanted | change}, wanted)) == unlike


def test_the_ordinary_score_is_that_on_the_training_s_data_and_of_the_plainest_name(run: RunFolder) -> None:
    meta = CheckpointMeta(config={"data": {"path": "data/dance"}})

    def keep(name: str, psnr: float, data: str = "data/dance", digest: str = "x", **more: Any) -> None:
        protocol = records.ordinary_protocol(meta, "c") | {"data_digest": digest} | more.pop("protocol", {})
        told = {"psnr_mean": psnr, "data": data, "protocol": protocol, **more}
        records.write(records.path_in(run, name), told)

    def found(validation: dict[str, Any] | None = None) -> float | None:
        record = records.ordinary_without_data(run, replace(meta, validation=validation), "c")
        return None if record is None else record["psnr_mean"]

    assert found() is None
    keep("val-zero-1to5", 1.0)
    keep("val-zero-long", 2.0, whole=False)
    assert found() is None, "of a part of the frames"
    keep("val-zero-elsewhere", 3.0, "other/data", "d" * 16)
    assert (found(), found(KEPT)) == (None, 3.0), "the training's data, wherever they lie"
    keep("val-all", 4.0, whole=True)
    assert (found(), found(KEPT)) == (4.0, 3.0)
    keep("val-zero-x", 5.0)
    assert found() == 4.0, "the shorter name first"
    keep("aaa-zero", 6.0, protocol={"checkpoint": "another"})
    assert found() == 4.0
    keep("val-zero", 7.0, "moved/away")
    assert (found(), found(KEPT)) == (4.0, 3.0), "val-zero has another place, and comes behind val-all"
    for name in ("val-all", "val-zero-x", "val-zero-elsewhere"):
        records.path_in(run, name).unlink()
    assert (found(), found(KEPT)) == (7.0, None), "by its name where nothing was kept of the data"
    wanted = records.ordinary_protocol(meta, "c")
    assert [record["psnr_mean"] for record in records.ordinary(run, wanted)] == [7.0, 1.0, 2.0]
