"""Shared ground of the tests: where the real data and golden values are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("VIDCVAE_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden values; tests that need it are skipped where it is absent."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no reference data at {SHARED}: set VIDCVAE_SHARED to the folder that holds golden/ and data/")
    return SHARED


@pytest.fixture(scope="session")
def dance(shared: Path) -> Path:
    """The real dance data in the course's layout."""
    return shared / "data" / "dance"
