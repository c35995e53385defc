"""The training loop: steps, validation and checkpoints, from the start or from a checkpoint.

Everything random is a function of (seed, stream, step), so a resumed run equals an uninterrupted one bit for bit: on a
CPU if the number of threads is the same (``threads``), on a GPU with ``training.deterministic``.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vidcvae import __version__, rng
from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.config.schema import error_name, kl_unit
from vidcvae.data.clips import ClipBatch, Place, VideoData
from vidcvae.errors import NonFiniteError, Stopped, typed
from vidcvae.models import build_model
from vidcvae.models.arithmetic import using_threads
from vidcvae.models.loading import load_weights, pick_device
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.checkpoint import Checkpoint
from vidcvae.storage.history import History
from vidcvae.storage.run import RunFolder
from vidcvae.training import batches, failures, schedules, validation
from vidcvae.training.batches import Batches, run_length
from vidcvae.training.distributed import ALONE, Ranks, share_statistics
from vidcvae.training.engine import Engine, deterministic
from vidcvae.training.pace import Pace
from vidcvae.training.signals import Report, Requests, exit_code, listening
from vidcvae.training.state import Meter, Position, new_state
from vidcvae.training.step import Draws, Scheduled, forcing_mask
from vidcvae.training.threads import Threads, may_change
from vidcvae.training.timing import settled


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    minutes: training time over all resumes. validation_minutes: time of a validation after the time budget is used
    up, which ``minutes`` does not include.
    """

    run: RunFolder
    steps: int
    minutes: float
    scores: dict[str, float]
    validation_minutes: float = 0.0


class _StopRequested(Exception):
    """A signal asked training to stop."""


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
    """Train until the epochs or the minutes are used up, from the start or from a checkpoint of this run.

    weights: initial weights of a fresh run. report: receives every event, a dict with a "kind", also those that go into
    the history. Events "stopping" and "leaving" come from another thread, as soon as a signal arrives.
    ranks: the processes that train together (``distributed.join``); only rank 0 writes and reports.
    Raises ``Stopped`` after a signal, with everything saved, ``NonFiniteError`` before a NaN does any harm, and
    ``VidcvaeError`` if memory runs out.
    """
    try:
        with deterministic(config.training.deterministic):
            return _Training(run, config, data, report, resume, weights, ranks).run_to_the_end()
    except (MemoryError, RuntimeError) as error:
        if explained := failures.explained(error, config, ranks.world, run):
            raise explained from error
        raise


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
    pending: Requests = field(default_factory=Requests)  # what all ranks have agreed on
    minutes: float = 0.0  # on rank 0's clock, when the ranks last agreed
    _unchecked: list[tuple[int, list[Place], Tensor, Scheduled, Tensor | None]] = field(default_factory=list)
    _before_epoch_end: int | None = None  # size of the history while an epoch is being finished

    # --- 1. set up ---------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        config = self.config
        self.device = pick_device(config.training.device)
        self.length = run_length(config, self.data)
        torch.manual_seed(rng.seed_of(config.training.seed, "weights"))
        model = build_model(config)
        if self.weights:
            load_weights(model, self.weights, self.run.path)
        self.empty = batches.empty_scene(config, self.data)
        if not self.resume:
            batches.show_scene(model, self.empty)
        model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.arithmetic = settled(model, config, self.device, self.ranks, self.run, self.resume)
        self.dtype = self.arithmetic.dtype
        self.threads = Threads(self.arithmetic.threads, may_change(config, self.device, self.ranks.world))
        if config.training.batch_norm_ranks == "sync":
            share_statistics(model, self.ranks)
        self.state = new_state(model, config)
        if self.resume:
            self.state.restore(self.resume)
        self.engine = Engine(self.state, config, self.dtype, self.ranks)
        self.batches = Batches(config, self.data.split("train"), self.length, self.state, self.ranks)
        if not self.ranks.main:
            self.report = lambda event: None
        else:
            durable.clean_leftovers(self.run.checkpoints)
            self.history = History(self.run.history, self.resume.meta.history_size if self.resume else 0)
        self.validated = (self.resume and self.resume.meta.validation) or {}
        self.pace = Pace(config, self.length, self.progress.step, self.progress.minutes)

    # --- 2. the loop -------------------------------------------------------------------------------

    def run_to_the_end(self) -> Outcome:
        with listening(self.report) as self.requests, using_threads(self.threads.number):
            try:
                self._announce()
                self._require_agreement()
                while self.progress.epochs < self.config.training.epochs and not self._out_of_time():
                    self._epoch()
                if self.progress.epoch.count or self.progress.saved_step != self.progress.step:
                    self._finish_epoch()  # the time ran out within an epoch, or before its validation ended
            except _StopRequested:
                raise self._stopped() from None
            finally:
                self.engine.close()
                if self.ranks.main:
                    self.history.close()
        minutes, last = self.pace.minutes(), self.pace.last_validation
        outcome = Outcome(self.run, self.progress.step, minutes, self.progress.scores, last)
        times = {"minutes": minutes, "validation_minutes": last}
        self.report({"kind": "done", "steps": outcome.steps, **times, **outcome.scores})
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
                "error": error_name(self.config.loss.reconstruction),
                "kl_unit": kl_unit(self.config.kl.reduction),
                "arithmetic": asdict(self.arithmetic),
                "clips": self.batches.clips_per_epoch(),
                "epochs": length.epochs,
                "steps": length.steps,
                "step": self.progress.step,
                "minutes": self.progress.minutes,
                "max_minutes": self.config.training.max_minutes,
                "metric": self.config.validation.metric,
                "best": self.progress.best,
            }
        )
        self.report({"kind": "detail", "text": self.arithmetic.description()})
        for text in (*schedules.warnings(self.config, length), *batches.warnings(self.config, self.data, self.empty)):
            self.report({"kind": "warning", "text": text})

    def _require_agreement(self) -> None:
        self.ranks.must_agree(
            configuration=settings.to_table(self.config),
            clips=[len(sequence) for sequence in self.batches.sequences],
            position=self.progress.to_json(),
            weights=sum(float(p.detach().double().abs().sum()) for p in self.state.model.parameters()),
        )
        self._agree()

    def _epoch(self) -> None:
        end = self.length.end(self.progress.epochs)
        while self.progress.step < end:
            self._step()
            self._agree()
            if warning := self.pace.warning(self.progress.step):
                self.report(warning)
            if self.pending.stop is not None:
                raise _StopRequested
            if self.pending.save or (self._save_is_due() and self.progress.step < end):
                self._save()
            if self._out_of_time():
                return
        self._finish_epoch()

    def _step(self) -> None:
        config, progress = self.config, self.progress
        train, forcing = config.training, config.teacher_forcing
        # 1. the schedules
        scheduled_step = schedules.scheduled_step(progress.step, self.length, self.minutes, train.max_minutes)
        scheduled_epoch = self.length.epoch(scheduled_step)
        scheduled = Scheduled(
            schedules.beta(config.kl, self.length, scheduled_step),
            schedules.learning_rate(config, self.length, scheduled_step),
        )
        ratio = schedules.teacher_forcing_ratio(forcing, scheduled_epoch)
        # 2. the batch, its random draws, and which previous frames are the truth
        frames = schedules.clip_length(train, self.length, scheduled_step)
        places, batch = self.batches.of(progress.step, frames)
        mask = forcing_mask(
            forcing, ratio, len(places), frames - 1, train.past, train.seed, scheduled_epoch, progress.step
        )
        draws = self.batches.draws(progress.step, mask)
        # 3. the update
        self.state.model.train()
        try:
            with self.threads.step(progress.step):
                terms, ends = self.engine.step(batch, draws, scheduled)
        except NonFiniteError as error:
            raise self._non_finite(error, places, batch, draws, scheduled) from None
        if self.state.replay:
            self.state.replay.add(self.ranks.all_rows(ends), places, frames)
        self._unchecked.append((progress.step, places, mask, scheduled, batch.start))
        progress.step += 1
        if progress.step % train.log_every == 0:
            self._check()
        # 4. means and events
        drawn = self.batches.draws_latents(progress.step - 1)
        numbers: dict[str, Tensor | float] = {
            **{name: term for name, term in terms.items() if drawn or not name.startswith("kl")},
            "beta": scheduled.beta,
            "teacher_forcing": ratio,
            "forced": float(mask[:, train.past :].ne(0).float().mean()) if frames - 1 > train.past else 1.0,
            "lr": scheduled.lr,
            "predicted": float(frames - 1),
        }
        progress.window.add(numbers)
        progress.epoch.add(numbers)
        if self.ranks.main:
            self.report(self.pace.after_step(progress.step, numbers))
        if self.threads.change:
            self.report({"kind": "detail", "text": self.threads.change})
        if progress.step % train.log_every == 0:
            self._log("step", progress.window)
            progress.window = Meter()

    # --- 3. after an epoch: validate, save -----------------------------------------------------------

    def _finish_epoch(self) -> None:
        self._check()  # the history has no place for a NaN
        progress, every = self.progress, self.config.validation.every
        self._before_epoch_end = self.history.size if self.ranks.main else None
        if progress.epoch.count:
            self._log("epoch", progress.epoch)
        last = progress.epochs + 1 >= self.config.training.epochs or self._out_of_time()
        best = False
        if every and (last or (progress.epochs + 1) % every == 0) and self.data.has_split("val"):
            with self.pace.beyond_the_budget() if self._out_of_time() else contextlib.nullcontext():
                best = self._validate()
        progress.epoch = Meter()
        if progress.step >= self.length.end(progress.epochs):
            progress.epochs += 1
        self._before_epoch_end = None
        if last or best or progress.epochs % self.config.checkpoint.every == 0 or self._save_is_due():
            self._save(best)

    def _validate(self) -> bool:
        """Score free runs over the validation split; return whether the score is the best so far."""

        def advance(done: int, total: int) -> None:
            if self.requests.stop is not None:
                raise _StopRequested
            self.report({"kind": "validating", "done": done, "total": total})

        config, sequences = self.config, self.data.split("val")
        self.ranks.share_buffers(self.state.model)
        tables: validation.Tables = {}
        with contextlib.suppress(_StopRequested):
            tables = validation.measured(self.state, config, sequences, self.ranks.share(len(sequences)), advance)
        self._agree()  # so that no rank waits for the tables of one that was asked to stop
        if self.pending.stop is not None:
            raise _StopRequested
        step = self.progress.step
        tables = {variant: self.ranks.dealt(own) for variant, own in tables.items()}
        scores = validation.scores(tables, sequences, config, step)
        score = scores[config.validation.metric]
        best = self.progress.best is None or score > self.progress.best
        self.progress.scores = {k: scores[k] for k in (*validation.METRICS, validation.baseline(config))}
        if best:
            self.progress.best = score
        self.validated = validation.counted(self.validated, self.data, config)
        self._record({"kind": "validation", **self.pace.at(step), **scores})
        self.pace.begin_window(step)  # so that the next clips/s does not include the validation
        return best

    def _save(self, best: bool = False) -> None:
        progress = self.progress
        self._check()
        progress.minutes, progress.saved_step, self.pending.save = self.pace.minutes(), progress.step, False
        if not self.ranks.main:
            return
        size = self.history.size if self._before_epoch_end is None else self._before_epoch_end
        meta = checkpoint.CheckpointMeta(
            version=__version__,
            config=settings.to_table(self.config),
            arithmetic=self.arithmetic.saved() | {"threads": self.threads.number},
            step=progress.step,
            epoch=progress.epochs,
            scores=progress.scores,
            progress=progress.to_json(),
            validation=self.validated,
            history_size=size,
        )
        keep = self.config.checkpoint.keep
        path = checkpoint.commit(self.run.checkpoints, self.state.tensors(), meta, best=best, keep=keep)
        self.report({"kind": "checkpoint", "path": str(path), "step": progress.step, "best": best})

    def _save_is_due(self) -> bool:
        every = self.config.checkpoint.every_steps
        return every > 0 and self.progress.step % every == 0

    # --- 4. endings ---------------------------------------------------------------------------------

    def _stopped(self) -> Stopped:
        assert self.pending.stop is not None
        self._save()
        return Stopped(
            f"stopped at step {self.progress.step} of {self.length.steps}; everything is saved.",
            f"To continue: {typed('resume', self.run.path)}",
            exit_code(self.pending.stop),
        )

    def _check(self) -> None:
        """Raise ``NonFiniteError`` if a GPU step since the last check was not finite."""
        try:
            self.engine.check()
        except NonFiniteError as error:
            step, places, mask, scheduled, start = self._unchecked[-self.engine.late]
            self.progress.step = step
            batch = replace(self.batches.cut(places[self.batches.mine], mask.shape[1] + 1), start=start)
            raise self._non_finite(error, places, batch, self.batches.draws(step, mask), scheduled) from None
        self._unchecked.clear()

    def _non_finite(
        self, error: NonFiniteError, places: list[Place], batch: ClipBatch, draws: Draws, scheduled: Scheduled
    ) -> NonFiniteError:
        clips = [{"sequence": self.batches.sequences[p.sequence].name, "start": p.first} for p in places]
        losses = failures.losses_of(self.state, batch, draws, self.config, scheduled, self.dtype)
        step, config = self.progress.step, self.config
        return failures.non_finite(error, self.run, step, scheduled, clips, losses, self.ranks, config, self.dtype)

    # --- 5. clock, signals, history -----------------------------------------------------------------

    @property
    def progress(self) -> Position:
        return self.state.progress

    def _out_of_time(self) -> bool:
        budget = self.config.training.max_minutes
        return bool(budget) and self.minutes >= budget

    def _agree(self) -> None:
        """Share the requests of every rank and rank 0's clock, so that all ranks decide alike."""
        if save := self.requests.save:  # not cleared otherwise: a signal may come in between
            self.requests.save = False
        minutes = self.pace.minutes() if self.ranks.main else 0.0
        stop, any_save, self.minutes = self.ranks.largest(self.requests.stop or 0, save, minutes)
        self.pending.stop = int(stop) or None
        self.pending.save |= bool(any_save)

    def _log(self, kind: str, meter: Meter) -> None:
        if self.ranks.main:
            self._record(self.pace.record(kind, self.progress.step, meter))

    def _record(self, record: dict[str, Any]) -> None:
        if self.ranks.main:
            self.history.append(record)
        self.report(record)
