"""``vidcvae presets``."""

from __future__ import annotations

from vidcvae.cli import command, ui
from vidcvae.errors import typed


def presets(json: command.Json = False) -> None:
    """List the built-in settings: their model, the data and time they are made for, and the quality to expect.

    Quality is the PSNR of a free run with z = 0; docs/experiments.md has the commands. Times differ on other machines.

    Examples:
      vidcvae presets
      vidcvae config show --preset anchor-cpu
    """
    from vidcvae.config import describe, preset_names

    descriptions = [describe.preset(name) for name in preset_names()]
    if json:
        ui.emit({"presets": descriptions})
        return
    for preset in descriptions:
        ui.say(f"{preset['name']}: {preset['about']}")
        for title in ("model", "data", "time", "quality"):
            ui.say(f"  {title:<8} {preset[title]}")
    ui.next_step(typed("train", "DATASET", "--preset", "anchor-cpu"))
