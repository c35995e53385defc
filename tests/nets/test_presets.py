"""Every preset through every command: trained for two steps, then each command that concerns a run, with each option.

Each command line ends as it should, without a fault of vidcvae, and each file that it writes is opened and looked at.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests import video_clips
from tests.nets import commands, surface
from tests.nets.commands import COMMANDS, FRAMES, PRESETS, SIZES, TWIN, Preset, Step
from tests.nets.in_process import explained, studies_in_this_process, vidcvae
from tests.nets.opened import opened, strict_json
from vidcvae.data import pose_folder
from vidcvae.models import build_model
from vidcvae.scenes import dancing, pushing


class Distance(nn.Module):
    """(B, 3, H, W) twice -> B, as LPIPS."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean([1, 2, 3])


class Moments(nn.Module):
    """(B, 3, 16, H, W) -> (B, 2), as the network of FVD."""

    def forward(self, clips: Tensor) -> Tensor:
        return torch.stack([clips.mean([1, 2, 3, 4]), clips.square().mean([1, 2, 3, 4])], 1)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with ``data`` and ``long`` for a dance and for robot pushing, by what conditions a model of theirs."""
    dance_root, push_root = (tmp_path_factory.mktemp(f"net-{kind}") for kind in ("dance", "push"))
    pose_folder.write_folder(dancing.dance(64, FRAMES["pose"], 2, 0, SIZES["pose"]), dance_root / "data")
    pose_folder.write_folder(dancing.dance(24, 33, 0, 0, SIZES["pose"]), dance_root / "long")
    pushing.write_folder(pushing.push(7, 2, 2, FRAMES["actions+positions"], 0), push_root / "data")
    pushing.write_folder(pushing.push(1, 2, 0, 18, 0), push_root / "long")
    return {"pose": dance_root, "actions+positions": push_root}


@pytest.fixture(scope="session")
def trained(datasets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Preset], Path]:
    """A folder as ``commands`` describes it, in which the preset was trained; made once."""
    made: dict[str, Path] = {}

    def place_of(preset: Preset) -> Path:
        if preset.name not in made:
            place = tmp_path_factory.mktemp(f"net-{preset.name}")
            for kind in ("data", "long"):
                (place / kind).symlink_to(datasets[preset.config.model.condition_kind] / kind)
            result = vidcvae(*commands.train_first(preset).arguments, within=place)
            assert (result.code, explained(result)) == (0, ""), result.err + result.fault
            shutil.copytree(place / preset.run, place / "runs" / TWIN, copy_function=shutil.copy)
            config = place / "runs" / TWIN / "config.toml"
            config.write_text(config.read_text().replace("seed = 0", "seed = 1"))
            _give(preset, place)
            made[preset.name] = place
        return made[preset.name]

    return place_of


def _give(preset: Preset, place: Path) -> None:
    """What some options name: ``given/``."""
    given = place / "given"
    given.mkdir()
    (given / "settings.toml").write_text(preset.tiny)
    me = video_clips.make_clip(40, (24, 48))
    video_clips.write_video(given / "me.mp4", me.frames)
    video_clips.write_coco(given / "me.json", me.joints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out
        torch.jit.script(Distance()).save(str(given / "lpips.pt"))  # type: ignore[no-untyped-call]
        torch.jit.script(Moments()).save(str(given / "fvd.pt"))  # type: ignore[no-untyped-call]
    if preset.pushing:
        (given / "past").mkdir()
        for t in range(preset.config.training.past):
            shutil.copy(place / f"data/test/traj_0_to_1/0/{t}.png", given / "past")
    from vidcvae.models.loading import load_model

    loaded = load_model(place / preset.run)
    shape = build_model(loaded.config).latent_shape(*loaded.config.data.size)
    save_file({"eps": torch.zeros(preset.frames - 1, *shape)}, given / "noise.safetensors")


@pytest.fixture
def workplace(trained: Callable[[Preset], Path], tmp_path: Path) -> Callable[[Preset], Path]:
    """A copy of the folder for one test, whatever is done to the runs in it; large files are linked."""

    def copy(source: str, target: str) -> None:
        (os.link if source.endswith((".safetensors", ".bin")) else shutil.copy2)(source, target)

    def place_of(preset: Preset) -> Path:
        place = tmp_path / "work"
        shutil.copytree(trained(preset), place, symlinks=True, copy_function=copy)
        return place

    return place_of


@pytest.fixture(autouse=True)
def _studies_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    studies_in_this_process(monkeypatch)


def wrong(step: Step, place: Path) -> str:
    """What is wrong with a command line that is typed in ``place``, or ""."""
    result = vidcvae(*step.arguments, within=place)
    if problem := explained(result):
        return problem
    if result.code != step.code:
        return f"exit code {result.code}, not {step.code}: {result.err}"
    try:
        if step.says == "json":
            strict_json(result.out)
        elif step.says == "lines":
            assert [strict_json(line) for line in result.out.splitlines()]
    except ValueError as error:
        return f"standard output is not JSON alone ({error}): {result.out[-500:]}"
    for name, expected in step.makes.items():
        try:
            found = opened(place / name)
        except Exception as error:
            return f"{name} does not open: {type(error).__name__}: {error}"
        if unlike := {key: found.get(key) for key, value in expected.items() if found.get(key) != value}:
            return f"{name} has {unlike}, not {expected}"
    return ""


@pytest.mark.parametrize("command", [pytest.param(name, id=name.replace(" ", "-") or "root") for name in COMMANDS])
@pytest.mark.parametrize("name", PRESETS)
def test_every_command_takes_every_preset(
    name: str, command: str, workplace: Callable[[Preset], Path], count: Callable[[str, int], None]
) -> None:
    preset = Preset(name)
    place = workplace(preset)
    steps = commands.steps_of(preset, command)
    problems = [f"vidcvae {' '.join(step.arguments)}\n{found}" for step in steps if (found := wrong(step, place))]
    assert not problems, "\n\n".join(problems)
    count("command lines of presets", len(steps))


@pytest.mark.parametrize("name", [name for name in PRESETS if Preset(name).in_full])
def test_every_command_and_option_is_tried_or_excused(name: str) -> None:
    assert surface.unexercised(Preset(name)) == [], "give it in tests/nets/commands.py, or say in surface.py why not"


def test_the_net_notices_a_new_command_and_a_new_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(commands.SURFACE, "evaluate", [*commands.SURFACE["evaluate"], "--new"])
    monkeypatch.setitem(commands.SURFACE, "invent", ["RUN"])
    monkeypatch.setitem(surface.EXCUSED, "gone", "was there once")
    assert surface.unexercised(Preset(PRESETS[0])) == ["evaluate --new", "invent", "needless excuse: gone"]
