"""Settings explained: what each means, the presets that change it, and a starter file of them all."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import Field, dataclass, fields
from typing import Any

from vidcvae.config.presets import preset_comment, preset_names, read_preset
from vidcvae.config.read import resolve, to_table
from vidcvae.config.schema import MODELS, SECTION_CLASSES, Config, choices
from vidcvae.errors import UsageError, did_you_mean

WIDTH = 110  # of a comment in a starter file

# What a preset has reached, in words and figures of docs/experiments.md; a test compares them
_REAL = "on the lab's real dance (repeating frame 0: 16.05 dB)"
QUALITY = {
    "anchor-cpu": f"33.52 dB after 4,700 steps, about 13 minutes, {_REAL}",
    "anchor": "none has been measured; anchor-cpu is the same model, smaller",
    "clip": "26.19 dB after 3,000 steps on a real clip of 17 seconds (repeating frame 0: 20.97 dB)",
    "course": f"20.53 dB after 10 minutes {_REAL}; it is made for long training",
    "course-best": f"20.88 dB after 10 minutes {_REAL}; it is made for long training",
    "demo": "31.75 dB after 2 minutes on the synthetic dance (repeating frame 0: 17.50 dB)",
    "svg-bair": "none on BAIR has been measured; a smaller model reached 23.33 dB on synthetic pushes (repeating the "
    "last given frame: 17.87 dB)",
}


@dataclass(frozen=True)
class Setting:
    """A key of a section. models: those that have it, where it is a model's, in one text; "" in all other sections."""

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
        """Choices, range, unit, symbol and default, as far as there are any, each under its title."""
        meta = self.declared.metadata
        limits = {"at least": meta["low"], "above": meta["above"], "at most": meta["high"]}
        found = {
            "choices:": ", ".join(choices(self.declared.type)),
            "range:": ", ".join(f"{words} {limit:g}" for words, limit in limits.items() if limit is not None),
            "unit:": meta["unit"],
            "symbol:": meta["symbol"],
            "default:": json.dumps(self.declared.default),
        }
        return {title: value for title, value in found.items() if value}

    def presets(self) -> dict[str, Any]:
        """The presets in which it is not the default, with its value there."""
        found = {}
        for preset in preset_names():
            config = resolve(read_preset(preset))
            if self.models and config.model.name not in self.models.split(", "):
                continue
            part = getattr(config, self.section)
            usual = next(declared.default for declared in fields(part) if declared.name == self.declared.name)
            if (value := getattr(part, self.declared.name)) != usual:
                found[preset] = value
        return found

    def presets_told(self) -> str:
        return ", ".join(f"{preset} {json.dumps(value)}" for preset, value in self.presets().items())

    def to_json(self) -> dict[str, Any]:
        known = {"choices": choices(self.declared.type), "default": self.declared.default, "presets": self.presets()}
        return {"model": self.models or None, **self.declared.metadata, **known}


def known() -> dict[str, list[Setting]]:
    """``{"kl.ratio": [setting]}`` of every section and model; of a model's key, one for each kind that has it."""
    found: dict[str, list[Setting]] = {}
    for cls in dict.fromkeys(MODELS.values()):
        models = ", ".join(name for name, other in MODELS.items() if other is cls)
        for declared in fields(cls):
            found.setdefault(f"model.{declared.name}", []).append(Setting("model", models, declared))
    for section, other in SECTION_CLASSES.items():
        found |= {f"{section}.{declared.name}": [Setting(section, "", declared)] for declared in fields(other)}
    return found


def sections() -> dict[str, list[str]]:
    """The sections, each with the names of its keys."""
    found: dict[str, list[str]] = {}
    for key in known():
        section, _, name = key.partition(".")
        found.setdefault(section, []).append(name)
    return found


def find(text: str) -> dict[str, list[Setting]]:
    """The settings that "kl.ratio", "kl" or "ratio" means; raises ``UsageError`` with the nearest right one."""
    every = known()
    found = {key: ones for key, ones in every.items() if text in (key, key.partition(".")[0])}
    found = found or {key: ones for key, ones in every.items() if key.partition(".")[2] == text}
    if not found:
        names = [key.partition(".")[2] for key in every]
        near = did_you_mean(text, [*sections(), *every]) or did_you_mean(text, names)
        raise UsageError(f"there is no setting {text!r}.{near}", "All of them: vidcvae config explain")
    return found


def starter(config: Config, command: str) -> str:
    """A TOML file with every setting explained; those that differ from the defaults are set, the rest are comments."""
    lines = [
        f"# Settings of vidcvae ({command}).",
        "# Every key stands here with its default as a comment; remove the # to set it.",
        "# What stands in this file wins over --preset; options and --set win over this file.",
    ]
    table = to_table(config)
    for section, cls in [("model", type(config.model)), *SECTION_CLASSES.items()]:
        lines += ["", f"[{section}]"]
        for declared in fields(cls):
            setting = Setting(section, "", declared)
            told = "; ".join([setting.doc, *(f"{title} {value}" for title, value in setting.facts().items())])
            lines += textwrap.wrap(told, WIDTH, initial_indent="# ", subsequent_indent="#   ")
            value = table[section][declared.name]
            usual = json.loads(json.dumps(declared.default))
            fixed = value != usual or (section == "model" and value in set(MODELS) - {"pose-cvae"})
            lines.append(f"{'' if fixed else '# '}{declared.name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def preset(name: str) -> dict[str, str]:
    """A preset at a glance. data: the kind of dataset that it is for; quality: PSNR of a free run with z = 0."""
    config, about = resolve(read_preset(name)), preset_comment(name)
    told = re.search(r"\w+ minutes on [\w ]+", about)
    return {
        "name": name,
        "about": about,
        "model": config.model.name,
        "data": "dance: poses" if config.model.condition == "pose" else f"pushing: {config.model.condition}",
        "time": f"about {told[0]}" if told else f"{config.training.epochs} epochs, without a limit: set --max-minutes",
        "quality": QUALITY[name],
    }
