"""What a person or a program sees is what it was; a change that is meant: ``python -m tests.frozen``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.frozen import errors, helps, shapes, texts
from tests.frozen.place import furnish, spoil
from tests.nets.commands import SURFACE

HELP, ERRORS, JSON = (texts.read(name) for name in ("help.txt", "errors.txt", "json.txt"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("good").resolve()
    furnish(place)
    return place


@pytest.fixture(scope="module")
def bad(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("frozen").resolve() / "bad"
    shutil.copytree(good, place)
    spoil(place)
    return place


@pytest.fixture(scope="module")
def found(good: Path, bad: Path) -> dict[str, str]:
    """``bad`` is asked for so that it is a copy of ``good`` as furnished: the lines typed here write into it."""
    return shapes.all_shapes(good)


@pytest.mark.parametrize("command", helps.COMMANDS)
def test_help(command: str) -> None:
    assert helps.help_of(command) == HELP[f"vidcvae {command}".strip()]


@pytest.mark.parametrize("line", errors.WRONG)
def test_answer_to_a_wrong_input(line: str, bad: Path) -> None:
    before = _files(bad)
    assert errors.answer(line, bad) == ERRORS[f"vidcvae {line}"]
    assert _files(bad) == before, "a refused command left something behind"


def _files(place: Path) -> set[Path]:
    return {path for path in place.rglob("*") if not {".cache", ".home"} & {*path.parts}}


@pytest.mark.parametrize("title", JSON)
def test_keys_of_json(title: str, found: dict[str, str]) -> None:
    assert found.get(title) == JSON[title]


def test_nothing_is_frozen_that_is_gone_and_nothing_new_goes_unnoticed(found: dict[str, str]) -> None:
    assert [*found] == [*JSON]
    assert len(HELP) == len(helps.COMMANDS) and len(ERRORS) == len(errors.WRONG)


def test_every_command_is_there() -> None:
    assert shapes.without_a_line() == []
    leaves = [command for command in SURFACE if command and not any(c.startswith(f"{command} ") for c in SURFACE)]
    assert [c for c in leaves if not any(line.startswith(c) for line in errors.WRONG)] == [], "type it wrongly"
