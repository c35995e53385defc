"""The options that say by which settings a training is done, alike in every command that takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vidcvae.cli import choice, completion
from vidcvae.config import Config, preset_names
from vidcvae.config.schema import ModelName, choices


def usual(key: str) -> str:
    """What a setting is where neither a preset nor anything typed says otherwise, as --help tells it."""
    section, _, name = key.partition(".")
    value = getattr(getattr(Config(), section), name)
    if isinstance(value, tuple):
        value = "x".join(map(str, value))
    return f"{value:g}, or the preset's" if isinstance(value, float) else f"{value}, or the preset's"


def setting(key: str, name: str, help: str, **more: Any) -> Any:
    """A Typer option ``name`` for the setting ``key``, whose choices and default --help tells."""
    section, _, own = key.partition(".")
    known = choices(type(getattr(Config(), section)).__dataclass_fields__[own].type)
    more["show_default"] = usual(key)
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
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Any setting; may be repeated.",
        autocompletion=completion.overrides,
    ),
]
