"""``vidcvae presets``."""

from __future__ import annotations

from vidcvae.cli import command, ui
from vidcvae.errors import typed


def presets(json: command.Json = False) -> None:
    """The built-in settings: their model, the data and time they are made for, and what quality to expect.

    Quality is the PSNR of a free run with z = 0, as docs/experiments.md tells it with the commands. On another machine
    the time is another.

    Examples:
      vidcvae presets
      vidcvae config show --preset anchor-cpu
    """
    from vidcvae.config import describe, preset_names

    found = [describe.preset(name) for name in preset_names()]
    if json:
        ui.emit({"presets": found})
        return
    for preset in found:
        ui.say(f"{preset['name']}: {preset['about']}")
        for title in ("model", "data", "time", "quality"):
            ui.say(f"  {title:<8} {preset[title]}")
    ui.next_step(typed("train", "DATASET", "--preset", "anchor-cpu"))
