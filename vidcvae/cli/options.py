"""Options that several commands share: the settings of a training, and the joints of a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from vidcvae.cli import completion
from vidcvae.cli.command import OneOf, option
from vidcvae.config import Config, preset_names
from vidcvae.config.schema import ModelName


def setting(key: str, help: str, **more: Any) -> Any:
    """A Typer option for the setting ``key``, which shows the setting's own default in --help."""
    section, _, name = key.partition(".")
    value = getattr(getattr(Config(), section), name)
    default = f"{value:g}" if isinstance(value, float) else value
    return option(help, show_default=f"{default}, or the preset's", **more)


Preset = Annotated[
    str | None,
    OneOf(preset_names()),
    option("Built-in settings (see vidcvae presets).", autocompletion=completion.presets),
]
Model = Annotated[ModelName | None, option("Which model.")]
File = Annotated[Path | None, option("Settings in a TOML file.")]
Set = Annotated[
    list[str] | None,
    option("Any setting; may be repeated.", metavar="SECTION.KEY=VALUE", autocompletion=completion.overrides),
]
Keypoints = Annotated[Path | None, option("For a clip: the joints in each frame, as a pose estimator wrote them.")]
Estimate = Annotated[bool, option("For a clip: find the joints with MediaPipe (pip install 'vidcvae\\[pose]').")]
Crop = Annotated[
    Literal["person", "none"] | None,  # as in own_clips.window, which imports numpy
    option(
        "Crop a clip to a window that holds the dancer in every frame, or not at all.",
        show_default="person, if that is clearly smaller than the picture",
    ),
]
PoseModel = Annotated[
    Path | None,
    option(
        "With --estimate: MediaPipe's model.",
        show_default="pose_landmarker_full.task beside the clip or in ~/.cache/vidcvae",
    ),
]
