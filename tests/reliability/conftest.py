from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..cli.conftest import cli, tiny_dance, workplace  # noqa: F401 - the fixtures of the command line, here as well
from .forks import Forks


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()
