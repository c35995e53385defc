"""The columns of score tables: title, number of digits, and place in a score record.

This module imports nothing heavy, because ``vidcvae compare --help`` lists the columns.
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
        """The number in a score record; None if the record does not have it."""
        value: Any = record
        for key in self.place:
            value = value.get(key) if isinstance(value, dict) else None
        number: float | None = value
        return number

    def cell(self, value: float | None, spread: float | None = None) -> str:
        """Format the number for a table, with its spread over several runs."""
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

# The means over the frames of one record, shown one per line
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
