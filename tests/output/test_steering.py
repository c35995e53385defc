"""The range of a person's actions, from the clips that have a table of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidcvae import config as settings
from vidcvae.data.clips import Sequence
from vidcvae.errors import DataError
from vidcvae.output import steering
from vidcvae.scenes import pushing

CONFIG = settings.resolve({"model": {"name": "svg-lp", "conditions": "actions+positions"}})


def test_clips_without_tables_are_left_out() -> None:
    """However many come first, and whichever table they lack."""
    data = pushing.push(3, 2, 0, 12, 0)
    bare = replace(data.split("val")[0], tracks={})
    half = Sequence("half", bare.frames, {"action": np.full((12, 4), 99, np.float32)})
    mixed = replace(data, splits={"train": (*[bare] * 64, half, *data.split("train")), "validate": (bare,)})
    found = steering.Steering(mixed, CONFIG)
    expected = steering.Steering(replace(data, splits={"train": data.split("train")}), CONFIG)
    assert found.limits == expected.limits and np.array_equal(found.effect, expected.effect)
    assert np.array_equal(found.position, expected.position)


def test_data_without_any_table_are_refused() -> None:
    data = pushing.push(1, 0, 0, 4, 0)
    bare = replace(data, splits={"train": (replace(data.split("train")[0], tracks={}),)})
    with pytest.raises(DataError, match="synthetic-push-0 has no clip with action and position") as caught:
        steering.Steering(bare, CONFIG)
    assert "--data" in caught.value.hint
