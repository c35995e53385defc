"""Settings that contradict each other or do not suit the model, each with the fix."""

from __future__ import annotations

from collections.abc import Iterator

from vidcvae.config.schema import AnchorCvaeConfig, Config


def contradictions(config: Config) -> Iterator[str]:
    """Yield every contradiction between settings, with the fix."""
    t = config.training
    if t.clip_length <= t.past:
        yield (
            f"training.clip_length ({t.clip_length}) must exceed training.past ({t.past}): nothing is left to predict."
        )
    if t.clip_length_start and not t.past < t.clip_length_start <= t.clip_length:
        yield (
            f"training.clip_length_start ({t.clip_length_start}) must exceed training.past ({t.past}) "
            f"and not training.clip_length ({t.clip_length})."
        )
    if config.validation.every and 0 < config.validation.frames <= t.past:
        yield (
            f"validation.frames ({config.validation.frames}) must exceed training.past ({t.past}): nothing is left to "
            "score. 0 means whole sequences."
        )
    if config.kl.start > config.kl.stop and config.kl.type != "none":
        yield (
            f"kl.start ({config.kl.start:g}) is above kl.stop ({config.kl.stop:g}): beta must climb. "
            f"Use --set kl.start={config.kl.stop / 10:g}."
        )
    if config.teacher_forcing.floor > config.teacher_forcing.ratio:
        yield "teacher_forcing.floor is above teacher_forcing.ratio: the ratio can only fall."
    if t.batch_size % t.accumulate:
        yield f"training.accumulate ({t.accumulate}) must divide training.batch_size ({t.batch_size})."
    if config.kl.free_bits and config.kl.reduction != "sum":
        yield 'kl.free_bits is in nats per frame: set kl.reduction to "sum".'
    if config.data.size != "auto" and any(side % 8 for side in config.data.size):
        yield f"data.size {config.data.size[0]}x{config.data.size[1]} must be multiples of 8."
    if t.cuda_graph == "on" and (reason := unfit_for_graphs(config)):
        yield f'training.cuda_graph is "on", but {reason}'
    yield from _unfit_for_the_model(config)


def unfit_for_graphs(config: Config) -> str | None:
    """Why a training step cannot become a CUDA graph, with the fix; None if it can."""
    if config.teacher_forcing.draw == "frame" and config.teacher_forcing.ratio > 0:
        return (
            'teacher_forcing.draw "frame" makes every step different: set it to "clip", '
            'or turn graphs off (training.cuda_graph = "off").'
        )
    return None


def _unfit_for_the_model(config: Config) -> Iterator[str]:
    """Yield every setting that the chosen model does not accept, with the fix."""
    t, model, name = config.training, config.model, config.model.name
    if t.batch_size < model.fewest_clips * t.accumulate:
        yield (
            f"{name} needs at least two clips at a time for its BatchNorm: raise training.batch_size"
            f"{' or lower training.accumulate' if t.accumulate > 1 else ''}."
        )
    if model.recurrent and t.checkpoint_activations:
        yield (
            f"training.checkpoint_activations does not work with {name}, whose BatchNorm would count every frame "
            "twice: raise training.accumulate instead."
        )
    if model.frame_size and config.data.size not in ("auto", model.frame_size):
        wanted, size = ("x".join(map(str, sides)) for sides in (model.frame_size, config.data.size))
        yield f"{name} needs frames of {wanted}: set data.size to {wanted}, not {size}."
    if (config.data.flip or config.data.shift) and model.condition_kind != "pose":
        yield "data.flip and data.shift can move pose images with the frames, but not actions: turn both off."
    if t.noise and not model.told_noise:
        yield f"training.noise needs a model with the noise level as an input; {name} has none: set it to 0."
    if isinstance(model, AnchorCvaeConfig) and model.channels % 8:
        yield f"model.channels ({model.channels}) must be a multiple of 8, the number of its normalisation groups."
    if isinstance(model, AnchorCvaeConfig) and model.scene and not model.anchor:
        yield "model.scene needs the anchor, but model.anchor is false: turn model.anchor on or model.scene off."
    if model.given_frames and t.past != model.given_frames:
        yield f"{name} starts from one given frame: training.past must be {model.given_frames}, not {t.past}."
