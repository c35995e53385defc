"""``vidcvae presets``."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from vidcvae.cli import command, ui
from vidcvae.errors import typed

# What a preset has reached, in words and figures of docs/experiments.md; a test compares them
_REAL = "on the lab's real dance (repeating frame 0: 16.05 dB)"
QUALITY = {
    "anchor-cpu": f"32.23 dB after 20 minutes, 28.32 dB after 2.5, {_REAL}",
    "anchor": "none has been measured; anchor-cpu is the same model, smaller",
    "course": f"20.53 dB after 10 minutes {_REAL}; it is made for long training",
    "course-best": f"20.88 dB after 10 minutes {_REAL}; it is made for long training",
    "demo": "31.75 dB after 2 minutes on the synthetic dance (repeating frame 0: 17.50 dB)",
    "svg-bair": "none on BAIR has been measured; a smaller model reached 23.33 dB on synthetic pushes (repeating the "
    "last given frame: 17.87 dB)",
}


@dataclass(frozen=True)
class Known:
    """A preset at a glance. data: the kind of dataset that it is for; quality: PSNR of a free run with z = 0."""

    name: str
    about: str
    model: str
    data: str
    time: str
    quality: str


def presets(json: command.Json = False) -> None:
    """The built-in settings: their model, the data and time they are made for, and what quality to expect.

    Quality is the PSNR of a free run with z = 0, as docs/experiments.md tells it with the commands. On another machine
    the time is another.

    Examples:
      vidcvae presets
      vidcvae config show --preset anchor-cpu
    """
    from vidcvae import config as settings

    found = [known(name) for name in settings.preset_names()]
    if json:
        ui.emit({"presets": [asdict(preset) for preset in found]})
        return
    for preset in found:
        ui.say(f"{preset.name}: {preset.about}")
        for title in ("model", "data", "time", "quality"):
            ui.say(f"  {title:<8} {getattr(preset, title)}")
    ui.next_step(typed("train", "DATASET", "--preset", "anchor-cpu"))


def known(name: str) -> Known:
    from vidcvae import config as settings

    config, about = settings.resolve(settings.read_preset(name)), settings.preset_comment(name)
    told = re.search(r"\w+ minutes on [\w ]+", about)
    time = f"about {told[0]}" if told else f"{config.training.epochs} epochs, without a limit: set --max-minutes"
    data = "dance: poses" if config.model.condition == "pose" else f"pushing: {config.model.condition}"
    return Known(name, about, config.model.name, data, time, QUALITY[name])
