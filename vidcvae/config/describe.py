"""Explain settings: the meaning of each, the presets that change it, and a starter file with all of them."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import Field, dataclass, fields
from typing import Any

from vidcvae.config.presets import preset_comment, preset_names, read_preset
from vidcvae.config.read import resolve, to_table, toml_value
from vidcvae.config.schema import MODELS, SECTION_CLASSES, Config, choices
from vidcvae.errors import UsageError, did_you_mean

WIDTH = 110  # of a comment in a starter file

# The score that a preset has reached, as docs/experiments.md reports it; a test compares the two
_REAL = "on the lab's real dance (repeating frame 0: 16.05 dB)"
QUALITY = {
    "anchor-cpu": f"33.52 dB after 4,700 steps, about 13 minutes, {_REAL}",
    "anchor": "none has been measured; anchor-cpu is the same model, smaller",
    "clip": "26.19 dB after 3,000 steps on a real clip of 17 seconds (repeating frame 0: 20.97 dB)",
    "course": f"20.53 dB after 10 minutes {_REAL}; it is meant for long training",
    "course-best": f"20.88 dB after 10 minutes {_REAL}; it is meant for long training",
    "demo": "31.75 dB after 2 minutes on the synthetic dance (repeating frame 0: 17.50 dB)",
    "svg-bair": "none on BAIR has been measured; a smaller model reached 23.33 dB on synthetic pushes (repeating the "
    "last given frame: 17.87 dB)",
}


@dataclass(frozen=True)
class Setting:
    """A key of a section. models: the names of the models that have it, joined by commas; "" outside [model]."""

    section: str
    models: str
    declared: Field[Any]

    @property
    def key(self) -> str:
        return f"{self.section}.{self.declared.name}"

    @property
    def doc(self) -> str:
        return str(self.declared.metadata["doc"])

    def facts(self) -> dict[str, str]:
        """The choices, range, unit, symbol and default that the setting has, each under its title."""
        meta = self.declared.metadata
        limits = {"at least": meta["low"], "above": meta["above"], "at most": meta["high"]}
        facts = {
            "choices:": ", ".join(choices(self.declared.type)),
            "range:": ", ".join(f"{words} {limit:g}" for words, limit in limits.items() if limit is not None),
            "unit:": meta["unit"],
            "symbol:": meta["symbol"],
            "default:": json.dumps(self.declared.default),
        }
        return {title: value for title, value in facts.items() if value}

    def presets(self) -> dict[str, Any]:
        """The presets that change the setting, each with its value."""
        found = {}
        for preset in preset_names():
            config = resolve(read_preset(preset))
            if self.models and config.model.name not in self.models.split(", "):
                continue
            part = getattr(config, self.section)
            default = getattr(type(part), self.declared.name)
            if (value := getattr(part, self.declared.name)) != default:
                found[preset] = value
        return found

    def presets_text(self) -> str:
        return ", ".join(f"{preset} {json.dumps(value)}" for preset, value in self.presets().items())

    def to_json(self) -> dict[str, Any]:
        known = {"choices": choices(self.declared.type), "default": self.declared.default, "presets": self.presets()}
        return {"model": self.models or None, **self.declared.metadata, **known}


def known() -> dict[str, list[Setting]]:
    """All settings, as ``{"kl.ratio": [setting]}``; a key of [model] has a setting for each model class."""
    found: dict[str, list[Setting]] = {}
    for cls in dict.fromkeys(MODELS.values()):
        models = ", ".join(name for name, other in MODELS.items() if other is cls)
        for declared in fields(cls):
            found.setdefault(f"model.{declared.name}", []).append(Setting("model", models, declared))
    for section, other in SECTION_CLASSES.items():
        found |= {f"{section}.{declared.name}": [Setting(section, "", declared)] for declared in fields(other)}
    return found


def sections() -> dict[str, list[str]]:
    """The names of the keys of each section."""
    found: dict[str, list[str]] = {}
    for key in known():
        section, _, name = key.partition(".")
        found.setdefault(section, []).append(name)
    return found


def find(text: str) -> dict[str, list[Setting]]:
    """The settings that ``text`` names, such as "kl.ratio", "kl" or "ratio"; raises ``UsageError`` if none."""
    every = known()
    found = {key: ones for key, ones in every.items() if text in (key, key.partition(".")[0])}
    found = found or {key: ones for key, ones in every.items() if key.partition(".")[2] == text}
    if not found:
        names = [key.partition(".")[2] for key in every]
        near = did_you_mean(text, [*sections(), *every]) or did_you_mean(text, names)
        raise UsageError(f"there is no setting {text!r}.{near}", "All of them: vidcvae config explain")
    return found


def starter(config: Config, command: str) -> str:
    """A TOML file that explains every setting; those that differ from their defaults are set, the rest are comments."""
    lines = [
        f"# Settings of vidcvae ({command}).",
        "# A key in a comment shows its default; remove the # to set it.",
        "# This file overrides --preset; options and --set override this file.",
    ]
    table = to_table(config)
    for section, cls in [("model", type(config.model)), *SECTION_CLASSES.items()]:
        lines += ["", f"[{section}]"]
        for declared in fields(cls):
            setting = Setting(section, "", declared)
            comment = "; ".join([setting.doc, *(f"{title} {value}" for title, value in setting.facts().items())])
            lines += textwrap.wrap(comment, WIDTH, initial_indent="# ", subsequent_indent="#   ")
            value = table[section][declared.name]
            default = json.loads(json.dumps(declared.default))
            is_set = value != default or (section == "model" and value in set(MODELS) - {"pose-cvae"})
            lines.append(f"{'' if is_set else '# '}{declared.name} = {toml_value(value)}")
    return "\n".join(lines) + "\n"


def preset(name: str) -> dict[str, str]:
    """A summary of a preset. data: the kind of dataset it is for; quality: PSNR of a free run with z = 0."""
    config, about = resolve(read_preset(name)), preset_comment(name)
    duration = re.search(r"\w+ minutes on [\w ]+", about)
    return {
        "name": name,
        "about": about,
        "model": config.model.name,
        "data": "dance: poses" if config.model.condition_kind == "pose" else f"pushing: {config.model.condition_kind}",
        "time": f"about {duration[0]}"
        if duration
        else f"{config.training.epochs} epochs, no time limit: set --max-minutes",
        "quality": QUALITY[name],
    }
