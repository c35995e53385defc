"""What cannot be scored, and what a record says of the model and checkpoint that were."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vidcvae import config as settings
from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError, UsageError
from vidcvae.evaluation import score
from vidcvae.evaluation.score import protocol_of, score_split, with_past
from vidcvae.models import build_model
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.run import RunFolder

from .by_hand import CLIPS, DATA, PAST, clip, config, loaded


def test_the_frames_to_score_are_from_one_to_all_that_follow_the_given() -> None:
    for frames, count in ((3, 1), (5, 3)):
        assert len(score_split(loaded(), DATA, frames=frames)["psnr_per_frame"]) == count
    for frames in (1, 2, 6):
        with pytest.raises(UsageError, match=rf"cannot score {frames} frames of sequence a: it has 5, of which 2 are"):
            score_split(loaded(), DATA, frames=frames)
    chosen = replace(DATA, splits={"val": (CLIPS[0], clip("short", 0, 0, (0.1,) * 3, 4))})
    with pytest.raises(UsageError, match="of sequence short: it has 4, of which 2 are given") as caught:
        score_split(loaded(), chosen, frames=5)
    assert "Choose --future from 1 to 2 (--frames" in caught.value.hint


def test_hints_name_what_there_is() -> None:
    with pytest.raises(UsageError) as caught:
        score_split(loaded(), DATA, "val", "none")  # type: ignore[arg-type]
    assert caught.value.hint == "Choose one of zero, prior-mean, prior, posterior."
    with pytest.raises(UsageError, match="2 samples are draws from the prior, but z is posterior") as caught:
        score_split(loaded(), DATA, "val", "posterior", samples=2)
    assert caught.value.hint == "Use --latent prior."
    small = replace(DATA, splits={"val": (Sequence("s", np.zeros((5, 3, 8, 16), np.uint8)),)})
    with pytest.raises(DataError, match="the frames of there/tiny are 8x16, but this model makes 64x64") as caught:
        score_split(loaded(), small)
    assert "--size" in caught.value.hint


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_the_number_that_is_not_finite_is_named_with_the_command_that_checks(
    number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = score._summary
    monkeypatch.setattr(score, "_summary", lambda *given: summary(*given) | {"ssim_mean": number})
    with pytest.raises(DataError, match=rf"weights of x\.safetensors make a ssim_mean of {number}\.") as caught:
        score_split(loaded(), DATA)
    assert caught.value.hint == "Check the file: vidcvae checkpoint verify x.safetensors"


def test_another_past_is_another_model_with_the_same_weights_and_the_record_has_the_trained_config() -> None:
    chosen = config()
    given = loaded(build_model(chosen), chosen)
    assert with_past(given, PAST) is given
    other = with_past(given, 3)
    assert other.config == config(past=3) and other.model is not given.model and not other.model.training
    for (name, a), b in zip(given.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    scores = score_split(given, replace(DATA, splits={"val": CLIPS[:1]}), past=3)
    assert scores["config"] == settings.to_table(chosen)
    assert (scores["protocol"]["past"], scores["protocol"]["future"], scores["whole"]) == (3, 2, True)
    with pytest.raises(UsageError, match="a pose-cvae starts from one given frame, not from 3") as caught:
        with_past(replace(given, config=settings.resolve()), 3)
    assert caught.value.hint == "Leave out --past."


def test_the_best_of_a_run_is_told_to_be_chosen(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    best = loaded(run=run, path=run.checkpoints / "best.safetensors")
    digest = protocol_of(best, DATA).data_digest
    told = {"split": "validate", "data_digest": digest, "metric": "ssim_zero", "count": 4}
    whole = {"chosen": "best", "of": 4, "metric": "ssim_zero", "split": "validate", "on_scored_data": True}
    assert score_split(replace(best, meta=CheckpointMeta(validation=told)), DATA)["selection"] == whole
    assert score_split(replace(best, path=run.checkpoints / "last.safetensors"), DATA)["selection"] == {
        "chosen": "last"
    }
