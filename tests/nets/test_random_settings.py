"""Random settings: whatever the schema allows is trained, resumed, scored, drawn and reported, or refused in words.

Which configurations are drawn is fixed; ``-m slow`` draws more of them, and a failure shows its settings.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples

from tests.nets.drawn import configs, start
from tests.nets.in_process import explained, vidcvae
from vidcvae import config as settings
from vidcvae.config import MODELS, Config
from vidcvae.data import pose_folder
from vidcvae.scenes import dancing, pushing

IN_CI = {"pose-cvae": 6, "anchor-cvae": 8, "svg-fp": 3, "svg-lp": 3}  # frames of 64x64 take their time
THOROUGH = 300
COMMANDS = (
    "evaluate runs/drawn --latent all --json",
    "plot loss runs/drawn --terminal",
    "plot psnr runs/drawn --terminal",
    "plot lr runs/drawn --terminal",
    "plot schedule runs/drawn --terminal",
    "plot kl runs/drawn",
    "report runs/drawn",
)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The least that can be trained, scored and shown: of a dance (False), and of robot pushing (True)."""
    place = tmp_path_factory.mktemp("drawn-data")
    pose_folder.write_folder(dancing.dance(24, 8, 1, 0, (16, 16)), place / "dance")
    pushing.write_folder(pushing.push(6, 1, 1, 7, 0), place / "push")
    return {False: place / "dance", True: place / "push"}


def life(config: Config, data: Path, place: Path) -> tuple[str, str]:
    """Train a configuration in ``place``, resume it and ask everything of it: how it went, and what was wrong."""
    (place / "drawn.toml").write_text(settings.to_toml(config))
    epochs = config.training.epochs
    commands = (
        f"train {data} --config drawn.toml --run runs/drawn --plain",
        f"resume runs/drawn --epochs {epochs + 1} --plain",
        *COMMANDS,
    )
    refused = []
    for command in commands:
        result = vidcvae(*command.split(), within=place)
        if problem := explained(result):
            return "failed", f"vidcvae {command}\n{problem}"
        if result.code:
            refused.append(f"{' '.join(command.split()[:2])}: {result.err.partition('error: ')[2].splitlines()[0]}")
            if command is commands[0]:
                break
    return (f"refused: {refused[0]}" if refused else "held"), ""


def try_many(model: str, number: int, datasets: dict[bool, Path]) -> Counter[str]:
    """How ``number`` random configurations of a model went; fails with the settings of those that did."""
    went: Counter[str] = Counter()
    failures: list[str] = []

    @examples(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # to shrink takes as many trainings again; the settings that differ are shown
        suppress_health_check=[*HealthCheck],
    )
    @given(configs(model))
    def one(config: Config) -> None:
        with tempfile.TemporaryDirectory() as place:
            outcome, problem = life(config, datasets[model.startswith("svg")], Path(place))
        went[outcome] += 1
        if problem:
            changed = settings.differences(start(model), config)
            told = "\n".join(f"  --set '{key}={value}'" for key, (_, value) in changed.items())
            failures.append(f"{problem}\nof {model} with\n{told}")

    one()
    for outcome, times in went.most_common():
        print(f"{times:>5}  {model}: {outcome}")
    assert not failures, f"{len(failures)} of {went.total()} configurations failed:\n\n" + "\n\n".join(failures)
    return went


@pytest.mark.parametrize("model", MODELS)
def test_random_settings_hold_or_are_refused_in_words(
    model: str, datasets: dict[bool, Path], count: Callable[[str, int], None]
) -> None:
    went = try_many(model, IN_CI[model], datasets)
    assert went["held"], went  # or nothing is tried in truth; how many hold is for the many below to tell
    count("random configurations", went.total())


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("model", MODELS)
def test_many_random_settings_hold_or_are_refused_in_words(
    model: str, datasets: dict[bool, Path], count: Callable[[str, int], None]
) -> None:
    went = try_many(model, THOROUGH // len(MODELS), datasets)
    assert went["held"] > went.total() // 2, went
    count("random configurations", went.total())
