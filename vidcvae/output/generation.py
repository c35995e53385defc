"""From given frames and conditions to the frames of a video, ready to be written.

S: sequences or samples side by side; P: given frames; T: all frames; C, H, W: a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from torch import Tensor

from vidcvae.config import Config
from vidcvae.config.schema import Latent
from vidcvae.data import clips, images
from vidcvae.errors import DataError
from vidcvae.evaluation import metrics
from vidcvae.evaluation.free_run import batches, sequence_noise, stacked
from vidcvae.models.loading import Loaded
from vidcvae.models.rollout import Noise, rollout, zero_noise
from vidcvae.output import pictures, video
from vidcvae.output.video import on_disk, to_bytes
from vidcvae.progress import Progress, unreported
from vidcvae.storage import durable

MOST_COLUMNS, MOST_DANCE_COLUMNS = 100, 10  # time steps in the picture of a comparison, and of a dance


@dataclass(frozen=True)
class GenerationInput:
    """The input of a video.

    past: uint8 (P, 3, H, W); condition: (T, ...), or None; length: T; truth: uint8 (T, 3, H, W) if known.
    joints: (T, 25, 2) in pixels, if the joints of the poses are known.
    """

    past: np.ndarray
    condition: np.ndarray | None
    length: int
    truth: np.ndarray | None = None
    joints: np.ndarray | None = None

    @classmethod
    def of(cls, sequence: clips.Sequence, begin: int, length: int, config: Config) -> GenerationInput:
        """The input for ``length`` frames of a sequence from frame ``begin`` on; as many are given as in training."""
        rows = clips.condition_rows(sequence, begin, length, *config.conditioning)
        past = sequence.frames[begin : begin + config.training.past]
        return cls(np.asarray(past), None if rows is None else np.array(rows), length)

    def batch(self, copies: int) -> tuple[Tensor, Tensor | None]:
        """Past (S, P, 3, H, W) and condition (S, T, ...), the same for each of ``copies`` samples."""
        past, condition = torch.from_numpy(self.past.copy()), self.condition
        rows = None if condition is None else torch.from_numpy(condition).expand(copies, *condition.shape)
        return past.expand(copies, *past.shape), rows


def compare(
    loaded: Loaded, given: GenerationInput, latent: Latent, noise: Noise, samples: int, progress: Progress
) -> dict[str, np.ndarray]:
    """Videos by title, uint8 (T, 3, H, W) each: truth, posterior, best sample and all samples, as in the figures of
    Denton & Fergus 2018. If the truth is not known, the samples alone.

    The posterior video uses z's mean. The best sample has the highest mean PSNR over the predicted frames.
    """
    past, condition = given.batch(samples)
    made = on_disk((samples, given.length, *given.past.shape[1:]))
    for t, frames in enumerate(videos(loaded, past, condition, given.length, latent, noise)):
        made[:, t] = frames
        progress(t + 1, given.length)
    columns = dict(zip(_titles(samples), made, strict=True))
    if given.truth is None:
        return columns
    past, condition = given.batch(1)
    truth = torch.from_numpy(given.truth.copy())
    run = rollout(
        loaded.model, past, condition, latent="posterior", length=given.length, truth=truth[None], dtype=loaded.dtype
    )
    posterior = np.concatenate([given.past, *map(to_bytes, run)])
    others = {"truth": given.truth, "posterior": posterior}
    if samples > 1:
        future = slice(len(given.past), None)
        target = clips.to_unit(truth[future])
        scores = [metrics.psnr(clips.to_unit(torch.from_numpy(m[future])), target).mean().item() for m in made]
        others["best"] = made[int(np.argmax(scores))]
    return others | columns


def _titles(samples: int) -> list[str]:
    return ["generated"] if samples == 1 else [f"sample {k}" for k in range(samples)]


def videos(
    loaded: Loaded, past: Tensor, condition: Tensor | None, length: int, latent: Latent, noise: Noise
) -> Iterator[np.ndarray]:
    """Yield uint8 (S, 3, H, W) for every frame from 0 to T-1; the given frames are not changed.

    past: uint8 (S, P, 3, H, W); condition: (S, T, ...) for ``rollout``, or None. Memory use does not grow with T.
    """
    yield from past.numpy().swapaxes(0, 1)
    for frame in rollout(loaded.model, past, condition, noise, latent=latent, length=length, dtype=loaded.dtype):
        yield to_bytes(frame)


def latent_shape(loaded: Loaded) -> tuple[int, ...]:
    """The shape of z for the model's frame size."""
    return loaded.model.latent_shape(*loaded.config.data.frame_size)


def fresh_noise(loaded: Loaded, latent: Latent, seed: int, rows: Sequence[int]) -> Noise:
    """The noise that a score of these rows uses: eps_t of each from (seed, row, t), or 0 unless z is drawn."""
    return sequence_noise(latent_shape(loaded), seed, rows, loaded.device) if latent == "prior" else zero_noise


def replayed_noise(path: Path, steps: int, loaded: Loaded) -> Noise:
    """Noise from the tensor ``eps`` (steps, *shape of z) of a safetensors file: eps[t-1] for the step into frame t.

    Only the entry in use is in memory. Raises ``DataError`` if the file is missing, damaged, or has another shape.
    """
    shape = latent_shape(loaded)
    try:
        file = safetensors.safe_open(path, "pt")
        names = file.keys()
        entries = file.get_slice("eps") if "eps" in names else None
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.", _LATENTS) from None
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable safetensors file ({error}).", _LATENTS) from None
    if entries is None:
        raise DataError(f"{path} has no tensor named eps, only {', '.join(sorted(names)) or 'nothing'}.", _LATENTS)
    if (actual := list(entries.get_shape())) != [steps, *shape]:
        raise DataError(
            f"eps in {path} has the shape {actual}, but {steps + 1} frames of this model need {[steps, *shape]}.",
            "It must have one entry for each frame after the first.",
        )

    def noise(t: int) -> Tensor:
        eps: Tensor = entries[t - 1 : t].float()
        if not eps.isfinite().all():
            raise DataError(f"eps[{t - 1}] in {path} has values that are not finite numbers.")
        return eps.to(loaded.device)

    return noise


_LATENTS = "Give --latents a safetensors file with one tensor, eps: (T-1, C, H, W), or (T-1, z) for robot pushing."


def export_frames(
    loaded: Loaded,
    sequences: Sequence[clips.Sequence],
    *,
    latent: Latent,
    seed: int,
    progress: Progress = unreported,
) -> list[np.ndarray]:
    """The whole video of every sequence, uint8 (T, 3, H, W) each, including the given frames.

    Sequences of equal length are rolled out side by side; their frames are kept on the disk.
    Raises ``DataError`` for a sequence with nothing to predict.
    """
    config, done = loaded.config, 0
    lengths = [s.condition_length for s in sequences]
    for sequence, length in zip(sequences, lengths, strict=True):
        if length <= config.training.past or len(sequence) < config.training.past:
            raise DataError(
                f"sequence {sequence.name} has {len(sequence)} frames and conditions for {length}: nothing is left to "
                f"predict after {config.training.past} given."
            )
    results: dict[int, np.ndarray] = {}
    for picks in batches(lengths):
        chosen, length = [sequences[i] for i in picks], lengths[picks[0]]
        given = [GenerationInput.of(s, 0, length, config) for s in chosen]
        past, condition = torch.from_numpy(np.stack([g.past for g in given])), stacked([g.condition for g in given])
        noise = fresh_noise(loaded, latent, seed, picks)
        made = on_disk((len(picks), length, *past.shape[2:]))
        for t, frames in enumerate(videos(loaded, past, condition, length, latent, noise)):
            made[:, t] = frames
            progress(done + (t + 1) * len(picks), sum(lengths))
        done += len(picks) * length
        results |= dict(zip(picks, made, strict=True))
    return [results[i] for i in range(len(sequences))]


def write_panels(
    add: Callable[[np.ndarray], None],
    strip: Path,
    given: GenerationInput,
    made: Iterator[np.ndarray],
    scale: int,
    advance: Progress,
) -> None:
    """Write the pose and the samples side by side into a video, and some time steps into a PNG."""
    poses = given.condition
    assert poses is not None  # this function is for dances only
    times = video.spread(len(poses), MOST_DANCE_COLUMNS)
    kept: list[list[np.ndarray]] = []
    for t, frames in enumerate(made):
        titles = ["pose", *_titles(len(frames))]
        row = [poses[t], *frames]
        add(pictures.panel(row, titles, scale))
        if t in times:
            kept.append([frame.copy() for frame in row])
        advance(t + 1, len(poses))
    picture = pictures.strip(list(zip(*kept, strict=True)), titles, times, scale)
    durable.write_bytes(strip, images.encode_png(picture))


def write_comparison(add: Callable[[np.ndarray], None], strip: Path, videos: dict[str, np.ndarray], scale: int) -> None:
    """Write the videos side by side into one, and their time steps, at most ``MOST_COLUMNS``, into a PNG."""
    rows, titles = list(videos.values()), list(videos)
    for frames in zip(*rows, strict=True):
        add(pictures.panel(frames, titles, scale))
    times = video.spread(len(rows[0]), MOST_COLUMNS)
    picture = pictures.strip([[row[t] for t in times] for row in rows], titles, times, scale)
    durable.write_bytes(strip, images.encode_png(picture))
