"""Every setting of the schema has a test of its effect: one marked ``@pytest.mark.setting("kl.ratio")`` in this folder,
one elsewhere, or a reason why there is none."""

from __future__ import annotations

import functools
import importlib
from dataclasses import fields
from pathlib import Path

import pytest

from vidcvae.config import MODELS, SECTION_CLASSES

HERE = Path(__file__).parent

ELSEWHERE = {  # file and name of the test
    "training.batch_norm_ranks": ("tests/training/test_distributed.py", "test_statistics_of_each_rank_alone"),
    "training.cuda_graph": ("tests/training/test_engine.py", "test_graphs_replay_what_eager_steps_do"),
    "training.deterministic": ("tests/training/test_engine.py", "test_deterministic_is_on_for_the_training_alone"),
}
WITHOUT = {"data.path": "only says where the data are; every other test that trains names some"}


def all_settings() -> set[str]:
    """``section.key``, with the first model's name of its class in place of the section "model"."""
    models: dict[type, str] = {}
    for name, cls in MODELS.items():
        models.setdefault(cls, name.removesuffix("-fp"))
    sections = {**{name: cls for cls, name in models.items()}, **SECTION_CLASSES}
    return {f"{section}.{declared.name}" for section, cls in sections.items() for declared in fields(cls)}


@functools.cache
def marked() -> dict[str, list[str]]:
    """The settings that tests of this folder are marked with, and the names of these tests."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        for name, value in vars(module).items():
            if name.startswith("test_") and callable(value):
                for mark in getattr(value, "pytestmark", ()):
                    for setting in mark.args if mark.name == "setting" else ():
                        found.setdefault(setting, []).append(name)
    return found


@pytest.mark.parametrize("setting", sorted(all_settings()))
def test_every_setting_has_a_test_of_its_effect(setting: str) -> None:
    assert setting in marked().keys() | ELSEWHERE.keys() | WITHOUT.keys(), (
        f"nothing asserts what {setting} does: write a test against numbers worked out by hand, "
        f'marked @pytest.mark.setting("{setting}")'
    )


def test_no_name_is_of_a_setting_that_is_gone() -> None:
    named = marked().keys() | ELSEWHERE.keys() | WITHOUT.keys()
    assert named <= all_settings()
    assert not WITHOUT.keys() & marked().keys(), "no reason is needed where there is a test"


@pytest.mark.parametrize("setting", sorted(ELSEWHERE))
def test_tests_elsewhere_are_there(setting: str) -> None:
    file, name = ELSEWHERE[setting]
    assert f"def {name}(" in (HERE.parents[1] / file).read_text()
