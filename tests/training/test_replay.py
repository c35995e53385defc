"""Clips that go on from the model's own frames; noise, latent dropout, free bits and weight on what moves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data.clips import Place, VideoData
from vidcvae.errors import DataError, Stopped
from vidcvae.models import build_model, objectives
from vidcvae.models.interface import at
from vidcvae.storage.checkpoint import Checkpoint, CheckpointMeta
from vidcvae.training.loop import train
from vidcvae.training.replay import CAPACITY, Replay
from vidcvae.training.state import new_state
from vidcvae.training.step import clip_terms, draw

from .conftest import tiny_config
from .test_loop import KillAt, fingerprint, last, new_run

ENDS = (20, 20)


def test_a_clip_goes_on_where_an_earlier_one_ended() -> None:
    replay = Replay((8, 8), "cpu")
    fresh = [Place(0, 3, 7), Place(1, 5, 2, 1)]
    assert replay.choose(fresh, ENDS, 4, 1.0, 0, 0) == (fresh, [-1, -1]), "nothing is remembered yet"
    ends = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.6)])
    replay.add(ends, fresh, 4)
    chosen, rows = replay.choose([Place(0, 0, 0)] * 40, ENDS, 4, 0.5, 0, 1)
    went_on = [place for place, row in zip(chosen, rows, strict=True) if row >= 0]
    assert set(went_on) == {Place(0, 6, 7), Place(1, 8, 2, 1)}, "with their anchors, mirrored as they were"
    assert 10 < len(went_on) < 30, "half of them"
    starts = replay.starts(torch.zeros(40, 3, 8, 8, dtype=torch.uint8), rows)
    want = {-1: 0, 0: 51, 1: 153}
    assert all((starts[i] == want[row]).all() for i, row in enumerate(rows))


def test_clips_do_not_run_over_the_end_and_old_frames_make_room() -> None:
    replay = Replay((8, 8), "cpu")
    replay.add(torch.zeros(1, 3, 8, 8), [Place(0, 14, 0)], 4)  # ends at frame 17 of 20
    assert replay.choose([Place(0, 0, 0)], ENDS, 4, 1.0, 0, 0)[1] == [-1]
    assert replay.choose([Place(0, 0, 0)], ENDS, 3, 1.0, 0, 0)[1] == [0]
    for _ in range(CAPACITY):
        replay.add(torch.ones(1, 3, 8, 8), [Place(1, 0, 0)], 4)
    assert {place.sequence for place in replay.places if place} == {1}
    other = Replay((8, 8), "cpu")
    other.restore({name.partition(".")[2]: t for name, t in replay.tensors().items()})
    assert (other.places, other.written) == (replay.places, replay.written)
    assert torch.equal(other.frames, replay.frames)


def test_a_ring_that_is_not_full_comes_back_as_it_was() -> None:
    """Of the first sequence too; and frames beyond 0..1 are cut off, not wrapped around."""
    replay = Replay((8, 8), "cpu")
    made = torch.tensor([-0.5, 0.5, 1.5])[:, None, None, None].expand(3, 3, 8, 8)
    replay.add(made, [Place(0, 0, 0), Place(1, 2, 5, 1, -2, 3), Place(0, 7)], 4)
    other = Replay((8, 8), "cpu")
    other.restore({name.removeprefix("replay."): t for name, t in replay.tensors().items()})
    assert other.places == [Place(0, 3, 0), Place(1, 5, 5, 1, -2, 3), Place(0, 10), *[None] * (CAPACITY - 3)]
    assert other.written == 3
    assert [frame.unique().tolist() for frame in other.frames[:4]] == [[0], [128], [255], [0]]


def anchor_config(**sections: dict[str, object]) -> Config:
    base: dict[str, dict[str, object]] = {
        "model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 2},
        "data": {"size": [8, 16]},
        "loss": {"smoothing": 0.0},
        "training": {"epochs": 3, "clip_length": 4, "batch_size": 2, "log_every": 2, "device": "cpu"},
    }
    return settings.resolve(base, sections)


def test_noise_reaches_the_networks_with_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    config = anchor_config(training={"noise": 0.5})
    model, seen = build_model(config), []
    frames, poses = torch.rand(2, 2, 4, 3, 8, 16)
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    level = torch.tensor([[0.1], [0.4]]).expand(2, 3)
    noise = torch.randn(2, 3, 3, 8, 16) * level[:, :, None, None, None]
    step = model.step

    def watched(state, previous, condition, z):  # type: ignore[no-untyped-def]
        seen.append(previous)
        return step(state, previous, condition, z)

    monkeypatch.setattr(model, "step", watched)
    drawn = draw(torch.zeros(2, 3, *model.latent_shape(8, 16)), mask, noise=noise, level=level)
    assert drawn.pattern == ("truth", "mixed", "own")
    with torch.no_grad():
        clip_terms(model, frames, poses, drawn, config)
    assert torch.allclose((seen[0][:, :3] + 1) / 2, frames[:, 0] + noise[:, 0], atol=1e-6)
    assert all(torch.equal(code[:, 3], level[:, :1, None].expand(2, 8, 16)) for code in seen)
    assert torch.allclose((seen[1][0, :3] + 1) / 2, frames[0, 1] + noise[0, 1], atol=1e-6), "the forced clip"


def test_latent_dropout_trains_the_mean_and_charges_no_kl_for_it() -> None:
    config = anchor_config()
    torch.manual_seed(0)
    model = build_model(config)
    frames, poses = torch.rand(2, 2, 4, 3, 8, 16)
    eps, mask = torch.randn(2, 3, *model.latent_shape(8, 16)), torch.tensor([[1.0, 0, 0]] * 2)

    def kl_of(keep: list[float]) -> tuple[float, torch.Tensor]:
        terms, last = clip_terms(model, frames, poses, draw(eps, mask, keep=torch.tensor(keep)), config)
        return float(terms["kl"].detach()), last

    whole = clip_terms(model, frames, poses, draw(eps, mask), config)[0]["kl"]
    first, last = kl_of([2.0, 0.0])
    second, _ = kl_of([0.0, 2.0])
    assert (first + second) / 2 == pytest.approx(float(whole.detach()), rel=1e-5)
    _, others = clip_terms(model, frames, poses, draw(eps, mask), config)
    assert torch.allclose(last[0], others[0], atol=1e-6), "a kept clip is an ordinary one"
    assert not torch.allclose(last[1], others[1], atol=1e-6), "the other has z = 0"


def test_resume_is_exact_with_replay_noise_and_dropout(tmp_path: Path, squares: VideoData) -> None:
    config = anchor_config(
        training={"epochs": 4, "replay": 0.6, "noise": 0.2, "latent_dropout": 0.3, "ema": 0.9, "clip_length_start": 2},
        data={"size": [8, 16], "flip": True, "shift": 2},
    )
    whole = new_run(tmp_path / "whole", config)
    train(whole, config, squares)
    broken = new_run(tmp_path / "broken", config)
    with pytest.raises(Stopped):
        train(broken, config, squares, report=KillAt("step", 4))
    train(broken, config, squares, resume=last(broken))
    assert fingerprint(broken) == fingerprint(whole)
    assert int(last(whole).tensors["replay.written"]) == 2 * last(whole).meta.step


def test_free_bits_and_motion_by_hand() -> None:
    truth, before = torch.zeros(1, 1, 3, 2, 2), torch.zeros(1, 1, 3, 2, 2)
    truth[..., 0, 0] = 1.0  # one pixel of four moves
    prediction = torch.full_like(truth, 0.5)
    plain = objectives.reconstruction(prediction, truth, "mse")
    assert float(plain) == pytest.approx(0.25)
    weighed = objectives.reconstruction(prediction, truth, "mse", before, motion=4.0)
    assert float(weighed) == pytest.approx(0.25 * (3 + 5) / 4)
    terms = {"reconstruction": torch.tensor(1.0), "kl": torch.tensor(5.0), "kl_charged": torch.tensor(8.0)}
    assert float(objectives.total(terms, 0.5, 0.0)) == 5.0
    config = anchor_config(kl={"free_bits": 1e6})
    model = build_model(config)
    frames, poses = torch.rand(2, 2, 4, 3, 8, 16)
    drawn = draw(torch.zeros(2, 3, *model.latent_shape(8, 16)), torch.ones(2, 3))
    found = clip_terms(model, frames, poses, drawn, config)[0]
    assert float(found["kl_charged"]) == 3e6 > float(found["kl"])
    (gradient,) = torch.autograd.grad(found["kl_charged"], model.posterior_net[-1].bias)
    assert not gradient.any(), "below the floor nothing pulls"


def test_a_learned_prior_is_trained_by_the_kl() -> None:
    config = anchor_config(model={"name": "anchor-cvae", "channels": 8, "latent_channels": 2, "prior": "learned"})
    model = build_model(config)
    frames, poses = torch.rand(2, 2, 4, 3, 8, 16)
    drawn = draw(torch.zeros(2, 3, *model.latent_shape(8, 16)), torch.tensor([[1.0, 0, 0]] * 2))
    terms = clip_terms(model, frames, poses, drawn, config)[0]
    terms["kl"].backward()
    assert model.prior_net is not None and model.prior_net[-1].bias.grad.any()


def test_log_mse_is_the_sum_of_the_logarithms_by_hand() -> None:
    """Squared errors 0.01, 0.25 and 0.04, 1 of two clips of two frames: the logarithms are averaged."""
    prediction = torch.tensor([[0.1, 0.5], [0.2, 1.0]])[:, :, None, None, None].expand(2, 2, 3, 2, 2)
    got = objectives.reconstruction(prediction, torch.zeros(2, 2, 3, 2, 2), "log-mse")
    logs = [math.log(error + 1e-4) for error in (0.01, 0.25, 0.04, 1.0)]
    assert float(got) == pytest.approx(sum(logs) / 2, rel=1e-5)


def test_a_dropped_latent_is_the_mean_of_a_learned_prior() -> None:
    config = anchor_config(model={"name": "anchor-cvae", "channels": 8, "latent_channels": 2, "prior": "learned"})
    torch.manual_seed(0)
    model = build_model(config)
    assert model.prior_net is not None
    torch.nn.init.constant_(model.prior_net[-1].bias, 0.8)
    frames, poses = torch.rand(2, 2, 2, 3, 8, 16)
    drawn = draw(torch.randn(2, 1, *model.latent_shape(8, 16)), torch.ones(2, 1), keep=torch.tensor([2.0, 0.0]))
    with torch.no_grad():
        _, last = clip_terms(model, frames, poses, drawn, config)
        code, pose = (
            at(x, 0) for x in (model.encode_frames(frames[:, :1]), model.encode_condition(poses[:, 1:], frames))
        )
        (mu, _), state = model.prior(model.initial_state(frames[:, 0], poses[:, 0]), code, pose)
        means, _ = model.step(state, code, pose, mu)
        zeros, _ = model.step(state, code, pose, torch.zeros_like(mu))
    assert mu.abs().min() > 0.1
    assert torch.allclose(last[1], means[1], atol=1e-6) and not torch.allclose(last[1], zeros[1], atol=1e-4)


def test_remembered_frames_are_rounded() -> None:
    replay = Replay((8, 8), "cpu")
    replay.add(torch.tensor([0.501, 0.998, 1.2, -0.1])[:, None, None, None].expand(4, 3, 8, 8), [Place(0, 0)] * 4, 4)
    assert replay.frames[:4, 0, 0, 0].tolist() == [128, 254, 255, 0]  # 127.755 and 254.49


def test_damaged_places_are_told_in_words() -> None:
    config = tiny_config(training={"replay": 0.5})
    state = new_state(build_model(config), config)
    tensors = state.tensors() | {"replay.places": torch.zeros(CAPACITY, 0, dtype=torch.int64)}
    meta = CheckpointMeta(progress=state.progress.to_json())
    with pytest.raises(DataError, match=r"x\.safetensors does not fit this run \(IndexError"):
        state.restore(Checkpoint(Path("x.safetensors"), tensors, meta, ""))
