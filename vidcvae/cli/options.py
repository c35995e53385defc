"""The options that say by which settings a training is done, alike in every command that takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vidcvae.cli import choice, completion
from vidcvae.config import Config, preset_names
from vidcvae.config.schema import ModelName, choices


def setting(key: str, name: str, help: str, kind: Any = None, **more: Any) -> Any:
    """A Typer option ``name`` for the setting ``key``: --help tells its choices, or those of ``kind``, and what it is
    where neither a preset nor anything typed says otherwise."""
    section, _, own = key.partition(".")
    settings = getattr(Config(), section)
    value = getattr(settings, own)
    usual = (
        "x".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
    )
    more["show_default"] = f"{usual}, or the preset's"
    known = choices(kind or settings.__dataclass_fields__[own].type)
    return choice.option(known, name, help, **more) if known else typer.Option(name, help=help, **more)


Preset = Annotated[
    str | None,
    choice.option(
        preset_names(), "--preset", help="Built-in settings (see vidcvae presets).", autocompletion=completion.presets
    ),
]
Model = Annotated[ModelName | None, choice.option(ModelName, "--model", help="Which model.")]
File = Annotated[Path | None, typer.Option("--config", help="Settings in a TOML file.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Any setting; may be repeated.", autocompletion=completion.overrides
    ),
]
Keypoints = Annotated[
    Path | None,
    typer.Option("--keypoints", help="Of a clip: the joints in each frame, as a pose estimator wrote them."),
]
Estimate = Annotated[
    bool, typer.Option("--estimate", help="Of a clip: find the joints with MediaPipe (pip install 'vidcvae\\[pose]').")
]
CROPS = ("person", "none")  # as in own_clips.window, which imports numpy
Crop = Annotated[
    str | None,
    choice.option(
        CROPS,
        "--crop",
        help="Cut a clip to a window around everywhere the dancer goes, or not at all.",
        show_default="person where that is clearly smaller than the picture",
    ),
]
PoseModel = Annotated[
    Path | None,
    typer.Option(
        "--pose-model",
        help="With --estimate: MediaPipe's model.",
        show_default="pose_landmarker_full.task beside the clip or in ~/.cache/vidcvae",
    ),
]
