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
    """Height and width from a text such as 32x64; None for None."""
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not all(side.isascii() and side.isdecimal() for side in (height, width)):
        raise UsageError(f"--size {text} is not a frame size.", "Write height x width, such as --size 32x64")
    size = int(height), int(width)
    if any(side not in SIDES for side in size):
        raise UsageError(
            f"--size {text}: height and width must be multiples of 8, from 8 to 4096.", "The usual size is --size 32x64"
        )
    return size


def read_clip_size(text: str) -> tuple[int, int] | int:
    """Height and width, or the number of pixels that "small", "medium" or "large" stands for."""
    from vidcvae.own_clips.window import BUDGETS

    if text not in BUDGETS and "x" not in text.lower():
        raise UsageError(
            f"--size {text} is not a frame size.", "Choose small, medium or large, or height x width: --size 72x128"
        )
    return BUDGETS.get(text) or read_size(text) or 0


def show_counts(output: Path, data: VideoData, json: bool, **more: Any) -> None:
    """Print how many sequences and frames a new dataset holds; ``more`` is added to the JSON."""
    counts = {split: {"sequences": len(each), "frames": sum(map(len, each))} for split, each in data.splits.items()}
    if json:
        ui.emit({"output": str(output), "splits": counts, **more})
        return
    parts = [
        f"{split} {counted(n['frames'], 'frame')} in {counted(n['sequences'], 'sequence')}"
        for split, n in counts.items()
    ]
    ui.say(f"{output}: {'; '.join(parts)}")
