"""The input of each training step: its clips, their places in the dataset, and all random draws.

Everything is a function of (seed, stream, step), so a resumed run, or a report after a failure, can repeat any step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from vidcvae import rng
from vidcvae.config import AnchorCvaeConfig, Config
from vidcvae.data import clips, resident, sampler, scene
from vidcvae.data.clips import ClipBatch, Place, VideoData
from vidcvae.data.resident import Resident
from vidcvae.data.scene import Scene
from vidcvae.errors import DataError
from vidcvae.evaluation import free_run
from vidcvae.models.interface import VideoModel
from vidcvae.training.distributed import Ranks
from vidcvae.training.schedules import Length
from vidcvae.training.state import TrainingState
from vidcvae.training.step import Draws, draw

LEAST_STILL = 0.8  # share of the background; one room of real clips has 0.97 to 0.99, two different rooms 0.3


def run_length(config: Config, data: VideoData) -> Length:
    """The number of epochs and steps.

    Raises ``DataError`` if the data do not suit the model: no clip can be cut from the training split, a sequence
    lacks the conditions, or a validation sequence is too short to be scored.
    """
    train, sequences = config.training, data.split("train")
    validation = data.split("val") if config.validation.every and data.has_split("val") else ()
    for sequence in (*sequences, *validation):
        clips.condition_rows(sequence, 0, 1, *config.conditioning)
    for sequence in validation:
        try:
            free_run.run_length(sequence, train.past)
        except DataError as error:
            hint = "Remove it from val, or train without validation: --set validation.every=0"
            raise DataError(f"val: {error.message}", hint) from None
    if train.steps_per_epoch:
        return Length(train.epochs, train.steps_per_epoch)

    def steps(epoch: int) -> int:
        return -(-len(sampler.epoch_order(sequences, config.data, train, epoch)) // train.batch_size)

    short = min(config.data.fast_train_epochs, train.epochs) if config.data.fast_train else 0
    return Length(train.epochs, steps(train.epochs), short, steps(0) if short else 0)


def clips_of_epoch(config: Config, data: VideoData) -> int:
    """The number of clips in an epoch, after those of fast_train."""
    return len(sampler.epoch_order(data.split("train"), config.data, config.training, config.training.epochs))


def empty_scene(config: Config, data: VideoData) -> Scene | None:
    """The empty scene of the training split, for a model that mixes its frames with one. Large frames take seconds."""
    if not (isinstance(config.model, AnchorCvaeConfig) and config.model.scene):
        return None
    train = data.split("train")
    return scene.behind(train, _in_use(config, train))


def warnings(config: Config, data: VideoData, empty: Scene | None = None) -> list[str]:
    """Probable mistakes in the settings for these data, each with its remedy. empty: from ``empty_scene``."""
    texts, batch, clips = [], config.training.batch_size, clips_of_epoch(config, data)
    if batch > clips and (not config.training.steps_per_epoch or config.data.sampling == "windows"):
        texts.append(
            f"training.batch_size ({batch}) is larger than the {clips} clips of an epoch, so every batch repeats some "
            f"of them. Use --batch-size {clips} or less."
        )
    if empty and empty.still < LEAST_STILL:
        texts.append(
            f"model.scene needs one room and a fixed camera, but only {empty.still:.0%} of the background of "
            f"{data.source} stays the same. The first frame is the better anchor: --set model.scene=false"
        )
    if config.validation.every and not data.has_split("val"):
        texts.append(
            f"{data.source} has no val split: nothing is validated, and the last checkpoint counts as the best. "
            "Afterwards, evaluate, plot and report need --split train or other data: --data DATASET."
        )
    return texts


def show_scene(model: VideoModel, empty: Scene | None) -> None:
    """Give the empty scene to a model that mixes its frames with one."""
    if model.scene is not None and empty:
        model.scene.copy_(clips.to_unit(torch.from_numpy(empty.picture)))


def _in_use(config: Config, sequences: tuple[clips.Sequence, ...]) -> list[int]:
    data = config.data
    return sampler.frames_in_use(sequences, config.training.clip_length, data.sampling, data.partial)


class Batches:
    """The batches of the training split; each rank takes its own rows.

    ``order(epoch)``: the clips of an epoch in training order. ``in_use``: for each sequence, the number of frames that
    data.partial allows. ``cut(places, length)``: cuts clips.
    """

    def __init__(
        self, config: Config, sequences: tuple[clips.Sequence, ...], length: Length, state: TrainingState, ranks: Ranks
    ) -> None:
        self.config, self.sequences, self.length, self.state = config, sequences, length, state
        self.device = state.model.device
        self.mine = ranks.slice(config.training.batch_size)
        self.order = lru_cache(2)(partial(sampler.epoch_order, sequences, config.data, config.training))
        self.in_use = _in_use(config, sequences)
        self.cut_clips = self._source()
        empty = state.model.scene
        self.scene = None if empty is None else np.asarray((empty.cpu() * 255).round().to(torch.uint8))

    def of(self, step: int, length: int) -> tuple[list[Place], ClipBatch]:
        """The places of all clips of a step, and this rank's clips. With replay, some continue an earlier clip."""
        train, replay = self.config.training, self.state.replay
        places = [self._place(pick, step, i) for i, pick in enumerate(self._picks(step))]
        if not replay:
            return places, self.cut(places[self.mine], length)
        places, rows = replay.choose(places, self.in_use, length, train.replay, train.seed, step)
        batch = self.cut(places[self.mine], length)
        return places, replace(batch, start=replay.starts(batch.frames[:, 0], rows[self.mine]))

    def cut(self, places: list[Place], length: int) -> ClipBatch:
        """Clips at ``places``. The anchor of a model with an empty scene is that scene, moved like the clip."""
        batch = self.cut_clips(places, length)
        if self.scene is None:
            return batch
        scenes = torch.from_numpy(np.stack([clips.mirrored_and_shifted(self.scene, place) for place in places]))
        return replace(batch, anchor=(scenes, torch.full_like(scenes, 255)))

    def draws(self, step: int, mask: Tensor) -> Draws:
        """This rank's random draws for a step, apart from its clips; ``mask`` (B, T-1) covers all ranks."""
        train, size = self.config.training, self.config.data.frame_size
        shape = (*mask.shape, *self.state.model.latent_shape(*size))
        eps = rng.normal(shape, train.seed, "posterior", step, device=self.device)
        noise = level = None
        if train.noise:
            level = rng.uniform((len(mask), 1), train.seed, "noise-level", step).expand_as(mask) * train.noise
            noise = rng.normal((*mask.shape, 3, *size), train.seed, "noise", step, device=self.device)
            noise = noise * rng.to_device(level, self.device)[:, :, None, None, None]
        keep = self._keep(step)
        if keep is not None:
            keep *= len(keep) / keep.sum().clamp(min=1)
        return draw(eps, mask, noise=noise, level=level, keep=keep)[self.mine]

    def clips_per_epoch(self) -> int:
        """The number of clips in an epoch that is not shortened: whole batches, or each clip once."""
        train = self.config.training
        return train.steps_per_epoch * train.batch_size or len(self.order(train.epochs))

    def draws_latents(self, step: int) -> bool:
        """Whether any clip of a step, on any rank, has a drawn z. If latent dropout hits all of them, the KL term is a
        meaningless 0."""
        keep = self._keep(step)
        return keep is None or bool(keep.any())

    def _keep(self, step: int) -> Tensor | None:
        """1 for clips whose z is drawn, 0 for clips that use the prior's mean; None if all are drawn."""
        train = self.config.training
        if not train.latent_dropout:
            return None
        return (rng.uniform((train.batch_size,), train.seed, "latent-dropout", step) >= train.latent_dropout).float()

    def _picks(self, step: int) -> list[sampler.Pick]:
        """The clips of a step. The last batch of an epoch is filled up with clips from its beginning."""
        train, data = self.config.training, self.config.data
        if train.steps_per_epoch:  # an epoch is only a count: batches run on from one order of all clips to the next
            fast_steps = data.fast_train_epochs * train.steps_per_epoch if data.fast_train else 0
            fast = step < fast_steps
            n, since = len(self.order(0, fast)), step if fast else step - fast_steps
            turns = (divmod(i, n) for i in range(since * train.batch_size, (since + 1) * train.batch_size))
            return [self.order(turn, fast)[i] for turn, i in turns]
        epoch = self.length.epoch(step)
        order = self.order(epoch)
        first = (step - self.length.begin(epoch)) * train.batch_size
        return [order[i % len(order)] for i in range(first, first + train.batch_size)]

    def _place(self, pick: sampler.Pick, step: int, i: int) -> Place:
        """The place of a clip, with its random flip and shift, and a random anchor frame for models that use one."""
        sequence, first = pick
        data, train = self.config.data, self.config.training
        share, coin, *by = rng.uniform((4,), train.seed, "places", step, i).tolist()
        down, right = (round((2 * x - 1) * data.shift) for x in by)
        uses_anchor = self.state.model.uses_anchor and self.scene is None
        anchor = int(share * self.in_use[sequence]) if uses_anchor else -1
        return Place(sequence, first, anchor, int(data.flip and coin < 0.5), down, right)

    def _source(self) -> Callable[[list[Place], int], ClipBatch]:
        """The function that cuts clips; on a GPU it cuts from a copy of the whole split there, if that fits."""
        # Nothing here refers to self, which holds this function: a cycle would outlive the training
        sequences, conditioning = self.sequences, self.config.conditioning
        if self.device.type == "cuda" and resident.fits(sequences, conditioning[0]):
            return Resident(sequences, *conditioning, str(self.device)).cut
        return lambda places, length: clips.cut(sequences, places, length, *conditioning)
