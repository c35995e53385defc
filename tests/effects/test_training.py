"""[training]: how long, on what, and with which arithmetic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vidcvae.data.clips import Sequence, VideoData
from vidcvae.errors import UsageError
from vidcvae.models.loading import pick_device

from .conftest import Known, Step, Train, Trained, begins, config, dataset

WINDOWS = {"sampling": "windows", "shuffle": False}


# --- how long ----------------------------------------------------------------------------------------


@pytest.mark.setting("training.epochs", "training.batch_size")
def test_an_epoch_passes_over_all_windows_in_batches_and_the_last_is_filled_up(train: Train) -> None:
    """Five windows in batches of two: the sixth place goes to the first again."""
    found = train(config(data=WINDOWS, training={"epochs": 3, "batch_size": 2}), dataset(20), Known())
    assert [begins(step.batch) for step in found.steps] == 3 * [[(0, 0), (0, 4)], [(0, 8), (0, 12)], [(0, 16), (0, 0)]]
    assert [event["epoch"] for event in found.of_kind("epoch")] == [0, 1, 2]
    found = train(config(data=WINDOWS, training={"epochs": 1, "batch_size": 5}), dataset(20), Known())
    assert [len(step.batch.frames) for step in found.steps] == [5]


@pytest.mark.setting("training.steps_per_epoch")
def test_steps_of_an_epoch_are_counted_or_one_pass(train: Train) -> None:
    """With a count the clips go on where the epoch before stopped."""
    found = train(config(data=WINDOWS, training={"epochs": 2, "steps_per_epoch": 4}), dataset(20), Known())
    places = [first for step in found.steps for _, first in begins(step.batch)]
    assert places == [0, 4, 8, 12, 16, 0, 4, 8, 12, 16, 0, 4, 8, 12, 16, 0]
    assert [event["step"] for event in found.of_kind("epoch")] == [4, 8]
    found = train(config(data=WINDOWS, training={"epochs": 2, "steps_per_epoch": 0}), dataset(20), Known())
    assert [event["step"] for event in found.of_kind("epoch")] == [3, 6]


@pytest.mark.setting("training.max_minutes")
@pytest.mark.parametrize(("minutes", "steps"), [(1.0, 4), (1.5, 6), (0.0, 100)])
def test_time_ends_a_training_and_its_schedules_with_everything_saved(
    train: Train, monkeypatch: pytest.MonkeyPatch, minutes: float, steps: int
) -> None:
    """By a clock on which each step takes 15 seconds; the cosine arrives although 100 steps were planned."""
    model = Known()

    monkeypatch.setattr(time, "monotonic", lambda: 15.0 * len(model.batches))  # each step encodes its clips once
    training = {"epochs": 10, "steps_per_epoch": 10, "max_minutes": minutes}
    chosen = config(
        training=training,
        teacher_forcing={"ratio": 1.0, "decay_start": 1000},
        lr_schedule={"type": "cosine", "final": 0},
    )
    found = train(chosen, dataset(16), model)
    assert len(found.steps) == steps
    assert found.of_kind("checkpoint")[-1]["step"] == steps
    done = np.arange(steps) if not minutes else np.floor(100 * np.arange(steps) / steps)
    assert found.curve("lr") == pytest.approx(1e-3 * (1 + np.cos(np.pi * done / 99)) / 2, abs=1e-9)


@pytest.mark.setting("training.log_every")
@pytest.mark.parametrize(("every", "logged"), [(1, [1, 2, 3, 4, 5, 6]), (4, [4]), (3, [3, 6]), (7, [])])
def test_a_line_is_logged_after_so_many_steps_with_their_means(train: Train, every: int, logged: list[int]) -> None:
    found = train(config(training={"epochs": 3, "log_every": every}), dataset(16), Known())
    assert [event["step"] for event in found.of_kind("step")] == logged
    losses = [float(step.terms["reconstruction"]) for step in found.steps]
    want = [sum(losses[end - every : end]) / every for end in logged]
    assert found.curve("reconstruction") == pytest.approx(want, rel=1e-5)


# --- on what -----------------------------------------------------------------------------------------


@pytest.mark.setting("training.clip_length")
@pytest.mark.parametrize("length", [2, 5])
def test_clips_have_so_many_frames_the_given_one_included(train: Train, length: int) -> None:
    found = train(config(training={"clip_length": length}), dataset(16), Known())
    assert {step.batch.frames.shape[1] for step in found.steps} == {length}
    assert found.curve("predicted") == [length - 1] * len(found.steps)


@pytest.mark.setting("training.clip_length_start")
def test_clips_grow_evenly_over_the_first_half(train: Train) -> None:
    training = {"clip_length": 6, "clip_length_start": 2, "epochs": 2, "steps_per_epoch": 5}
    found = train(config(training=training), dataset(16), Known())
    lengths = [step.batch.frames.shape[1] for step in found.steps]
    assert lengths == [2, 3, 4, 4, 5, 6, 6, 6, 6, 6]  # 2 + 0, 0.8, 1.6, 2.4, 3.2, 4, rounded


@pytest.mark.setting("training.past")
@pytest.mark.parametrize("past", [1, 2, 3])
def test_given_frames_are_the_truth_and_later_ones_the_model_s_own(train: Train, past: int) -> None:
    """With gain 0.5: what follows a given frame is half of it, and what follows that is half of that half."""
    greys = np.array([200, 150, 240, 120, 180, 90])
    frames = np.broadcast_to(greys[:, None, None, None], (6, 3, 64, 64)).astype(np.uint8)
    data = VideoData("even", "push", 10, Path("even"), {"train": (Sequence("even", frames),)})
    chosen = config(
        model={"name": "svg-fp", "conditions": "none"},
        data={"size": [64, 64]},
        training={"past": past, "clip_length": 6, "epochs": 1},
        loss={"smoothing": 0},
    )
    (step,) = train(chosen, data, Known(0.5)).steps
    truth = greys / 255
    last, error = truth[0], 0.0
    for t in range(1, 6):
        last = 0.5 * (truth[t - 1] if t <= past else last)
        error += (last - truth[t]) ** 2
    assert float(step.terms["reconstruction"]) == pytest.approx(error, rel=1e-4)


@pytest.mark.setting("training.replay")
def test_a_share_of_clips_goes_on_from_the_last_prediction_of_an_earlier_one(train: Train) -> None:
    training = {"replay": 0.4, "epochs": 1, "steps_per_epoch": 150, "clip_length": 4, "batch_size": 4, "log_every": 150}
    found = train(config(training=training, optimizer={"lr": 1e-12}), dataset(40), Known(0.5))
    went_on = clips = late = 0
    remembered: dict[int, set[bytes]] = {}  # the frames that were made, by their number
    for step in found.steps:
        assert step.batch.start is not None
        for start, frames in zip(step.batch.start, step.batch.frames, strict=True):
            clips += 1
            if not torch.equal(start, frames[0]):
                went_on += 1
                first = int(frames[0, 0, 0, 0])
                assert start.numpy().tobytes() in remembered[first]
                late += int(start[2].max()) < 127 / 16  # halved more than three times: made of what was replayed
        for end, frames in zip(step.ends, step.batch.frames, strict=True):
            made = (end * 255).round().to(torch.uint8)
            remembered.setdefault(int(frames[-1, 0, 0, 0]), set()).add(made.numpy().tobytes())
    assert 0.3 < went_on / clips < 0.4, "of 0.4 a tenth or so would run over the end"
    assert late > 15
    plain = train(config(training={**training, "replay": 0.0, "epochs": 1}), dataset(40), Known())
    assert all(step.batch.start is None for step in plain.steps)


@pytest.mark.setting("training.noise")
def test_noise_has_a_level_up_to_the_largest_and_is_added_to_the_frames_seen(train: Train) -> None:
    """One level a clip, evenly spread; at gain 1 on true frames its square is the error."""
    sections: dict[str, dict[str, Any]] = {
        "model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 2},
        "teacher_forcing": {"ratio": 1.0, "decay_start": 1000},
    }
    training = {"noise": 0.2, "batch_size": 4, "steps_per_epoch": 50, "log_every": 100}
    still = dataset(16)
    for sequence in still.split("train"):
        sequence.frames[:, 0] = 90
    found = train(config(training=training, optimizer={"lr": 1e-12}, **sections), still, Known(1.0))
    levels = torch.cat([step.draws.level[:, 0] for step in found.steps])
    assert 0 < levels.min() < 0.01 and 0.19 < levels.max() < 0.2
    assert float(levels.mean()) == pytest.approx(0.1, abs=0.01)
    assert float(levels.var()) == pytest.approx(0.2**2 / 12, rel=0.15)
    for step in found.steps[:20]:
        level, noise = step.draws.level, step.draws.noise
        assert (level == level[:, :1]).all()
        spread = noise.flatten(2).std(2) / level
        assert ((spread - 1).abs() < 0.2).all()
        want = float(noise.square().mean()) * 3
        assert float(step.terms["reconstruction"]) == pytest.approx(want, rel=1e-4)
    plain = train(config(training={**training, "noise": 0.0, "epochs": 1}, **sections), still, Known())
    assert all(step.draws.noise is None for step in plain.steps)


@pytest.mark.setting("training.latent_dropout")
def test_a_share_of_clips_has_its_z_at_the_prior_s_mean_and_no_kl(train: Train) -> None:
    """z is 0.7 there, and the posterior's mean 0.2 elsewhere; frames are z alone."""
    training = {"latent_dropout": 0.25, "batch_size": 8, "steps_per_epoch": 50, "log_every": 100, "epochs": 1}
    model = Known(0.0, 1.0, 0.2, -80.0)
    model.prior_mu = 0.7
    chosen = config(training=training, optimizer={"lr": 1e-12}, kl={"reduction": "mean"})
    found = train(chosen, dataset(16), model)
    dropped = 0
    for step in found.steps:
        at_mean = np.isclose(step.ends[:, 0, 0, 0], 0.7, atol=1e-4)
        assert np.allclose(step.ends[~at_mean], 0.2, atol=1e-4)
        dropped += int(at_mean.sum())
        one = 0.5 * (80 + 0.5**2 - 1)  # of N(0.2, exp(-80)) from N(0.7, 1)
        assert float(step.terms["kl"]) == pytest.approx(3 * one, rel=1e-4), "mean over the clips that have one"
    assert 0.19 < dropped / 400 < 0.31


# --- with which arithmetic ---------------------------------------------------------------------------


@pytest.mark.setting("training.ema")
@pytest.mark.parametrize("decay", [0.15, 0.9])
def test_the_moving_average_forgets_by_its_decay_and_less_in_the_first_steps(train: Train, decay: float) -> None:
    """(1 + n) / (10 + n) of it stays after step n until that is more than the decay."""
    found = train(config(training={"ema": decay, "epochs": 4}, optimizer={"lr": 0.05}), dataset(16), Known())
    average = {name: p.item() for name, p in found.steps[0].before.items()}
    for n, step in enumerate(found.steps):
        stays = min(decay, (1 + n) / (10 + n))
        average = {name: stays * a + (1 - stays) * step.after[name].item() for name, a in average.items()}
    assert {name: a.item() for name, a in found.state.ema.items()} == pytest.approx(average, abs=1e-6)
    assert train(config(training={"ema": 0.0}), dataset(16), Known()).state.ema == {}


@pytest.mark.setting("training.accumulate")
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_a_batch_go_through_one_after_the_other_and_make_the_same_step(train: Train, parts: int) -> None:
    training = {"batch_size": 4, "epochs": 1, "steps_per_epoch": 3, "ema": 0.5}
    whole = train(config(training=training), dataset(16), Known(0.5, 0.3, 0.2, -1.0))
    model = Known(0.5, 0.3, 0.2, -1.0)
    found = train(config(training={**training, "accumulate": parts}), dataset(16), model)
    assert set(model.batches) == {4 // parts}
    for a, b in zip(found.steps, whole.steps, strict=True):
        assert {n: float(x) for n, x in a.terms.items()} == pytest.approx({n: float(x) for n, x in b.terms.items()})
        assert {n: float(x) for n, x in a.after.items()} == pytest.approx({n: float(x) for n, x in b.after.items()})


@pytest.mark.setting("training.checkpoint_activations")
def test_activations_are_computed_again_for_the_same_gradients(train: Train) -> None:
    """Each of the three frames is made once, and once more in the backward pass."""

    def first(again: bool) -> tuple[Step, int]:
        model = Known(0.5, 0.3, 0.2, -1.0)
        training = {"checkpoint_activations": again, "epochs": 1, "steps_per_epoch": 1}
        return train(config(training=training), dataset(16), model).steps[0], model.steps

    (plain, once), (kept, twice) = first(False), first(True)
    assert (once, twice) == (3, 6)
    for name, gradient in plain.gradients.items():
        assert kept.gradients[name].item() == pytest.approx(gradient.item(), rel=1e-6)


@pytest.mark.setting("training.precision")
@pytest.mark.parametrize(("precision", "native", "dtype"), [
    ("float32", True, torch.float32),
    ("bf16", False, torch.bfloat16),
])  # fmt: skip
def test_networks_compute_in_the_precision_asked_for(
    train: Train, precision: str, native: bool, dtype: torch.dtype
) -> None:
    """Weights, losses and gradients stay float32."""
    types_of: set[torch.dtype] = set()
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: types_of.add(output.dtype) if isinstance(module, nn.Conv2d) else None
    )
    try:
        found = train(config(training={"precision": precision, "epochs": 1, "steps_per_epoch": 1}), dataset(16))
    finally:
        hook.remove()
    assert types_of == {dtype}
    (step,) = found.steps
    assert found.of_kind("start")[0]["precision"] == str(dtype).removeprefix("torch.")
    assert {x.dtype for x in (*step.after.values(), *step.gradients.values(), step.terms["total"])} == {torch.float32}


@pytest.mark.setting("training.compile")
@pytest.mark.parametrize("wanted", [False, True])
def test_every_network_of_the_model_is_compiled(train: Train, monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **kwargs: compiled.append(self))
    found = train(config(training={"compile": wanted, "epochs": 1, "steps_per_epoch": 1}), dataset(16))
    assert compiled == (list(found.state.model.children()) if wanted else [])
    assert len(list(found.state.model.children())) == 5


@pytest.mark.setting("training.cuda_graph")
def test_graphs_that_must_be_are_refused_where_they_cannot() -> None:
    """What they do needs a GPU: see tests/training/test_engine.py, test_graphs_replay_what_eager_steps_do."""
    changing = {"teacher_forcing": {"ratio": 0.5, "draw": "frame"}}
    for choice in ("auto", "off"):
        assert config(training={"cuda_graph": choice}, **changing).training.cuda_graph == choice
    with pytest.raises(UsageError, match=r'cuda_graph is "on", but teacher_forcing.draw "frame"'):
        config(training={"cuda_graph": "on"}, **changing)
    assert config(training={"cuda_graph": "on"}).training.cuda_graph == "on"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield lambda there: monkeypatch.setattr(torch.cuda, "is_available", lambda: there)


@pytest.mark.setting("training.device")
def test_the_device_is_the_one_named_or_a_gpu_where_there_is_one(gpu: Any, train: Train) -> None:
    gpu(True)
    assert [pick_device(name) for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    gpu(False)
    assert [pick_device(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(UsageError, match="no CUDA device"):
        train(config(training={"device": "cuda"}), dataset(16))
    found = train(config(training={"device": "cpu", "epochs": 1}), dataset(16), Known())
    assert {p.device.type for p in found.steps[0].after.values()} == {"cpu"}


@pytest.mark.setting("training.seed")
def test_a_seed_fixes_weights_clips_and_noise(train: Train) -> None:
    def run(seed: int) -> Trained:
        return train(config(training={"seed": seed, "epochs": 1}), dataset(32))

    first, again, other = run(3), run(3), run(4)
    for step, same, unlike in zip(first.steps, again.steps, other.steps, strict=True):
        assert all(torch.equal(step.after[name], same.after[name]) for name in step.after)
        assert torch.equal(step.draws.eps, same.draws.eps) and not torch.equal(step.draws.eps, unlike.draws.eps)
    assert [begins(s.batch) for s in first.steps] != [begins(s.batch) for s in other.steps]
    weights = [run.steps[0].before["fusion.0.pointwise1.weight"] for run in (first, other)]
    assert not torch.equal(*weights)
