"""The training loop: what to train on, what is trained, and then step after step, each saved so that it can go on.

Everything random is a function of (seed, stream, step), so a resumed run is the uninterrupted one, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vidcvae import __version__, rng
from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data import clips, sampler
from vidcvae.data.clips import VideoData
from vidcvae.errors import NonFiniteError, Stopped
from vidcvae.evaluation.score import score_rollout
from vidcvae.models import build_model
from vidcvae.models.loading import load_weights, pick_device
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.checkpoint import Checkpoint
from vidcvae.storage.history import History
from vidcvae.storage.run import RunFolder
from vidcvae.training import schedules
from vidcvae.training.schedules import Length
from vidcvae.training.signals import Requests, listening
from vidcvae.training.state import Meter, Progress, TrainingState, new_state
from vidcvae.training.step import Weights, compute_dtype, forcing_mask, training_step

Report = Callable[[dict[str, Any]], None]
VALIDATED = ("zero", "prior")  # how z is chosen in validation: 0, and drawn as in the course


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    run: RunFolder
    steps: int
    minutes: float
    scores: dict[str, float]


class _StopRequested(Exception):
    """A signal came while the validation ran."""


def run_length(config: Config, data: VideoData) -> Length:
    """How many steps the epochs have. Raises ``DataError`` if no clip can be cut from the training split."""
    train, sequences = config.training, data.split("train")
    if train.steps_per_epoch:
        return Length(train.epochs, train.steps_per_epoch)

    def steps(epoch: int) -> int:
        return -(-len(sampler.epoch_order(sequences, config.data, train, epoch)) // train.batch_size)

    short = min(config.data.fast_train_epochs, train.epochs) if config.data.fast_train else 0
    return Length(train.epochs, steps(train.epochs), short, steps(0) if short else 0)


def train(
    run: RunFolder,
    config: Config,
    data: VideoData,
    *,
    report: Report = lambda event: None,
    resume: Checkpoint | None = None,
    weights: dict[str, Tensor] | None = None,
) -> Outcome:
    """Train until the epochs or the minutes are over, from the start or from a checkpoint of this run.

    ``weights`` are where a fresh run starts from, in place of random ones.
    ``report`` is told of every event as a dict with a "kind"; the same dicts make up the run's history.
    Raises ``Stopped`` after a signal, with everything saved, and ``NonFiniteError`` before a NaN does any harm.
    """
    return _Training(run, config, data, report, resume, weights).run_to_the_end()


@dataclass
class _Training:
    run: RunFolder
    config: Config
    data: VideoData
    report: Report
    resume: Checkpoint | None
    weights: dict[str, Tensor] | None
    requests: Requests = field(default_factory=Requests)

    # --- 1. set up ---------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        config = self.config
        self.device = pick_device(config.training.device)
        self.dtype = compute_dtype(config.training.precision, self.device)
        self.sequences = self.data.split("train")
        self.length = run_length(config, self.data)
        self.order = lru_cache(2)(lambda turn: sampler.epoch_order(self.sequences, config.data, config.training, turn))
        torch.manual_seed(rng.seed_of(config.training.seed, "weights"))
        model = build_model(config)
        if self.weights:
            load_weights(model, self.weights, self.run.path)
        model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.state = new_state(model, config)
        if self.resume:
            self.state.restore(self.resume)
        durable.clean_leftovers(self.run.checkpoints)
        self.history = History(self.run.history, self.resume.meta["history_size"] if self.resume else None)
        self.began = time.monotonic()
        self.minutes_before = self.progress.minutes
        self.window_began = self.began

    @property
    def progress(self) -> Progress:
        return self.state.progress

    def minutes(self) -> float:
        return self.minutes_before + (time.monotonic() - self.began) / 60

    def out_of_time(self) -> bool:
        budget = self.config.training.max_minutes
        return bool(budget) and self.minutes() >= budget

    # --- 2. the loop -------------------------------------------------------------------------------

    def run_to_the_end(self) -> Outcome:
        with listening() as self.requests:
            try:
                self._announce()
                while self.progress.epochs < self.config.training.epochs and not self.out_of_time():
                    self._epoch()
                if self.progress.saved_step != self.progress.step:
                    self._finish_epoch()  # the time was over in the middle of one
            except _StopRequested:
                raise self._stopped() from None
            finally:
                self.history.close()
        outcome = Outcome(self.run, self.progress.step, self.minutes(), self.progress.scores)
        self.report({"kind": "done", "steps": outcome.steps, "minutes": outcome.minutes, **outcome.scores})
        return outcome

    def _announce(self) -> None:
        model, length = self.state.model, self.length
        self.report(
            {
                "kind": "start",
                "run": str(self.run.path),
                "model": self.config.model.name,
                "parameters": sum(p.numel() for p in model.parameters()),
                "device": self.device,
                "precision": str(self.dtype).removeprefix("torch."),
                "clips": len(self.order(self.config.training.epochs)),
                "epochs": length.epochs,
                "steps": length.steps,
                "step": self.progress.step,
            }
        )
        for text in schedules.warnings(self.config, length):
            self.report({"kind": "warning", "text": text})

    def _epoch(self) -> None:
        end = self.length.end(self.progress.epochs)
        while self.progress.step < end:
            self._step()
            if self.requests.stop is not None:
                raise _StopRequested
            due = self.config.checkpoint.every_steps
            if self.requests.save or (due and self.progress.step % due == 0 and self.progress.step < end):
                self.requests.save = False
                self._save()
            if self.out_of_time():
                return
        self._finish_epoch()

    def _step(self) -> None:
        config, progress, train = self.config, self.progress, self.config.training
        # 1. what the schedules say
        at = schedules.scheduled_step(progress.step, self.length, self.minutes(), train.max_minutes)
        epoch = self.length.epoch(at)
        weights = Weights(
            schedules.beta(config.kl, self.length, at),
            config.loss.smoothing,
            schedules.learning_rate(config, self.length, at),
        )
        ratio = schedules.teacher_forcing_ratio(config.teacher_forcing, epoch)
        # 2. the batch, its noise, and which previous frames are the truth
        picks = self._picks()
        frames = schedules.clip_length(train, self.length, at)
        batch = clips.cut(
            self.sequences, picks, frames, config.model.condition, config.data.condition, self._anchors(picks)
        )
        steps = frames - 1
        shape = (len(picks), steps, *self.state.model.latent_shape(*config.data.size))
        eps = rng.normal(shape, train.seed, "posterior", progress.step, device=self.device)
        mask = forcing_mask(
            config.teacher_forcing, ratio, len(picks), steps, train.past, train.seed, epoch, progress.step
        )
        # 3. the update
        self.state.model.train()
        try:
            terms = training_step(self.state, batch, eps, mask, config, weights, self.dtype)
        except NonFiniteError as error:
            raise self._non_finite(error, picks, weights) from None
        progress.step += 1
        # 4. the books
        numbers: dict[str, Tensor | float] = {
            **terms,
            "beta": weights.beta,
            "teacher_forcing": ratio,
            "forced": float(mask[:, train.past :].ne(0).float().mean()) if steps > train.past else 1.0,
            "lr": weights.lr,
            "predicted": float(steps),
        }
        progress.window.add(numbers)
        progress.epoch.add(numbers)
        if progress.step % train.log_every == 0:
            self._log("step", progress.window)
            progress.window = Meter()

    def _picks(self) -> list[sampler.Pick]:
        """The clips of this step. An epoch's last batch is filled up from its beginning, so all are full."""
        train, step = self.config.training, self.progress.step
        if train.steps_per_epoch:  # an epoch is only a count: go on through order after order
            n = len(self.order(0))
            turns = (divmod(i, n) for i in range(step * train.batch_size, (step + 1) * train.batch_size))
            return [self.order(turn)[i] for turn, i in turns]
        epoch = self.length.epoch(step)
        order = self.order(epoch)
        first = (step - self.length.begin(epoch)) * train.batch_size
        return [order[i % len(order)] for i in range(first, first + train.batch_size)]

    def _anchors(self, picks: list[sampler.Pick]) -> list[int] | None:
        """A frame of each clip's sequence, for models that keep one in sight."""
        if not self.state.model.uses_anchor:
            return None
        shares = rng.uniform((len(picks),), self.config.training.seed, "anchors", self.progress.step).tolist()
        return [int(share * len(self.sequences[s])) for share, (s, _) in zip(shares, picks, strict=True)]

    def _log(self, kind: str, meter: Meter) -> None:
        now = time.monotonic()
        record = {
            "kind": kind,
            "step": self.progress.step,
            "epoch": self.length.epoch(self.progress.step - 1),
            **meter.means(),
            "minutes": self.minutes(),
        }
        if kind == "step":
            record["clips_per_second"] = meter.count * self.config.training.batch_size / (now - self.window_began)
            self.window_began = now
        self._record(record)

    def _record(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self.report(record)

    # --- 3. after an epoch: score, save --------------------------------------------------------------

    def _finish_epoch(self) -> None:
        progress, every = self.progress, self.config.validation.every
        self._before_epoch_end = self.history.size
        if progress.epoch.count:
            self._log("epoch", progress.epoch)
        last = progress.epochs + 1 >= self.config.training.epochs or self.out_of_time()
        best = False
        if every and (last or (progress.epochs + 1) % every == 0) and self.data.splits.get(self.data.split_name("val")):
            best = self._validate()
        progress.epoch = Meter()
        if progress.step >= self.length.end(progress.epochs):
            progress.epochs += 1
        self._before_epoch_end = None
        if last or best or progress.epochs % self.config.checkpoint.every == 0:
            self._save(best)

    _before_epoch_end: int | None = None

    def _validate(self) -> bool:
        """A free run over the validation split; returns whether it is the best so far."""

        def advance(done: int, total: int) -> None:
            if self.requests.stop is not None:
                raise _StopRequested
            self.report({"kind": "validating", "done": done, "total": total})

        config = self.config
        with _eval_weights(self.state):
            found = score_rollout(
                self.state.model,
                self.data.split("val"),
                config,
                VALIDATED,
                seed=config.training.seed,
                frames=config.validation.frames,
                device=self.device,
                progress=advance,
            )
        record: dict[str, Any] = {
            "kind": "validation",
            "step": self.progress.step,
            "epoch": self.length.epoch(self.progress.step - 1),
        }
        for latent in VALIDATED:
            record[f"psnr_{latent}"] = found[latent]["psnr_mean"]
            record[f"ssim_{latent}"] = found[latent]["ssim_mean"]
            record[f"psnr_{latent}_per_frame"] = found[latent]["psnr_per_frame"]
        baseline = "baseline_copy_last_past_psnr" if config.training.past > 1 else "baseline_copy_first_psnr"
        record[baseline] = found["zero"][baseline]
        score = record[config.validation.metric]
        if not math.isfinite(score):
            raise NonFiniteError(
                f"the validation's {config.validation.metric} became {score} at step {self.progress.step}; "
                f"the checkpoints saved before are intact.",
                f"Try a lower learning rate (--lr {config.optimizer.lr / 3:.2g}).",
            )
        best = self.progress.best is None or score > self.progress.best
        self.progress.scores = {k: record[k] for k in ("psnr_zero", "psnr_prior", "ssim_zero", "ssim_prior")}
        if best:
            self.progress.best = score
        self._record(record)
        self.window_began = time.monotonic()  # the next clips/s are those of training alone
        return best

    def _save(self, best: bool = False) -> None:
        progress = self.progress
        progress.minutes, progress.saved_step = self.minutes(), progress.step
        size = self.history.size if self._before_epoch_end is None else self._before_epoch_end
        meta = {
            "version": __version__,
            "config": settings.to_table(self.config),
            "step": progress.step,
            "epoch": progress.epochs,
            "scores": progress.scores,
            "progress": progress.to_json(),
            "history_size": size,
        }
        path = checkpoint.commit(
            self.run.checkpoints,
            self.state.tensors(),
            meta,
            step=progress.step,
            best=best,
            keep=self.config.checkpoint.keep,
        )
        self.report({"kind": "checkpoint", "path": str(path), "step": progress.step, "best": best})

    # --- 4. endings ---------------------------------------------------------------------------------

    def _stopped(self) -> Stopped:
        self._save()
        return Stopped(
            f"stopped at step {self.progress.step} of {self.length.steps}; everything is saved.",
            f"Go on with: vidcvae resume {self.run.path}",
            self.requests.exit_code,
        )

    def _non_finite(self, error: NonFiniteError, picks: list[sampler.Pick], weights: Weights) -> NonFiniteError:
        where = self.run.path / "non-finite.json"
        durable.write_json(
            where,
            {
                "step": self.progress.step,
                "problem": error.message,
                "beta": weights.beta,
                "lr": weights.lr,
                "clips": [{"sequence": self.sequences[s].name, "start": start} for s, start in picks],
            },
        )
        last = self.run.checkpoints / checkpoint.LAST
        kept = f"{last} is intact" if last.exists() else "no checkpoint was saved yet"
        return NonFiniteError(
            f"{error.message} at step {self.progress.step}; nothing was updated with it, and {kept}. "
            f"The batch is described in {where}.",
            f"Try a lower learning rate (--lr {weights.lr / 3:.2g})"
            + (", a higher first beta (--set kl.start=0.01)" if weights.beta < 0.001 else "")
            + ", or --set training.precision=float32.",
        )


class _eval_weights:
    """The model in eval mode, with the moving average of its weights where there is one, for a block."""

    def __init__(self, state: TrainingState) -> None:
        self.model: nn.Module = state.model
        self.ema = state.ema

    def __enter__(self) -> None:
        self.model.eval()
        if self.ema:
            self.raw = {name: p.detach().clone() for name, p in self.model.named_parameters()}
            self._put(self.ema)

    def __exit__(self, *error: object) -> None:
        if self.ema:
            self._put(self.raw)

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(weights[name])
