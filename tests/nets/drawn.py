"""Valid configurations drawn from the schema's own declarations: a new setting is drawn as soon as it is declared."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from random import Random
from typing import Any

from hypothesis import strategies as st

from vidcvae import config as settings
from vidcvae.config import MODELS, SECTION_CLASSES, Config
from vidcvae.errors import UsageError

FIXED = {  # what is not drawn, and why
    "model.name": "given, for the others to fit",
    "data.path": "given on the command line",
    "training.device": "a GPU is not everywhere",
    "training.compile": "takes a C++ compiler and minutes",
}
# Where the declared range says too little: what is a multiple of 8, and what costs the most time
NARROWED: dict[str, Callable[[Random], Any]] = {
    "model.channels": lambda chance: chance.choice([8, 16]),
    "data.size": lambda chance: [chance.choice([8, 16, 24]), chance.choice([8, 16, 24])],
    "training.epochs": lambda chance: chance.randint(1, 2),
    "training.steps_per_epoch": lambda chance: chance.randint(0, 2),
}
START = {  # a small valid configuration of each model, from which the others are reached
    "pose-cvae": {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8},
    "anchor-cvae": {"channels": 8, "latent_channels": 2},
    "svg-fp": {"backbone": "dcgan64", "frame_dim": 4, "latent_dim": 2, "hidden_dim": 8},
    "svg-lp": {"backbone": "dcgan64", "frame_dim": 4, "latent_dim": 2, "hidden_dim": 8},
}
WIDTH = 4  # whole numbers are drawn from the lowest one to so many above it: everything stays small
FAR = 1000.0  # an unbounded number is now and then so many times what is usual


def start(model: str) -> Config:
    size = [64, 64] if model.startswith("svg") else [8, 16]
    training = {"epochs": 2, "steps_per_epoch": 1, "batch_size": 4, "clip_length": 4, "device": "cpu", "log_every": 1}
    return settings.resolve({"model": {"name": model, **START[model]}, "data": {"size": size}, "training": training})


def configs(model: str) -> st.SearchStrategy[Config]:
    """Of true randomness from one drawn seed: most of what Hypothesis makes of many draws repeats parts of others."""
    return st.randoms(use_true_random=True).map(lambda chance: config_of(model, chance))


def config_of(model: str, chance: Random) -> Config:
    """About half of the settings are drawn, in any order. A value that does not go with those before it is tried once
    more at the end, and then left out."""
    config = start(model)
    declared = dict(_declared(model))
    keys = [key for key in declared if key not in FIXED and chance.random() < 0.5]
    chance.shuffle(keys)
    drawn = [(k, NARROWED[k](chance) if k in NARROWED else value_of(*declared[k], chance)) for k in keys]
    for _ in range(2):
        left = []
        for key, value in drawn:
            section, _, name = key.partition(".")
            try:
                config = settings.with_values(config, {section: {name: value}})
            except UsageError:
                left.append((key, value))
        drawn = left
    return config


def _declared(model: str) -> Iterator[tuple[str, tuple[Any, Any, Mapping[str, Any]]]]:
    """Every setting's key, and its type, default and range."""
    for section, cls in {"model": MODELS[model], **SECTION_CLASSES}.items():
        types = typing.get_type_hints(cls)
        for setting in fields(cls):
            yield f"{section}.{setting.name}", (types[setting.name], setting.default, setting.metadata)


def value_of(kind: Any, default: Any, meta: Mapping[str, Any], chance: Random) -> Any:
    """Something that a setting may be, by its declaration; a bound itself as likely as all between the bounds."""
    if choices := typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else meta.get("choices"):
        return chance.choice(choices)
    if kind is bool:
        return chance.random() < 0.5
    low = meta["low"] or 0
    if kind is int:
        return chance.randint(low, min(low + WIDTH, meta["high"] or low + WIDTH))
    if kind is float:
        high = meta["high"] if meta["high"] is not None else 2 * default or 1.0
        edges = [] if meta["low"] is None else [float(low)]
        edges += [FAR * high if meta["high"] is None else high] if chance.random() < 0.5 else []
        return chance.choice([*edges, chance.uniform(low, high)])
    if typing.get_origin(kind) is tuple:
        return [chance.randint(low, low + WIDTH) for _ in range(chance.randint(0, 3))]
    raise TypeError(f"no values for {kind}")
