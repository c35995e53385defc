"""Reading settings: strictly, and with every problem named at once."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from vidcvae import config as settings
from vidcvae.config import describe
from vidcvae.errors import UsageError


def problems(*layers: dict[str, object]) -> str:
    with pytest.raises(UsageError) as caught:
        settings.resolve(*layers)
    return caught.value.message


@pytest.mark.parametrize("path", ['a "quoted" \\ path', "tanz😀", "𠀀/舞", "a\x7fb\tc\x01"])
def test_toml_round_trip_gives_the_same_config(path: str) -> None:
    config = settings.resolve(settings.read_preset("course"), {"data": {"path": path}})
    starter = tomllib.loads(describe.starter(config, "test"))
    assert starter["data"]["path"] == path
    assert settings.resolve(tomllib.loads(settings.to_toml(config))) == config


@pytest.mark.parametrize("name", settings.preset_names())
def test_every_preset_is_valid(name: str) -> None:
    settings.resolve(settings.read_preset(name))


def test_course_preset_is_the_report_s() -> None:
    config = settings.resolve(settings.read_preset("course"))
    assert (config.optimizer.lr, config.training.batch_size, config.training.clip_length) == (1e-3, 2, 16)
    assert (config.kl.type, config.kl.cycles, config.kl.ratio, config.loss.smoothing) == ("cyclical", 4, 0.5, 0.3)
    assert (config.lr_schedule.type, config.lr_schedule.milestones) == ("multistep", (2, 5))
    assert config.teacher_forcing.ratio == 0


def test_all_problems_are_reported_at_once() -> None:
    text = problems(
        {"kl": {"tpye": "none", "ratio": 1.5}, "trainin": {}, "optimizer": {"lr": -1}, "loss": {"smoothing": "x"}}
    )
    for part in ("kl.tpye. Did you mean 'type'?", "kl.ratio is 1.5", "[trainin]. Did you mean 'training'?", "lr is -1"):
        assert part in text
    assert "loss.smoothing is 'x', but it must be a finite number" in text
    assert "5 problems" in text


def test_a_key_in_the_wrong_section_is_pointed_home() -> None:
    assert "Did you mean optimizer.lr?" in problems({"training": {"lr": 1e-3}})


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"training": {"epochs": 2.5}}, "must be a whole number"),
        ({"training": {"epochs": True}}, "must be a whole number"),
        ({"optimizer": {"lr": float("nan")}}, "must be a finite number"),
        ({"teacher_forcing": {"ratio": 1.01}}, "must be at most 1"),
        ({"teacher_forcing": {"ratio": -0.1}}, "must be at least 0"),
        ({"data": {"size": "32x"}}, "must be a whole number, or auto"),
        ({"data": {"size": "aut"}}, "must have 2 numbers, such as 32x64, or auto"),
        ({"data": {"size": [32]}}, "must have 2 numbers"),
        ({"data": {"size": "30x64"}}, "must be multiples of 8"),
        ({"kl": {"start": 2.0}}, "beta must climb"),
        ({"kl": {"type": "cyclic"}}, "Did you mean 'cyclical'"),
        ({"training": {"clip_length": 2, "past": 2}}, "nothing is left to predict"),
        ({"model": {"name": "pose-cave"}}, "Did you mean 'pose-cvae'?"),
        ({"model": "pose-cvae"}, "write [model]"),
        ({"loss": {"smoothing": -0.3}}, "must be at least 0"),
    ],
)
def test_wrong_values_are_named(table: dict[str, object], says: str) -> None:
    assert says in problems(table)


def test_later_layers_win_key_by_key() -> None:
    config = settings.resolve({"kl": {"type": "none", "stop": 0.5}}, {"kl": {"stop": 0.7}})
    assert (config.kl.type, config.kl.stop) == ("none", 0.7)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("kl.ratio=0.5", {"kl": {"ratio": 0.5}}),
        ("kl.type=none", {"kl": {"type": "none"}}),
        ("data.size=64x128", {"data": {"size": "64x128"}}),
        ("lr_schedule.milestones=[3, 7]", {"lr_schedule": {"milestones": [3, 7]}}),
        ("data.shuffle = false", {"data": {"shuffle": False}}),
    ],
)
def test_overrides(text: str, table: dict[str, object]) -> None:
    assert settings.read_override(text) == table


@pytest.mark.parametrize("text", ["kl.ratio", "ratio=1", "=1", ".x=1"])
def test_an_unreadable_override_shows_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read the setting") as caught:
        settings.read_override(text)
    assert "--set section.key=value" in caught.value.hint


def test_a_toml_error_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[kl]\nratio = \n")
    with pytest.raises(UsageError, match="line 2"):
        settings.read_toml(path)


def test_differences_name_the_settings() -> None:
    a, b = settings.resolve(), settings.resolve({"kl": {"type": "none"}, "optimizer": {"lr": 1e-4}})
    assert settings.differences(a, b) == {"kl.type": ("cyclical", "none"), "optimizer.lr": (1e-3, 1e-4)}


def test_every_setting_is_explained() -> None:
    for cls in [*settings.SECTION_CLASSES.values(), *set(settings.MODELS.values())]:
        for declared in fields(cls):
            assert len(declared.metadata["doc"]) > 8, f"{cls.__name__}.{declared.name}"
