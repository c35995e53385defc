"""The built-in presets, as TOML files in this folder. A preset that ``extends`` another holds only the differences."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

from vidcvae.errors import UsageError, did_you_mean


def preset_names() -> list[str]:
    folder = resources.files(__name__)
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def read_preset(name: str) -> dict[str, Any]:
    """The table of a built-in preset."""
    if name not in preset_names():
        raise UsageError(
            f"there is no preset {name!r}.{did_you_mean(name, preset_names())}",
            f"The presets are {', '.join(preset_names())}.",
        )
    table = tomllib.loads(_preset_text(name))
    if base := table.pop("extends", None):
        settings = read_preset(base)
        return settings | {section: settings.get(section, {}) | values for section, values in table.items()}
    return table


def preset_comment(name: str) -> str:
    """What a built-in preset is for: the first line of its file."""
    return _preset_text(name).partition("\n")[0].removeprefix("# ")


def _preset_text(name: str) -> str:
    return (resources.files(__name__) / f"{name}.toml").read_text("utf-8")
