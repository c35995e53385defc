"""A model that mixes its frames with the empty scene: where that comes from, and that it stays with the model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vidcvae
from vidcvae import config as settings
from vidcvae.data import scene
from vidcvae.data.clips import Place, Sequence, VideoData, mirrored_and_shifted
from vidcvae.models import build_model
from vidcvae.models.loading import load_model
from vidcvae.scenes import dancing
from vidcvae.training import batches
from vidcvae.training.batches import Batches, run_length
from vidcvae.training.distributed import ALONE
from vidcvae.training.state import new_state

SIZE = (16, 32)


def config(**training: Any) -> settings.Config:
    return settings.resolve(
        {"model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 2, "patch": 4, "scene": True}},
        {"data": {"size": list(SIZE), "flip": True, "shift": 3}, "validation": {"frames": 4}},
        {"training": {"epochs": 2, "steps_per_epoch": 2, "clip_length": 3, "replay": 0.5, "device": "cpu", **training}},
    )


def dance() -> VideoData:
    return dancing.dance(40, 10, 1, 0, SIZE)


def test_the_anchor_of_a_clip_is_the_scene_moved_as_the_clip_is() -> None:
    data, made = dance(), config()
    train = data.split("train")
    model = build_model(made)
    batches.show_scene(model, batches.empty_scene(made, data))
    wanted = scene.behind(train, [len(s) for s in train]).picture
    found = Batches(made, train, run_length(made, data), new_state(model, made), ALONE)
    places, batch = found.of(0, 3)
    assert {p.anchor for p in places} == {-1} and any(p.mirrored or p.down or p.right for p in places)
    assert batch.anchor is not None and bool((batch.anchor[1] == 255).all()), "nobody is in it"
    for place, image in zip(places, batch.anchor[0], strict=True):
        assert np.array_equal(image.numpy(), mirrored_and_shifted(wanted, place))
    assert not np.array_equal(mirrored_and_shifted(wanted, Place(0, 0, -1, 1)), wanted)


def test_a_run_keeps_its_scene_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    data = dance()
    vidcvae.train(config(), data, tmp_path / "whole")
    vidcvae.train(config(epochs=1), data, tmp_path / "part")
    assert vidcvae.resume(tmp_path / "part", data, more_epochs=1)
    first, second = (load_model(tmp_path / name, which="last") for name in ("whole", "part"))
    train = data.split("train")
    seen = scene.behind(train, [len(s) for s in train]).picture
    assert first.model.scene is not None
    assert np.array_equal((first.model.scene * 255).round().numpy().astype(np.uint8), seen)
    for (name, a), b in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert first.meta.step == second.meta.step == 4


def doubts(config: settings.Config, data: VideoData) -> list[str]:
    return batches.warnings(config, data, batches.empty_scene(config, data))


def test_a_background_that_changes_is_told_of() -> None:
    """20 frames of a room whose colours are the other way round beside 40: a third of what is seen is no scene."""
    data = dance()
    assert doubts(config(), data) == []
    (first, *_), other = data.split("train"), config()
    dark = Sequence("dark", 255 - first.frames[:20], {"pose": first.tracks["pose"][:20]})
    rooms = replace(data, splits={**data.splits, "train": (first, dark)})
    (text,) = doubts(other, rooms)
    assert re.search(r"only 6\d% of the background of .* stays the same", text) and text.endswith(
        "--set model.scene=false"
    )
    assert doubts(settings.with_values(other, {"model": {"scene": False}}), rooms) == []


def test_the_scene_is_computed_once_in_a_start_and_the_doubt_told_in_a_resume_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a minute for large frames."""
    data, behind, calls = dance(), scene.behind, []
    (first, *_) = data.split("train")
    dark = Sequence("dark", 255 - first.frames, {"pose": first.tracks["pose"]})
    rooms = replace(data, splits={**data.splits, "train": (first, dark)})
    monkeypatch.setattr(scene, "behind", lambda *arguments: calls.append(1) or behind(*arguments))
    events: list[dict[str, Any]] = []
    vidcvae.train(config(epochs=1), rooms, tmp_path / "run", report=events.append)
    assert len(calls) == 1
    vidcvae.resume(tmp_path / "run", rooms, more_epochs=1, report=events.append)
    told = [event["text"] for event in events if event["kind"] == "warning"]
    assert ["model.scene needs one room and a fixed camera" in text for text in told].count(True) == 2
    assert len(calls) == 2
