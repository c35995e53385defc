"""What a step is given, by hand: which clips, from where, moved how, and what is drawn for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vidcvae import config as settings
from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data import sampler
from vidcvae.data.clips import Place, Sequence, VideoData
from vidcvae.training.batches import Batches, run_length
from vidcvae.training.distributed import ALONE, Ranks
from vidcvae.training.replay import Replay
from vidcvae.training.schedules import Length
from vidcvae.training.state import Position, TrainingState


class Latent(nn.Module):
    uses_anchor = False
    scene = None
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        return 2, height // 4, width // 8


class SecondOfTwo(Ranks):
    """Shares out rows without a process beside it."""

    def __init__(self) -> None:
        self.rank, self.world = 1, 2


def numbered(*lengths: int) -> tuple[Sequence, ...]:
    """Frame t of sequence s is t in red and s in green; its pose 100 higher in red."""
    found = []
    for s, length in enumerate(lengths):
        frames = np.zeros((length, 3, 8, 16), np.uint8)
        frames[:, 0], frames[:, 1] = np.arange(length)[:, None, None], s
        poses = frames.copy()
        poses[:, 0] += 100
        found.append(Sequence(str(s), frames, {"pose": poses}))
    return tuple(found)


def make(
    config: Config, sequences: tuple[Sequence, ...], length: Length | None = None, ranks: Ranks = ALONE
) -> Batches:
    state = TrainingState(Latent(), None, {}, Position())  # type: ignore[arg-type]
    data = VideoData("n", "dance", 25, None, {"train": sequences})  # type: ignore[arg-type]
    return Batches(config, sequences, length or run_length(config, data), state, ranks)


def config(data: dict[str, Any] | None = None, **training: Any) -> Config:
    fixed = {"size": [8, 16], "sampling": "windows", "shuffle": False}
    return settings.resolve({"data": fixed | (data or {}), "training": {"clip_length": 4, "batch_size": 2, **training}})


def test_how_many_steps_a_training_has() -> None:
    """Five windows and two: seven clips."""
    data = VideoData("n", "dance", 25, None, {"train": numbered(21, 8)})  # type: ignore[arg-type]
    assert run_length(config(epochs=9), data) == Length(9, 4)
    assert run_length(config(epochs=9, batch_size=7), data) == Length(9, 1)
    assert run_length(config(epochs=9, steps_per_epoch=50), data) == Length(9, 50)
    fast = {"fast_train": True, "fast_train_epochs": 3}
    assert run_length(config(fast, epochs=9), data) == Length(9, 4, 3, 1)
    assert run_length(config(fast | {"fast_train_epochs": 1}, epochs=9), data) == Length(9, 4, 1, 1)
    assert run_length(config(fast, epochs=2), data).steps == 2
    assert run_length(config(fast | {"fast_train_epochs": 0}, epochs=2), data) == Length(2, 4)


def test_the_last_batch_of_an_epoch_is_filled_up_from_its_beginning() -> None:
    batches = make(config(batch_size=3, epochs=2), numbered(21, 8))
    order = [(0, 0), (0, 4), (0, 8), (0, 12), (0, 16), (1, 0), (1, 4)]
    epoch = [order[0:3], order[3:6], [order[6], order[0], order[1]]]
    for step in range(6):
        places, batch = batches.of(step, 4)
        assert places == [Place(*pick) for pick in epoch[step % 3]]
        assert batch.frames[:, :, 0, 0, 0].tolist() == [list(range(first, first + 4)) for _, first in epoch[step % 3]]
        assert batch.frames[:, 0, 1, 0, 0].tolist() == [s for s, _ in epoch[step % 3]]
        assert torch.equal(batch.condition[:, :, 0], batch.frames[:, :, 0] + 100)
        assert batch.anchor is None and batch.start is None


def test_counted_epochs_go_on_through_order_after_order() -> None:
    chosen = config({"shuffle": True}, steps_per_epoch=5, seed=3)
    sequences = numbered(21, 8)
    batches = make(chosen, sequences)
    every = [pick for turn in range(3) for pick in sampler.epoch_order(sequences, chosen.data, chosen.training, turn)]
    found = [(p.sequence, p.first) for step in range(10) for p in batches.of(step, 4)[0]]
    assert found == every[:20]


def test_where_a_clip_is_from_depends_on_step_and_row() -> None:
    """Anchors from all of the clip's sequence; half mirrored; moved by up to 3 either way."""
    chosen = config({"flip": True, "shift": 3}, batch_size=8, steps_per_epoch=100)
    sequences = numbered(40)
    batches = make(chosen, sequences)
    batches.state.model.uses_anchor = True  # type: ignore[misc]
    places = [place for step in range(100) for place in batches.of(step, 4)[0]]
    assert batches.of(7, 4)[0] == places[56:64], "the same step again"
    anchors = [place.anchor for place in places]
    assert (min(anchors), max(anchors)) == (0, 39) and len(set(anchors)) == 40
    assert 0.45 < np.mean([place.mirrored for place in places]) < 0.55
    assert {place.mirrored for place in places} == {0, 1}
    for moves in ([place.down for place in places], [place.right for place in places]):
        assert set(moves) == set(range(-3, 4)) and abs(np.mean(moves)) < 0.2
        assert moves.count(3) < 0.6 * moves.count(0), "the ends are half as likely"
    assert np.corrcoef([p.down for p in places], [p.right for p in places])[0, 1] < 0.1
    batch = batches.of(7, 4)[1]
    assert batch.anchor is not None
    assert batch.anchor[0][:, 0, 4, 8].tolist() == anchors[56:64]
    batches.state.model.uses_anchor = False  # type: ignore[misc]
    assert {place.anchor for place in batches.of(7, 4)[0]} == {-1}
    still = make(replace(chosen, data=replace(chosen.data, flip=False, shift=0)), sequences)
    assert {place[3:] for step in range(20) for place in still.of(step, 4)[0]} == {(0, 0, 0)}


def test_what_is_drawn() -> None:
    """eps and noise of the seed's own streams; one level a clip; the dropped clips' weight goes to the others."""
    chosen = settings.resolve(
        {"model": {"name": "anchor-cvae"}, "data": {"size": [8, 16]}},
        {"training": {"clip_length": 4, "batch_size": 6, "noise": 0.3, "latent_dropout": 0.5, "seed": 5}},
    )
    batches, mask = make(chosen, numbered(21)), torch.ones(6, 3)
    for step in range(20):
        draws = batches.draws(step, mask)
        assert torch.equal(draws.eps, rng.normal((6, 3, 2, 2, 2), 5, "posterior", step))
        level = 0.3 * rng.uniform((6, 1), 5, "noise-level", step)
        assert torch.equal(draws.level, level.expand(6, 3))
        noise = rng.normal((6, 3, 3, 8, 16), 5, "noise", step) * level[:, :, None, None, None]
        assert torch.equal(draws.noise, noise)
        kept = rng.uniform((6,), 5, "latent-dropout", step) >= 0.5
        assert draws.keep.tolist() == pytest.approx([6 / kept.sum().item() if k else 0 for k in kept])
    assert draws.pattern == ("truth",) * 3
    none = make(config(), numbered(21)).draws(0, torch.ones(2, 3))
    assert none.noise is none.level is none.keep is None


def test_clips_without_any_latent_have_weights_of_0() -> None:
    chosen = config(latent_dropout=1.0)
    assert make(chosen, numbered(21)).draws(0, torch.ones(2, 3)).keep.tolist() == [0, 0]


def test_a_clip_that_goes_on_from_nothing_starts_with_the_truth() -> None:
    batches = make(config(replay=1.0), numbered(37))
    batches.state.replay = Replay((8, 16), "cpu")
    _, batch = batches.of(1, 4)
    assert batch.start is not None and torch.equal(batch.start, batch.frames[:, 0])


def test_a_rank_has_its_rows_of_all() -> None:
    chosen = config(batch_size=4, replay=1.0, latent_dropout=0.5)
    whole, mine = make(chosen, numbered(37)), make(chosen, numbered(37), ranks=SecondOfTwo())
    for batches in (whole, mine):
        batches.state.replay = Replay((8, 16), "cpu")
        batches.state.replay.add(torch.full((1, 3, 8, 16), 0.4), [Place(0, 5)], 4)
    (places, all_clips), (same, own) = whole.of(0, 4), mine.of(0, 4)
    assert places == same == [Place(0, 8)] * 4, "every clip goes on where the remembered one ended"
    assert torch.equal(all_clips.frames[2:], own.frames)
    assert (own.start == 102).all() and len(own.start) == 2
    mask = torch.tensor([[1.0, 0, 0]] * 3 + [[1.0, 1, 0]])
    a, b = whole.draws(0, mask), mine.draws(0, mask)
    assert torch.equal(a.eps[2:], b.eps) and torch.equal(a.mask[2:], b.mask) and torch.equal(a.keep[2:], b.keep)
    assert a.pattern == b.pattern == ("truth", "mixed", "own")
