"""Options with choices: every choice stands in --help, and another one is refused with the nearest right one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vidcvae.cli.app import app
from vidcvae.config import preset_names, schema
from vidcvae.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
CHOICES: dict[str, tuple[str, ...]] = {
    "--device": DEVICES,
    "--weights": ("auto", "raw", "ema"),
    "--latent": ("zero", "prior"),  # all commands have these; some have more
    "--model": ("pose-cvae", "anchor-cvae", "svg-fp", "svg-lp"),
    "--precision": ("float32", "bf16", "auto"),
    "--preset": ("course", "course-best", "anchor", "anchor-cpu", "clip", "demo", "svg-bair"),
    "--sort": ("psnr", "first_50", "last_50", "ssim", "kl", "active_units", "parameters", "minutes"),
    "--against": ("plain",),
    "--fit": ("pad", "crop", "stretch"),
    "--style": ("course",),
    "--camera": ("main", "aux1"),
    "--keypoint-format": ("auto", "coco17", "wholebody133", "body25", "body25b", "coco18", "halpe26", "mediapipe33"),
    "WHAT": ("train", "generate"),
}


def _options() -> Iterator[Any]:
    def walk(command: Any, path: tuple[str, ...]) -> Iterator[Any]:
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*path, name))
        for parameter in command.params:
            name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
            name = "WHAT" if name == "TRAIN|GENERATE" else name
            if name in CHOICES:
                yield pytest.param(path, name, id=f"{' '.join(path)} {name}")

    yield from walk(typer.main.get_command(app), ())


OPTIONS = list(_options())


def _has(text: str, word: str) -> bool:
    return bool(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text))


def test_the_table_is_of_options_that_are_there() -> None:
    assert {option.values[1] for option in OPTIONS} == set(CHOICES)
    assert set(CHOICES["--preset"]) == set(preset_names())
    assert set(CHOICES["--model"]) == set(schema.MODELS) == set(schema.choices(schema.ModelName))


@pytest.mark.parametrize(("path", "name"), OPTIONS)
def test_choices_are_listed_and_others_refused(path: tuple[str, ...], name: str) -> None:
    told = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "250"}).output
    (line,) = (line for line in told.splitlines() if re.match(rf"│ [* ]*{re.escape(name)} ", line))
    assert not [choice for choice in CHOICES[name] if not _has(line, choice)]
    wrong = CHOICES[name][-1] + "x"
    option = [] if name == "WHAT" else [name]
    refused = CliRunner().invoke(app, [*path, *option, wrong]).exception
    assert isinstance(refused, UsageError)
    assert refused.message.startswith(f"{name} is '{wrong}'. Did you mean '{CHOICES[name][-1]}'?")
    assert all(choice in refused.hint for choice in CHOICES[name])


def test_commands_that_are_told_more_ways_to_choose_z_list_them() -> None:
    for command in (["evaluate"], ["plot", "drift"], ["generate"], ["export"]):
        told = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "250"}).output
        (line,) = (line for line in told.splitlines() if re.match(r"│ [* ]*--latent ", line))
        assert not [z for z in schema.choices(schema.Latent) if not _has(line, z)]
