"""What two ranks check together: run by test_distributed.py under torchrun, which reads the JSON that rank 0 leaves.

Rank 0 computes what a single process gets in the same place, so that every comparison costs no process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.conftest import moving_square, tiny_config
from vidcvae import config as settings
from vidcvae import rng
from vidcvae.config import Config
from vidcvae.data import clips
from vidcvae.data.clips import VideoData
from vidcvae.errors import NonFiniteError, Stopped, VidcvaeError
from vidcvae.models import build_model
from vidcvae.scenes import pushing
from vidcvae.storage import checkpoint
from vidcvae.storage.history import read_history
from vidcvae.storage.run import RunFolder
from vidcvae.training import distributed, loop, step, validation
from vidcvae.training.distributed import ALONE, Ranks
from vidcvae.training.state import new_state
from vidcvae.training.step import Scheduled, draw, forcing_mask, gradients

SQUARES = VideoData(
    "squares",
    "dance",
    25,
    Path("squares"),
    {
        "train": (moving_square(14, 0), moving_square(11, 3)),
        "val": tuple(moving_square(6, seed) for seed in (5, 7, 9)),
    },
)


def push_config(**sections: dict[str, object]) -> Config:
    small = {"name": "svg-fp", "backbone": "dcgan64", "frame_dim": 16, "latent_dim": 4, "hidden_dim": 16}
    training = {"batch_size": 4, "clip_length": 5, "device": "cpu"}
    return settings.resolve_with_preset(None, [{"model": small, "training": training}, sections])


CONFIGS: dict[str, Callable[[], Config]] = {
    "pose-cvae": lambda: tiny_config(training={"batch_size": 4}),
    "pose-cvae, frame statistics": lambda: tiny_config(
        model={"batch_norm": "frame"}, training={"batch_size": 4, "checkpoint_activations": True}
    ),
    "svg-fp, some clips forced": lambda: push_config(teacher_forcing={"ratio": 0.5, "draw": "clip"}),
    "anchor-cvae, everything random, accumulated": lambda: settings.resolve(
        {
            "model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 2, "prior": "learned"},
            "data": {"size": [8, 16]},
            "training": {
                **{"batch_size": 4, "clip_length": 4, "accumulate": 2, "device": "cpu"},
                **{"noise": 0.1, "latent_dropout": 0.4},
            },
            "loss": {"motion": 2.0},
        }
    ),
    "anchor-cvae, free bits": lambda: settings.resolve(
        {
            "model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 2},
            "data": {"size": [8, 16]},
            "training": {"batch_size": 4, "clip_length": 4, "device": "cpu"},
            "kl": {"free_bits": 0.5},
        }
    ),
}


def in_float64(patch: pytest.MonkeyPatch) -> None:
    make, to_unit = loop.build_model, clips.to_unit
    patch.setattr(loop, "build_model", lambda config: make(config).double())
    patch.setattr(clips, "to_unit", lambda x: to_unit(x).double())


# --- gradients -------------------------------------------------------------------------------------


def same_gradients(ranks: Ranks, patch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    """Of each model the largest difference, in float64, between two ranks and one: terms, gradients, statistics."""
    in_float64(patch)
    return {name: difference(make(), ranks) for name, make in CONFIGS.items()}


def difference(config: Config, ranks: Ranks) -> dict[str, float]:
    data = SQUARES if config.model.condition_kind == "pose" else pushing.push(4, 1, 0, 6, 0)
    sequences, batch_size, length = data.split("train"), config.training.batch_size, config.training.clip_length
    torch.manual_seed(3)
    model, twin = build_model(config).double().train(), build_model(config).double().train()
    twin.load_state_dict(model.state_dict())
    places = [(i % len(sequences), i % 2, 5 if model.uses_anchor else -1) for i in range(batch_size)]
    train = config.training
    mask = forcing_mask(config.teacher_forcing, 0.5, batch_size, length - 1, train.past, 0, 0, 1)
    eps = rng.normal((batch_size, length - 1, *model.latent_shape(*config.data.size)), 0, "eps").double()
    others: dict[str, Tensor] = {}
    if train.noise:
        others["level"] = rng.uniform((batch_size, 1), 0, "level").expand_as(mask).double() * train.noise
        others["noise"] = rng.normal((*mask.shape, 3, *config.data.size), 0, "noise").double() * train.noise
    if train.latent_dropout:
        others["keep"] = torch.tensor([4 / 3, 4 / 3, 0.0, 4 / 3]).double()
    draws = draw(eps, mask, **others)
    mine, weights = ranks.slice(batch_size), Scheduled(0.3, 1e-3)
    distributed.share_statistics(model, ranks)

    def run(network: Any, rows: slice, who: Ranks) -> dict[str, Tensor]:
        cut = clips.cut(sequences, places[rows], length, config.model.condition_kind, config.data.condition)
        terms, _ = gradients(new_state(network, config), cut, draws[rows], config, weights, torch.float32, who)
        return terms

    shared, single = run(model, mine, ranks), run(twin, slice(0, batch_size), ALONE)
    pairs = zip(model.named_parameters(), twin.parameters(), strict=True)
    buffers = zip(model.buffers(), twin.buffers(), strict=True)
    return {
        "terms": max(float((shared[k] - single[k]).abs() / single[k].abs().clamp(min=1e-3)) for k in single),
        "gradients": max(float((a.grad - b.grad).abs().max()) for (_, a), b in pairs if b.grad is not None),
        "buffers": max([float((a.double() - b.double()).abs().max()) for a, b in buffers], default=0.0),
        "clips differ": float(not torch.equal(eps[0], eps[-1])),
    }


# --- whole trainings -------------------------------------------------------------------------------


def new_run(path: Path, config: Config) -> RunFolder:
    path.mkdir(exist_ok=True)
    run = RunFolder(path)
    run.config.write_text(settings.to_toml(config))
    return run


def last(run: RunFolder) -> checkpoint.Checkpoint:
    return checkpoint.read(run.checkpoints / checkpoint.LAST)


def same_training(out: Path, ranks: Ranks, patch: pytest.MonkeyPatch, double: bool) -> None:
    """50 steps on two ranks, and on one; in float64 20 of them, and also half on two and half on one, both ways."""
    if double:
        in_float64(patch)
    kind = "double" if double else "float"

    config = tiny_config(
        training={"batch_size": 4, "epochs": 4 if double else 10, "steps_per_epoch": 5, "log_every": 1, "ema": 0.9},
        teacher_forcing={"ratio": 0.5, "draw": "clip", "decay_start": 100},
        validation={"every": 0 if double else 10},
        checkpoint={"keep": 100},
    )
    two, one = new_run(out / f"{kind}-two", config), new_run(out / f"{kind}-one", config)
    loop.train(two, config, SQUARES, ranks=ranks)
    if not double:
        if ranks.main:
            loop.train(one, config, SQUARES)
        return
    two_one, one_two = RunFolder(out / f"{kind}-two-one"), RunFolder(out / f"{kind}-one-two")
    if ranks.main:
        loop.train(one, config, SQUARES)
        shutil.copytree(two.path, two_one.path)
        shutil.copytree(one.path, one_two.path)
        loop.train(two_one, config, SQUARES, resume=halfway(two_one))
    ranks.gather(None)
    loop.train(one_two, config, SQUARES, resume=halfway(one_two), ranks=ranks)


def halfway(run: RunFolder) -> checkpoint.Checkpoint:
    return checkpoint.read(run.checkpoints / "step-00000010.safetensors")


def replay_training(out: Path, ranks: Ranks) -> None:
    config = settings.resolve(
        {
            "model": {"name": "anchor-cvae", "channels": 8, "latent_channels": 2},
            "data": {"size": [8, 16], "flip": True, "shift": 2},
            "training": {"batch_size": 4, "clip_length": 4, "replay": 0.7, "epochs": 4, "steps_per_epoch": 5,
                         "log_every": 1, "device": "cpu"},
            "validation": {"every": 0},
        }
    )  # fmt: skip
    loop.train(new_run(out / "replay-two", config), config, SQUARES, ranks=ranks)
    if ranks.main:
        loop.train(new_run(out / "replay-one", config), config, SQUARES)


def own_statistics(out: Path, ranks: Ranks) -> dict[str, bool]:
    """With batch_norm_ranks = "rank" the ranks' statistics differ, and the saved ones are rank 0's."""
    config = tiny_config(
        training={"batch_size": 4, "epochs": 1, "steps_per_epoch": 3, "batch_norm_ranks": "rank"},
        validation={"every": 0},
    )
    seen = []
    training = loop._Training(new_run(out / "rank-bn", config), config, SQUARES, lambda e: None, None, None, ranks)
    training.run_to_the_end()
    seen = ranks.gather([b.tolist() for b in training.state.model.buffers()])
    weights = ranks.gather([float(p.detach().double().sum()) for p in training.state.model.parameters()])
    mine = [b.tolist() for b in training.state.model.buffers()]
    return {"differ": seen[0] != seen[1], "same weights": weights[0] == weights[1], "rank 0": seen[0] == mine}


# --- failures --------------------------------------------------------------------------------------


def poisoned(out: Path, ranks: Ranks, patch: pytest.MonkeyPatch, where: str, at: int = 3) -> dict[str, Any]:
    """A NaN in one gradient or an infinity in one loss of rank 1, at one step; what came of it on each rank."""
    config = tiny_config(
        training={"batch_size": 4, "epochs": 4, "steps_per_epoch": 3, "log_every": 1}, checkpoint={"every_steps": 2}
    )
    run = new_run(out / f"poisoned-{where}", config)
    training = loop._Training(run, config, SQUARES, lambda e: None, None, None, ranks)
    model = training.state.model
    if ranks.rank == 1 and where == "gradient":
        parameter = list(model.parameters())[5]
        parameter.register_hook(lambda g: g * float("nan") if training.progress.step == at else g)
    if ranks.rank == 1 and where == "loss":
        kl = step.objectives.kl_per_frame

        def infinite(*args: Any) -> Tensor:
            found = kl(*args)
            return found + float("inf") if training.progress.step == at else found

        patch.setattr(step.objectives, "kl_per_frame", infinite)
    message = ""
    try:
        training.run_to_the_end()
    except NonFiniteError as error:
        message = str(error)
    steps = {int(s) for s in [training.progress.step]}
    moments = [float(v["step"]) for v in training.state.optimizer.state.values()]
    weights = sum(float(p.detach().double().sum()) for p in model.parameters())
    ends = ranks.gather([message, sorted(steps), moments[0], weights])
    written = json.loads((run.path / "non-finite.json").read_text())
    return {"ends": ends, "saved": last(run).meta.step, "written": written}


def signalled(out: Path, ranks: Ranks, patch: pytest.MonkeyPatch, when: str) -> dict[str, Any]:
    """A SIGTERM to rank 1, in its fourth step or while it scores its share of the validation."""
    config = tiny_config(training={"batch_size": 4, "epochs": 9, "steps_per_epoch": 6, "log_every": 1})
    run = new_run(out / f"signalled-{when}", config)
    told: list[str] = []
    training = loop._Training(run, config, SQUARES, lambda e: told.append(e["kind"]), None, None, ranks)
    measure = validation.measure

    def terminate(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return measure(*arguments, **options)

    if ranks.rank == 1 and when == "validation":
        patch.setattr(validation, "measure", terminate)
    if ranks.rank == 1 and when == "step":
        parameter = next(training.state.model.parameters())
        parameter.register_hook(lambda g: os.kill(os.getpid(), signal.SIGTERM) if training.progress.step == 3 else None)
    code = 0
    try:
        training.run_to_the_end()
    except Stopped as stopped:
        code = stopped.exit_code
    ends = ranks.gather([code, training.progress.step, told.count("checkpoint")])
    return {"ends": ends, "saved": last(run).meta.step}


def refused(ranks: Ranks) -> str:
    """Ranks that do not see the same data."""
    config = tiny_config(training={"batch_size": 4})
    other = VideoData("squares", "dance", 25, Path("squares"), {"train": (moving_square(14 + ranks.rank, 0),)})
    training = loop._Training(RunFolder(Path("/nowhere")), config, other, lambda e: None, None, None, ranks)
    try:
        training._require_agreement()
    except VidcvaeError as error:
        return error.message
    except SystemExit as leaving:
        return str(leaving.code)
    return "nothing"


def main(out: Path) -> None:
    torch.set_num_threads(1)
    ranks = distributed.join(tiny_config(training={"batch_size": 4}))
    patch = pytest.MonkeyPatch()
    found: dict[str, Any] = {"world": ranks.world, "gradients": {}}
    with ranks.parting():
        with patch.context() as local:
            found["gradients"] = same_gradients(ranks, local)
        same_training(out, ranks, patch, double=False)
        with patch.context() as local:
            same_training(out, ranks, local, double=True)
        replay_training(out, ranks)
        found["statistics"] = own_statistics(out, ranks)
        for where in ("gradient", "loss"):
            with patch.context() as local:
                found[where] = poisoned(out, ranks, local, where)
        for when in ("step", "validation"):
            with patch.context() as local:
                found[f"signal in {when}"] = signalled(out, ranks, local, when)
        found["refused"] = ranks.gather(refused(ranks))
    found["threads"] = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    if ranks.main:
        histories = {p.parent.name: read_history(p) for p in out.glob("*/history.jsonl")}
        (out / "found.json").write_text(json.dumps(found | {"histories": histories}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
