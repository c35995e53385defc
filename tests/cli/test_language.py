"""One name for one thing: the same words, placeholders, panels and examples in every command; old spellings work."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests import video_clips as clips
from vidcvae.cli import command, ui
from vidcvae.cli.app import app
from vidcvae.config import preset_names
from vidcvae.config.describe import QUALITY

from .conftest import TINY, Cli

ROOT = Path(__file__).parents[2]
COMPUTES = (  # where numbers are drawn; report is of z = 0 alone
    *("demo", "train", "generate", "evaluate", "export", "sweep", "ablate", "bench", "plot drift", "plot latents"),
    *("dataset synth dance", "dataset synth push"),
)


@pytest.fixture(autouse=True)
def normal_voice() -> Iterator[None]:
    yield
    ui.speak("normal")


def _leaves(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    children = getattr(found, "commands", {})
    for name, child in children.items():
        yield from _leaves(child, (*path, name))
    if not children:
        yield " ".join(path), found


COMMANDS = dict(_leaves(typer.main.get_command(app)))


def _options(path: str) -> dict[str, Any]:
    return {name: p for p in COMMANDS[path].params if p.param_type_name == "option" for name in p.opts}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_json_quiet_verbose_and_examples_that_can_be_typed(path: str) -> None:
    assert {"--json", "--quiet", "-q", "--verbose", "-v"} <= _options(path).keys()
    title, *examples = COMMANDS[path].epilog.splitlines()
    assert title == "Examples:" and 1 <= len(examples) <= 2
    for example in examples:
        program, *words = shlex.split(example)
        name = next(n for n in (3, 2, 1) if " ".join(words[:n]) in COMMANDS)
        assert program == "vidcvae" and " ".join(words[:name]) in (path, "config show"), example
        assert not [w for w in words if w.startswith("-") and w not in _options(" ".join(words[:name]))], example


@pytest.mark.parametrize("path", COMMANDS)
def test_help_has_panels_capitals_and_no_breaks_within_paragraphs(path: str) -> None:
    for name, option in _options(path).items():
        assert option.rich_help_panel in [*command.PANELS, command.ADVANCED], name
        assert option.metavar is not None and "[" not in option.metavar and "<" not in option.metavar, name
    assert "\n" not in COMMANDS[path].help.replace("\n\n", "")


@pytest.mark.parametrize("path", COMPUTES)
def test_what_draws_numbers_takes_a_seed_and_what_runs_a_model_a_device(path: str) -> None:
    assert "--seed" in _options(path)
    assert path.startswith("dataset") or "--device" in _options(path)


def test_old_names_are_hidden_and_go_on_working(cli: Cli, workplace: Path) -> None:
    hidden = {
        path: sorted(p.opts[0] for p in found.params if getattr(p, "hidden", False)) for path, found in COMMANDS.items()
    }
    assert {path: names for path, names in hidden.items() if names} == {
        "demo": ["also_out"],
        "train": ["--learning-rate"],
        "sweep": ["--into"],
        "ablate": ["--into", "--minutes"],
        "bench": ["--batch"],
        "dataset pack": ["also_out"],
        "dataset synth dance": ["also_out"],
        "dataset synth push": ["also_out"],
        "dataset import bair": ["also_out"],
        "config init": ["also_path"],
    }
    told = CliRunner().invoke(app, ["ablate", "--help"], env={"COLUMNS": "200"}).output
    assert not re.search(r"--into|--minutes", told)
    small = ("--clips", 2, "--val", 1, "--test", 0, "--frames", 3)
    assert cli("dataset", "synth", "push", "old", *small).code == 0
    assert cli("dataset", "synth", "push", "-o", "new", *small).code == 0
    assert sorted(p.name for p in Path("old").rglob("*")) == sorted(p.name for p in Path("new").rglob("*"))
    both = cli("dataset", "synth", "push", "a", "-o", "b", *small)
    assert both.code == 2 and "--output b and OUT a set the same value, but differ" in both.err
    assert cli("dataset", "synth", "push", "same", "-o", "same", *small).code == 0
    none = cli("dataset", "synth", "push")
    assert none.code == 2 and "--output is missing" in none.err


def test_a_dataset_is_an_argument_or_data(cli: Cli, workplace: Path, tiny_dance: Path) -> None:
    shown = [json.loads(cli("dataset", "inspect", *words, "--json").out) for words in (
        (tiny_dance,), ("--data", tiny_dance), (tiny_dance, "--data", tiny_dance),
    )]  # fmt: skip
    assert shown[0] == shown[1] == shown[2] and shown[0]["kind"] == "dance"
    small = [word for word in TINY if word != "--plain"]
    planned = cli("train", "--data", tiny_dance, *small, "--learning-rate", 0.5, "--dry-run", "--json")
    plan = json.loads(planned.out)
    assert (plan["config"]["optimizer"]["lr"], plan["config"]["data"]["path"]) == (0.5, str(tiny_dance))
    for name in ("train", "sweep", "ablate", "dataset inspect", "dataset pack"):
        needed = {"sweep": ("--vary", "kl.type=none,cyclical"), "dataset pack": ("-o", "x")}.get(name, ())
        refused = cli(*name.split(), tiny_dance, "--data", "another", *needed)
        assert refused.code == 2 and "DATASET" in refused.err and "--data another" in refused.err


def test_quiet_and_verbose_stand_before_or_after_the_command(cli: Cli, workplace: Path) -> None:
    words = ("config", "init", "-o", "x.toml")

    def anew(*arguments: str) -> str:
        Path("x.toml").unlink(missing_ok=True)
        return cli(*arguments).err

    assert "Edit it" in anew(*words)
    assert anew("-q", *words) == anew(*words, "-q") == anew(*words, "--quiet") == ""
    for both in (("-q", *words, "-v"), (*words, "-q", "-v"), ("-v", *words, "--quiet")):
        refused = cli(*both)
        assert refused.code == 2 and "--quiet and --verbose exclude each other" in refused.err
    assert "Edit it" in anew(*words)  # and is not kept for the next command


def test_a_named_file_is_replaced_and_a_folder_must_be_new(cli: Cli, workplace: Path) -> None:
    Path("x.svg").write_text("old")
    assert cli("plot", "schedule", "--preset", "course", "-o", "x.svg").code == 0
    assert Path("x.svg").read_text().startswith("<?xml")
    Path("x.toml").write_text("mine")  # but settings are somebody's own work
    assert cli("config", "init", "-o", "x.toml").code == 2 and Path("x.toml").read_text() == "mine"
    Path("full").mkdir()
    Path("full/mine").write_text("")
    for words in (("demo",), ("dataset", "synth", "dance"), ("dataset", "synth", "push")):
        refused = cli(*words, "-o", "full")
        assert refused.code == 2 and "full is not an empty folder" in refused.err
    refused = cli("export", "nowhere", "--gifs", "full")
    assert refused.code == 2 and "full is not an empty folder" in refused.err


def test_gpu_is_answered_with_cuda(cli: Cli, workplace: Path) -> None:
    for words in (("train", "--device", "gpu"), ("evaluate", "--device", "GPU"), ("bench", "train", "--device", "gpu")):
        refused = cli(*words)
        assert refused.code == 2 and "Did you mean 'cuda'?" in refused.err


@pytest.mark.parametrize("words", [("generate",), ("export",)])
def test_a_latent_that_cannot_work_is_refused_with_the_reason(cli: Cli, workplace: Path, words: tuple[str]) -> None:
    refused = cli(*words, "--latent", "posterior")
    assert refused.code == 2 and "--latent posterior needs the true frames, and" in refused.err


def test_train_shows_the_defaults_of_the_settings_without_torch() -> None:
    told = " ".join(CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "300"}).output.split())
    for text in (
        "Clips per step. [default: 2,",
        "side by side. [default: 70,",
        "[default: 0.001,",
        "[default: auto,",
    ):
        assert text in told


def test_presets_tell_what_the_documentation_measured(cli: Cli, workplace: Path) -> None:
    found = json.loads(cli("presets", "--json").out)["presets"]
    assert [preset["name"] for preset in found] == preset_names() == sorted(QUALITY)
    measured = (ROOT / "docs/experiments.md").read_text()
    for preset in found:
        assert all(f"{number} dB" in measured for number in re.findall(r"([\d.]+) dB", preset["quality"])), preset
    by_name = {preset["name"]: preset for preset in found}
    assert by_name["anchor-cpu"]["time"] == "about 20 minutes on two CPU cores"
    assert by_name["svg-bair"]["data"].startswith("pushing") and by_name["course"]["model"] == "pose-cvae"
    assert "anchor-cpu: Our own model" in cli("presets").out


def test_a_run_goes_on_for_more_than_it_had_and_refuses_what_is_used_up(
    cli: Cli, workplace: Path, tiny_dance: Path
) -> None:
    shutil.copytree(tiny_dance, "d")
    assert cli("train", "d", *TINY, "--epochs", 1, "--run", "r").code == 0
    before = Path("r/config.toml").read_text()
    used = cli("resume", "r", "--max-minutes", 0.0001)
    assert used.code == 2 and "is a total" in used.err and "resume r --more-minutes" in used.err
    assert Path("r/config.toml").read_text() == before  # nothing of it was stored
    for words in (("--epochs", 3, "--more-epochs", 1), ("--max-minutes", 3, "--more-minutes", 1)):
        both = cli("resume", "r", *words)
        assert both.code == 2 and f"{words[0]} and {words[2]} both set" in both.err
    assert cli("resume", "r", "--more-epochs", 2, "--plain").code == 0
    shown = json.loads(cli("runs", "show", "r", "--json").out)
    assert (shown["epoch"], shown["epochs"]) == (3, 3)
    assert cli("resume", "r", "--more-minutes", 5, "--more-epochs", 1, "--plain").code == 0
    shown = json.loads(cli("runs", "show", "r", "--json").out)
    assert shown["epoch"] == 4 and 5 < shown["settings"]["training.max_minutes"] < 6


def test_a_run_whose_minutes_are_over_is_offered_minutes_and_refuses_epochs_alone(
    cli: Cli, workplace: Path, tiny_dance: Path
) -> None:
    shutil.copytree(tiny_dance, "d")
    assert cli("train", "d", *TINY, "--epochs", 10_000, "--max-minutes", 0.01, "--run", "r").code == 0
    assert "Next: vidcvae resume r --more-minutes 10" in cli("runs", "show", "r").out
    before = Path("r/config.toml").read_text()
    for words in (("--more-epochs", 10), ("--epochs", 20_000)):
        refused = cli("resume", "r", *words)
        assert refused.code == 2 and "resume r --more-minutes 10" in refused.err
    assert Path("r/config.toml").read_text() == before, "10 more than it had would have been the end of 10,000"


def test_completion_does_not_offer_old_names(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"_VIDCVAE_COMPLETE": "complete_bash", "COMP_WORDS": "vidcvae ablate --m", "COMP_CWORD": "2"}
    monkeypatch.setattr(sys, "argv", ["vidcvae"])
    told = CliRunner().invoke(app, [], prog_name="vidcvae", env=environment).output
    assert "--max-minutes" in told and "--minutes" not in told.replace("--max-minutes", "")


@pytest.mark.golden
def test_imports_tell_programs_what_they_made(cli: Cli, workplace: Path, shared: Path) -> None:
    made = cli("checkpoint", "import", shared / "golden/course_pose.ckpt", "-o", "c.safetensors", "--json")
    assert json.loads(made.out)["parameters"] == 1_585_620
    bair = cli("dataset", "import", "bair", shared / "data/bair-tfrecord/softmotion30_44k", "-o", "b", "--json")
    assert bair.code in (0, 4) and json.loads(bair.out)["splits"].keys() == {"train", "test"}


def test_the_import_of_a_clip_tells_programs_what_it_made(cli: Cli, workplace: Path) -> None:
    clip = clips.make_clip(12, (32, 32))
    clips.write_images(Path("pictures"), clip.frames)
    clips.write_coco(Path("joints.json"), clip.joints)
    made = cli("dataset", "import", "frames", "pictures", "--keypoints", "joints.json", "-o", "mine", "--json")
    assert made.code == 0, made.err
    told = json.loads(made.out)
    assert told["output"] == "mine" and told["splits"]["train"]["frames"] > 0 and "joints.json" in made.err
