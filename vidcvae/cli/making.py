"""What the commands that make a dataset share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcvae.cli import ui
from vidcvae.config.schema import SIDES
from vidcvae.errors import UsageError, counted

if TYPE_CHECKING:
    from vidcvae.data.clips import VideoData


def read_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isascii() and height.isdecimal() and width.isascii() and width.isdecimal()):
        raise UsageError(f"--size {text} is no frame size.", "Write height x width, such as --size 32x64")
    size = int(height), int(width)
    if any(side not in SIDES for side in size):
        raise UsageError(
            f"--size {text}: height and width must be multiples of 8, from 8 to 4096.", "The usual size is --size 32x64"
        )
    return size


def read_clip_size(text: str) -> tuple[int, int] | int:
    """Height and width, or how many pixels "small", "medium" or "large" frames have."""
    from vidcvae.own_clips.window import BUDGETS

    return BUDGETS.get(text) or read_size(text) or 0


def tell_counts(output: Path, data: VideoData, json: bool, **more: Any) -> None:
    """What a dataset that was made holds; ``more`` is for programs."""
    counts = {split: {"sequences": len(found), "frames": sum(map(len, found))} for split, found in data.splits.items()}
    if json:
        ui.emit({"output": str(output), "splits": counts, **more})
        return
    parts = [
        f"{split} {counted(n['frames'], 'frame')} in {counted(n['sequences'], 'sequence')}"
        for split, n in counts.items()
    ]
    ui.say(f"{output}: {'; '.join(parts)}")
