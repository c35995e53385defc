"""How bombs are laid, and what must come of them; test_data_bombs.py and test_run_bombs.py lay them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.security.confined import confined

GIB = 1 << 30
LITTLE = 64  # MiB: what a refusal may cost

Bomb = Callable[[Path], Callable[[], object]]


class Bombs(dict[str, tuple[Bomb, str]]):
    """How to lay each, and what is said of it."""

    def bomb(self, says: str) -> Callable[[Bomb], Bomb]:
        def keep(lay: Bomb) -> Bomb:
            self[lay.__name__] = lay, says
            return lay

        return keep

    def must_be_refused(self, name: str, folder: Path) -> None:
        lay, says = self[name]
        outcome = confined(lay(folder))
        assert not outcome.error, outcome.error
        assert outcome.code in (2, 4) and says in outcome.message, outcome
        assert outcome.mebibytes < LITTLE, outcome
