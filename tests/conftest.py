"""Shared ground of the tests: where the real data and golden values are."""

from __future__ import annotations

import os

os.environ.pop("COLUMNS", None)  # tables are as wide as the tests say, not as somebody's terminal
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import Counter
from collections.abc import Callable
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


# Reliability tests say how much they tried: ``count("crash points", n)``. Whatever was counted in a session stands in
# a table at its end, so that ``pytest -m reliability -q`` prints the numbers that README quotes. Count what was tried
# and held: after the assertion, not before it.
_TRIED: Counter[str] = Counter()


@pytest.fixture(scope="session")
def count() -> Callable[[str, int], None]:
    def add(name: str, n: int = 1) -> None:
        _TRIED[name] += n

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _TRIED:
        return
    failed = sum("reliability" in report.keywords for report in terminalreporter.stats.get("failed", []))
    terminalreporter.write_sep("-", "reliability: tried and held")
    for name, n in sorted(_TRIED.items()):
        terminalreporter.write_line(f"{n:>10,}  {name}")
    terminalreporter.write_line(f"{failed:>10,}  tests failed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """``-m reliability`` replaces the ``-m "not slow"`` of pyproject.toml; slow tests still run only when named."""
    if "slow" in config.option.markexpr:
        return
    slow = {item for item in items if item.get_closest_marker("slow")}
    if slow:
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]
