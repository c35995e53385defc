"""The training loop: what to train on, what is trained, and then step after step, each saved so that it can go on.

Everything random is a function of (seed, stream, step), so a resumed run is the uninterrupted one, bit for bit.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vidcvae import __version__, rng
from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.data import clips, resident, sampler
from vidcvae.data.clips import ClipBatch, Place, VideoData
from vidcvae.data.resident import Resident
from vidcvae.errors import NonFiniteError, Stopped
from vidcvae.evaluation.freerun import Way, measure
from vidcvae.evaluation.score import summaries
from vidcvae.models import build_model
from vidcvae.models.loading import load_weights, pick_device
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.checkpoint import Checkpoint
from vidcvae.storage.history import History
from vidcvae.storage.run import RunFolder
from vidcvae.training import failures, schedules
from vidcvae.training.distributed import ALONE, Ranks, share_statistics
from vidcvae.training.engine import Engine
from vidcvae.training.schedules import Length
from vidcvae.training.signals import Requests, exit_code, listening
from vidcvae.training.state import Meter, Progress, TrainingState, new_state
from vidcvae.training.step import Draws, Weights, compute_dtype, draw, forcing_mask

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
    """A signal came."""


@dataclass
class Asked:
    """What all ranks know is asked of them: a signal's number, a checkpoint; and how late it is."""

    stop: int | None = None
    save: bool = False
    minutes: float = 0.0


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
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train until the epochs or the minutes are over, from the start or from a checkpoint of this run.

    ``weights`` are where a fresh run starts from, in place of random ones.
    ``report`` is told of every event as a dict with a "kind"; the same dicts make up the run's history.
    ``ranks`` are the processes that train together (``distributed.join``); rank 0 alone writes and reports.
    Raises ``Stopped`` after a signal, with everything saved, and ``NonFiniteError`` before a NaN does any harm.
    """
    return _Training(run, config, data, report, resume, weights, ranks).run_to_the_end()


@dataclass
class _Training:
    run: RunFolder
    config: Config
    data: VideoData
    report: Report
    resume: Checkpoint | None
    weights: dict[str, Tensor] | None
    ranks: Ranks
    requests: Requests = field(default_factory=Requests)
    asked: Asked = field(default_factory=Asked)
    _unchecked: list[tuple[int, list[Place], Tensor, Weights]] = field(default_factory=list)

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
        if config.training.batch_norm_ranks == "sync":
            share_statistics(model, self.ranks)
        self.state = new_state(model, config)
        if self.resume:
            self.state.restore(self.resume)
        self.engine = Engine(self.state, config, self.dtype, self.ranks)
        self.cut = self._source()
        if not self.ranks.main:
            self.report = lambda event: None
        else:
            durable.clean_leftovers(self.run.checkpoints)
            self.history = History(self.run.history, self.resume.meta["history_size"] if self.resume else 0)
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
        return bool(budget) and self.asked.minutes >= budget

    def _agree(self) -> None:
        """Let all ranks know what any of them was asked, and go by rank 0's clock, so that they decide alike."""
        save, self.requests.save = self.requests.save, False
        minutes = self.minutes() if self.ranks.main else 0.0
        stop, any_save, self.asked.minutes = self.ranks.largest(self.requests.stop or 0, save, minutes)
        self.asked.stop = int(stop) or None
        self.asked.save |= bool(any_save)

    def _source(self) -> Callable[[list[Place], int], ClipBatch]:
        """What cuts clips of a length at places: on a GPU, from a copy there of the whole split, where it fits."""
        kind, pairing = self.config.model.condition, self.config.data.condition
        if self.device == "cuda" and resident.fits(self.sequences, kind):
            return Resident(self.sequences, kind, pairing, self.device).cut
        return lambda places, length: clips.cut(self.sequences, places, length, kind, pairing)

    # --- 2. the loop -------------------------------------------------------------------------------

    def run_to_the_end(self) -> Outcome:
        with listening() as self.requests:
            try:
                self._announce()
                self._begin_alike()
                while self.progress.epochs < self.config.training.epochs and not self.out_of_time():
                    self._epoch()
                if self.progress.saved_step != self.progress.step:
                    self._finish_epoch()  # the time was over in the middle of one
            except _StopRequested:
                raise self._stopped() from None
            finally:
                if self.ranks.main:
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

    def _begin_alike(self) -> None:
        self.ranks.must_agree(
            configuration=settings.to_table(self.config),
            clips=[len(sequence) for sequence in self.sequences],
            position=self.progress.to_json(),
            weights=sum(float(p.detach().double().abs().sum()) for p in self.state.model.parameters()),
        )
        self._agree()

    def _epoch(self) -> None:
        end = self.length.end(self.progress.epochs)
        while self.progress.step < end:
            self._step()
            self._agree()
            if self.asked.stop is not None:
                raise _StopRequested
            due = self.config.checkpoint.every_steps
            if self.asked.save or (due and self.progress.step % due == 0 and self.progress.step < end):
                self._save()
            if self.out_of_time():
                return
        self._finish_epoch()

    def _step(self) -> None:
        config, progress, train = self.config, self.progress, self.config.training
        # 1. what the schedules say
        at = schedules.scheduled_step(progress.step, self.length, self.asked.minutes, train.max_minutes)
        epoch = self.length.epoch(at)
        weights = Weights(
            schedules.beta(config.kl, self.length, at),
            config.loss.smoothing,
            schedules.learning_rate(config, self.length, at),
        )
        ratio = schedules.teacher_forcing_ratio(config.teacher_forcing, epoch)
        # 2. the batch, its noise, and which previous frames are the truth
        frames = schedules.clip_length(train, self.length, at)
        places, batch = self._batch(frames)
        mask = forcing_mask(
            config.teacher_forcing, ratio, len(places), frames - 1, train.past, train.seed, epoch, progress.step
        )
        draws = self._draws(mask)[self.ranks.slice(len(places))]
        # 3. the update
        self.state.model.train()
        try:
            terms, ends = self.engine.step(batch, draws, weights)
        except NonFiniteError as error:
            raise self._non_finite(error, places, batch, draws, weights) from None
        except RuntimeError as error:
            if not failures.ran_out_of_memory(error):
                raise
            raise failures.out_of_memory(error, config, self.ranks.world, self.run) from error
        if self.state.replay:
            self.state.replay.add(self.ranks.all_rows(ends), places, frames)
        self._unchecked.append((progress.step, places, mask, weights))
        progress.step += 1
        if progress.step % train.log_every == 0:
            self._check()
        # 4. the books
        numbers: dict[str, Tensor | float] = {
            **terms,
            "beta": weights.beta,
            "teacher_forcing": ratio,
            "forced": float(mask[:, train.past :].ne(0).float().mean()) if frames - 1 > train.past else 1.0,
            "lr": weights.lr,
            "predicted": float(frames - 1),
        }
        progress.window.add(numbers)
        progress.epoch.add(numbers)
        if progress.step % train.log_every == 0:
            self._log("step", progress.window)
            progress.window = Meter()

    def _check(self) -> None:
        """Make sure that all steps so far were finite, of which a GPU has not told yet."""
        try:
            self.engine.check()
        except NonFiniteError as error:
            self.progress.step, places, mask, weights = self._unchecked[-self.engine.late]
            mine = self.ranks.slice(len(places))
            batch, draws = self.cut(places[mine], mask.shape[1] + 1), self._draws(mask)[mine]
            raise self._non_finite(error, places, batch, draws, weights) from None
        self._unchecked.clear()

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

    def _batch(self, length: int) -> tuple[list[Place], ClipBatch]:
        """Where the clips of this step are from, some of them where an earlier one ended; and this rank's own."""
        train, step = self.config.training, self.progress.step
        places = [self._place(pick, i) for i, pick in enumerate(self._picks())]
        rows: list[int] = []
        if self.state.replay:
            places, rows = self.state.replay.choose(places, self.sequences, length, train.replay, train.seed, step)
        mine = self.ranks.slice(len(places))
        batch = self.cut(places[mine], length)
        if self.state.replay:
            batch = replace(batch, start=self.state.replay.starts(batch.frames[:, 0], rows[mine]))
        return places, batch

    def _place(self, pick: sampler.Pick, i: int) -> Place:
        """A clip's anchor, for models that keep one in sight: a frame of its sequence; and how it is moved."""
        sequence, first = pick
        data, train = self.config.data, self.config.training
        share, coin, *by = rng.uniform((4,), train.seed, "places", self.progress.step, i).tolist()
        down, right = (round((2 * x - 1) * data.shift) for x in by)
        anchor = int(share * len(self.sequences[sequence])) if self.state.model.uses_anchor else -1
        return Place(sequence, first, anchor, int(data.flip and coin < 0.5), down, right)

    def _draws(self, mask: Tensor) -> Draws:
        """Everything random in this step, apart from its clips; ``mask`` is (B, T-1)."""
        train, step, size = self.config.training, self.progress.step, self.config.data.size
        shape = (*mask.shape, *self.state.model.latent_shape(*size))
        eps = rng.normal(shape, train.seed, "posterior", step, device=self.device)
        noise = level = keep = None
        if train.noise:
            level = rng.uniform((len(mask), 1), train.seed, "noise-level", step).expand_as(mask) * train.noise
            noise = rng.normal((*mask.shape, 3, *size), train.seed, "noise", step, device=self.device)
            noise = noise * rng.there(level, self.device)[:, :, None, None, None]
        if train.latent_dropout:
            keep = (rng.uniform((len(mask),), train.seed, "latent-dropout", step) >= train.latent_dropout).float()
            keep *= len(keep) / keep.sum().clamp(min=1)
        return draw(eps, mask, noise=noise, level=level, keep=keep)

    def _log(self, kind: str, meter: Meter) -> None:
        if not self.ranks.main:
            return
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
        if self.ranks.main:
            self.history.append(record)
        self.report(record)

    # --- 3. after an epoch: score, save --------------------------------------------------------------

    def _finish_epoch(self) -> None:
        progress, every = self.progress, self.config.validation.every
        self._before_epoch_end = self.history.size if self.ranks.main else None
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

        self._check()
        config, sequences = self.config, self.data.split("val")
        self.ranks.share_buffers(self.state.model)
        tables: dict[Way, list[Tensor]] = {}
        with _eval_weights(self.state), contextlib.suppress(_StopRequested):
            tables = measure(
                self.state.model,
                sequences,
                config,
                [Way(z) for z in VALIDATED],
                seed=config.training.seed,
                frames=config.validation.frames,
                device=self.device,
                progress=advance,
                only=self.ranks.share(len(sequences)),
            )
        self._agree()  # before anyone waits for the tables of a rank that was told to stop
        if self.asked.stop is not None:
            raise _StopRequested
        found = summaries({way: self.ranks.dealt(own) for way, own in tables.items()}, sequences)
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
        self._check()
        progress.minutes, progress.saved_step = self.minutes(), progress.step
        self.asked.save = False
        if not self.ranks.main:
            return
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
        assert self.asked.stop is not None
        self._save()
        return Stopped(
            f"stopped at step {self.progress.step} of {self.length.steps}; everything is saved.",
            f"Go on with: vidcvae resume {self.run.path}",
            exit_code(self.asked.stop),
        )

    def _non_finite(
        self, error: NonFiniteError, places: list[Place], batch: ClipBatch, draws: Draws, weights: Weights
    ) -> NonFiniteError:
        where = self.run.path / "non-finite.json"
        ranks = self.ranks.gather(failures.losses_of(self.state, batch, draws, self.config, weights, self.dtype))
        clips = [{"sequence": self.sequences[p.sequence].name, "start": p.first} for p in places]
        alone = [losses for rank in ranks for losses in rank["alone"]]
        about = {
            "step": self.progress.step,
            "problem": error.message,
            "beta": weights.beta,
            "lr": weights.lr,
            "ranks": [rank["losses"] for rank in ranks],
            "clips": [clip | {"losses": losses} for clip, losses in zip(clips, alone, strict=True)],
        }
        if self.ranks.main:
            durable.write_json(where, about)
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
