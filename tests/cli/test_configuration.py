"""``vidcvae config``: what is set, whether it is right, how to begin, and what it means."""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from vidcvae import config as settings
from vidcvae.config import describe

from .conftest import TINY, Cli

pytestmark = pytest.mark.usefixtures("workplace")

DECLARED = {
    f"{section}.{declared.name}"
    for section, cls in [*settings.SECTION_CLASSES.items(), *(("model", cls) for cls in settings.MODELS.values())]
    for declared in fields(cls)
}


# --- show --------------------------------------------------------------------------------------------


def test_show_prints_what_train_would_take(cli: Cli, tiny_dance: Path) -> None:
    Path("vidcvae.toml").write_text("[kl]\nratio = 0.25\ncycles = 7\n")
    Path("more.toml").write_text("[kl]\ncycles = 8\n[optimizer]\nlr = 0.5\n")
    arguments = ("--preset", "course", "--config", "more.toml", "--set", "optimizer.lr=0.25")
    shown = json.loads(cli("config", "show", *arguments, "--json").out)
    assert shown["data"]["shuffle"] is False  # the preset
    assert shown["kl"]["ratio"] == 0.25  # the project's file over the preset
    assert shown["kl"]["cycles"] == 8  # --config over it
    assert shown["optimizer"]["lr"] == 0.25  # --set over all
    text = cli("config", "show", *arguments).out
    assert tomllib.loads(text) == shown
    trained = cli("train", tiny_dance, *arguments, "--size", "16x16", "--dry-run").out
    assert tomllib.loads(trained)["kl"] == shown["kl"]


def test_show_of_a_run_is_what_it_was_trained_with(cli: Cli, tiny_dance: Path) -> None:
    assert cli("train", tiny_dance, *TINY, "--epochs", 1, "--lr", 0.0125, "--run", "r").code == 0
    for what in ("r", "r/checkpoints/last.safetensors"):
        shown = json.loads(cli("config", "show", what, "--json").out)
        assert shown["optimizer"]["lr"] == 0.0125 and shown["data"]["path"] == str(tiny_dance)
    assert cli("config", "show", "r", "--preset", "course").code == 2


# --- check -------------------------------------------------------------------------------------------


def test_check_names_all_problems_at_once(cli: Cli) -> None:
    Path("x.toml").write_text("[kl]\ntpye = 'none'\n[training]\nepochs = -1\n[nonsense]\n")
    done = cli("config", "check", "x.toml", "--set", "loss.smoothing=-2")
    assert done.code == 2 and "4 problems" in done.err
    for part in ("kl.tpye. Did you mean 'type'?", "training.epochs is -1", "[nonsense]", "loss.smoothing is -2"):
        assert part in done.err
    unreadable = cli("config", "check", "--set", "lr", "--set", "kl.ratio")
    assert unreadable.code == 2 and "'lr'" in unreadable.err and "'kl.ratio'" in unreadable.err


def test_a_wrong_setting_is_told_with_its_file(cli: Cli, tiny_dance: Path) -> None:
    """A forgotten vidcvae.toml spoils every command in its folder; --set is not in it."""
    Path("vidcvae.toml").write_text("[kl]\nrattio = 1\n")
    done = cli("train", tiny_dance, "--dry-run", "--set", "kl.cycels=2")
    assert done.code == 2
    assert "unknown key kl.rattio. Did you mean 'ratio'? (in vidcvae.toml)" in done.err
    assert "unknown key kl.cycels. Did you mean 'cycles'?\n" in done.err


def test_check_says_good_and_warns_of_what_is_not_meant(cli: Cli) -> None:
    done = cli("config", "check", "--preset", "course", "--set", "kl.cycles=10", "--set", "kl.ratio=1.0")
    assert done.code == 0 and "good: course (pose-cvae, 70 epochs)" in done.out
    # 7 epochs a cycle: the last one starts at 6/7 of the climb from 0.01 to 1
    assert f"peaks at {0.01 + 0.99 * 6 / 7:.3f}" in done.err
    assert "data.path is nowhere, which does not exist" in cli("config", "check", "--set", "data.path=nowhere").err
    assert cli("config", "check", "none.toml").code == 2


# --- init --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", sorted(settings.MODELS))
def test_a_starter_file_has_every_key_at_its_default(cli: Cli, model: str) -> None:
    assert cli("config", "init", "x.toml", "--model", model).code == 0
    text = Path("x.toml").read_text()
    want = settings.resolve_with_preset(None, [{"model": {"name": model}}])
    assert settings.resolve_with_preset(None, [settings.read_toml(Path("x.toml"))]) == want
    # and with every comment that is a setting made one, it is complete and still says the same
    complete = tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", text))
    assert settings.resolve(complete) == want
    assert {f"{s}.{k}" for s in complete for k in complete[s]} == {
        f"{s}.{k}" for s, t in settings.to_table(want).items() for k in t
    }


@pytest.mark.parametrize("preset", settings.preset_names())
def test_a_starter_file_from_a_preset_needs_the_preset_no_more(cli: Cli, preset: str) -> None:
    assert cli("config", "init", "x.toml", "--preset", preset).code == 0
    table = settings.read_toml(Path("x.toml"))
    assert settings.resolve(table) == settings.resolve(settings.read_preset(preset))


def test_init_explains_and_never_overwrites(cli: Cli) -> None:
    assert cli("config", "init").code == 0
    text = Path("vidcvae.toml").read_text()
    line = (
        "# share of a cycle in which beta climbs; range: above 0, at most 1; symbol: R; default: 0.5\n# ratio = 0.5\n"
    )
    assert line in text
    assert max(map(len, text.splitlines())) <= 120
    again = cli("config", "init")
    assert again.code == 2 and "already exists" in again.err and Path("vidcvae.toml").read_text() == text
    assert cli("config", "check").code == 0
    # as a project's file it changes nothing
    shown = json.loads(cli("config", "show", "--preset", "svg-bair", "--json").out)
    assert settings.resolve(shown) == settings.resolve(settings.read_preset("svg-bair"))


# --- explain -----------------------------------------------------------------------------------------


def test_explain_tells_everything_of_a_key(cli: Cli) -> None:
    done = cli("config", "explain", "kl.start")
    for part in ("beta at the start of a cycle", "at least 0", "beta", "0.01", "svg-bair 1e-06"):
        assert part in done.out
    assert "course" not in done.out  # it has the default there
    found = json.loads(cli("config", "explain", "kl.type", "--json").out)["kl.type"][0]
    assert found["choices"] == ["cyclical", "monotonic", "none"] and found["presets"]["course-best"] == "none"


def test_explain_knows_every_key_and_every_section(cli: Cli) -> None:
    sections = json.loads(cli("config", "explain", "--json").out)
    assert {f"{section}.{key}" for section, keys in sections.items() for key in keys} == DECLARED
    assert set(describe.known()) == DECLARED
    kl = cli("config", "explain", "kl").out
    assert all(f"kl.{key}:" in kl for key in sections["kl"])
    assert "(pose-cvae)" in cli("config", "explain", "model.latent_channels").out
    assert "optimizer.lr: learning rate" in cli("config", "explain", "lr").out


@pytest.mark.parametrize(
    ("wrong", "right"), [("kl.rtio", "kl.ratio"), ("smothing", "loss.smoothing"), ("trainin", "training")]
)
def test_explain_means_the_nearest(cli: Cli, wrong: str, right: str) -> None:
    done = cli("config", "explain", wrong)
    assert done.code == 2 and f"Did you mean '{right}'?" in done.err


def test_a_file_that_may_not_be_read_is_one_sentence(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer looks before the command does; root may read everything, so the system's answer is replaced."""
    Path("mine.toml").write_text("[kl]\nratio = 0.5\n")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: str(path) != "mine.toml" and real(path, mode, **more))
    done = cli("config", "check", "mine.toml")
    assert done.code == 2 and done.err.startswith("error: FILE: ") and "is not readable." in done.err
    assert len(done.err.splitlines()) == 1 and "Usage" not in done.err
