"""The columns of score tables: the title of a number, its digits, and where it stands in a score record.

Nothing is imported here, as ``vidcvae compare --help`` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    title: str
    digits: int
    place: tuple[str, ...]

    def value(self, record: Mapping[str, Any]) -> float | None:
        """The number in a score record; None if it is not there."""
        found: Any = record
        for key in self.place:
            found = found.get(key) if isinstance(found, dict) else None
        number: float | None = found
        return number

    def cell(self, value: float | None, spread: float | None = None) -> str:
        """The number as a table shows it, with its spread over several runs."""
        if value is None:
            return "-"
        return f"{value:.{self.digits}f}" + (f" ± {spread:.{self.digits}f}" if spread else "")


COLUMNS = {
    "psnr": Column("PSNR (dB)", 2, ("psnr_mean",)),
    "first_50": Column("first 50", 2, ("psnr_first_50",)),
    "last_50": Column("last 50", 2, ("psnr_last_50",)),
    "ssim": Column("SSIM", 4, ("ssim_mean",)),
    "kl": Column("KL (nats)", 3, ("kl",)),
    "active_units": Column("active units", 0, ("active_units",)),
    "parameters": Column("parameters", 0, ("model", "parameters")),
    "minutes": Column("minutes", 1, ("model", "minutes")),
}
LESS_IS_BETTER = ("parameters", "minutes")
STEPS = Column("steps", 0, ("protocol", "step"))

# The means over frames of one record, each on a line of its own
MEANS = {
    "psnr_mean": "PSNR per frame (dB)",
    "psnr_first_50": "  of the first 50",
    "psnr_last_50": "  of the last 50",
    "psnr_still": "  of still pixels",
    "psnr_moving": "  of moving pixels",
    "psnr_per_channel_mean": "PSNR per channel (dB)",
    "ssim_mean": "SSIM",
    "lpips_mean": "LPIPS",
    "mse_mean": "MSE",
    "temporal_difference_error_mean": "temporal difference error",
}
