"""``sweep`` and ``ablate``: plans that are checked first, real processes that are stopped, fail, and are taken up."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev

import pytest

from vidcvae import config as settings
from vidcvae.cli.training_view import Screen
from vidcvae.storage import checkpoint
from vidcvae.storage.history import read_history
from vidcvae.training import schedules
from vidcvae.training.schedules import Length
from vidcvae.workflow import ablation, training, trials

from .conftest import Cli

pytestmark = pytest.mark.usefixtures("workplace")

TINY = """
[model]
frame_channels = 8
pose_channels = 4
latent_channels = 4
decoder_channels = 8
[data]
size = [16, 16]
[training]
clip_length = 4
batch_size = 4
device = "cpu"
log_every = 1
[checkpoint]
keep = 1
"""


@pytest.fixture(autouse=True)
def tiny(workplace: Path) -> None:
    (workplace / "tiny.toml").write_text(TINY)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process: what is tested is not how children are run, and each takes seconds to import torch."""

    def run_all(planned: list[trials.Trial], jobs: int, **told: object) -> dict[trials.Trial, str]:
        for trial in planned:
            if not trials.is_finished(trial):
                screen = Screen("plain")
                training.start(
                    training.prepare(trial.config, screen, path=trial.path), screen, name="", path=trial.path
                )
        return {}

    monkeypatch.setattr(trials, "run_all", run_all)


def steps(run: Path) -> int:
    step: int = checkpoint.read(run / "checkpoints/last.safetensors").meta.step
    return step


def test_a_sweep_is_stopped_taken_up_and_survives_a_run_that_fails(
    cli: Cli, tiny_dance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes: a signal to the sweep alone, then the same command again, in which one run ends in a NaN."""
    arguments = ["sweep", str(tiny_dance), "--config", "tiny.toml", "--vary", "optimizer.lr=0.001,1e30"]
    arguments += ["--set", "training.steps_per_epoch=60", "--epochs", "2", "--into", "s"]
    first, second = Path("s/lr-0.001"), Path("s/lr-1e30")
    command = [sys.executable, "-m", "vidcvae", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        history, deadline = first / "history.jsonl", time.monotonic() + 200
        while not (history.exists() and history.stat().st_size > 1000):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    assert "0 of 2 runs finished" in err and "the same command: vidcvae sweep" in err
    stopped = steps(first)
    assert 0 < stopped < 120 and stopped == max(line["step"] for line in read_history(history))

    again = cli(*arguments, "--jobs", 2)
    assert again.code == 1, again.err
    assert "lr-0.001: resumed" in again.err and "lr-1e30: started" in again.err, again.err
    assert "1 run failed" in again.err and f"{second}: " in again.err
    assert "not finite" in again.err or "became" in again.err
    assert "PSNR" in again.out and "lr-0.001" in again.out, "what was trained is compared all the same"
    assert steps(first) == 120
    assert [line["step"] for line in read_history(history) if line["kind"] == "step"] == list(range(1, 121))
    info = json.loads((first / "run.json").read_text())
    assert info["command"][1] == "train" and "optimizer.lr=0.001" in info["command"], "an ordinary run"

    started = []

    class Child:
        def __init__(self, trial: trials.Trial, title: str, jobs: int, voice: object) -> None:
            started.append(trial.path)
            self.trial, self.share, self.process = trial, 0.0, self

        def poll(self) -> int:
            return 1

        def ended(self) -> str:
            return "failed again"

    monkeypatch.setattr(trials, "Child", Child)
    assert cli(*arguments).code == 1
    assert started == [second], "finished runs are skipped"


def test_all_values_are_checked_before_anything_starts(cli: Cli, tiny_dance: Path) -> None:
    grid = ("--vary", "kl.type=cyclical,cylical", "--vary", "teacher_forcing.ratio=0,2", "--vary", "kl.tpye=none")
    done = cli("sweep", tiny_dance, *grid)
    assert done.code == 2, done.err
    assert "Did you mean 'cyclical'" in done.err and "must be at most 1" in done.err and "kl.tpye" in done.err
    nowhere = cli("sweep", "nowhere", "--vary", "kl.type=none")
    assert nowhere.code == 4 and "there is no dataset nowhere" in nowhere.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--vary", "kl.type"], "cannot read --vary 'kl.type'"),
        (["--vary", "kl.type=none,,cyclical"], "cannot read --vary"),
        (["--vary", "kl.type=none", "--vary", "kl.type=cyclical"], "--vary kl.type is given twice"),
        (["--vary", "training.seed=1,2", "--seeds", "2"], "both choose seeds"),
        (["--vary", "kl.ratio=0.5,0.50"], "are the same training"),
        (["--vary", "kl.type=none", "--preset", "curse"], "Did you mean 'course'"),
    ],
)
def test_wrong_grids_are_explained(cli: Cli, tiny_dance: Path, arguments: list[str], says: str) -> None:
    done = cli("sweep", tiny_dance, *arguments)
    assert done.code == 2 and says in done.err, done.err
    assert not Path("runs").exists()


def test_a_value_may_hold_commas() -> None:
    assert settings.read_values("lr_schedule.milestones=[2, 5],[3]") == ("lr_schedule.milestones", ["[2, 5]", "[3]"])
    assert settings.read_values('data.path="a,b",c') == ("data.path", ['"a,b"', "c"])
    assert settings.read_values("data.size=32x64,64x128")[1] == ["32x64", "64x128"]


def test_a_dry_run_tells_the_grid_and_writes_nothing(cli: Cli, tiny_dance: Path) -> None:
    done = cli(
        *("sweep", tiny_dance, "--config", "tiny.toml", "--vary", "kl.type=cyclical,none", "--seeds", 2, "--dry-run"),
        *("--vary", "lr_schedule.type=constant,cosine", "--epochs", 3),
    )
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines() if "runs/" in line]
    names = [Path(line[0]).name for line in lines]
    assert len(set(names)) == 8 and "kl.type-none_lr_schedule.type-cosine_seed-1" in names
    assert {(line[1], line[2]) for line in lines} == {("3", "9")}, "40 frames hold 10 clips of 4, in 3 steps of 4 clips"
    assert not Path("runs").exists()


def test_trials_whose_names_are_cut_or_look_alike_have_folders_of_their_own(tmp_path: Path, tiny_dance: Path) -> None:
    """Sixteen trials whose names differ after 120 letters, too, and three that differ in letters no folder can have."""
    keys = ("frame_channels", "pose_channels", "latent_channels", "decoder_channels")
    grid = [(f"model.{key}", (8, 16)) for key in keys]
    common = trials.Common(str(tiny_dance), None, None, ())

    def planned(names: list[tuple[str, tuple[str, ...]]], seeds: int = 1) -> list[trials.Trial]:
        variants = [trials.Variant(trials.folder_name(name), chosen) for name, chosen in names]
        return trials.plan(Path("s"), common, variants, seeds)

    long = []
    for values in itertools.product(*(found for _, found in grid)):
        chosen = tuple(f"{key}={value}" for (key, _), value in zip(grid, values, strict=True))
        long.append(("_".join(map(str, values[:3])) + "_long" * 24 + f"_{values[3]}", chosen))
    assert len({trials.folder_name(name) for name, _ in long}) == 8, "they were cut, and shared folders by two"
    found = planned(long)
    names = [trial.path.name for trial in found]
    assert len(set(names)) == 16 and max(map(len, names)) <= 120
    assert [trial.path.name for trial in planned(long[::-1])] == names[::-1], "a name is that of its settings"
    assert len({trial.path for trial in planned(long, seeds=3)}) == 48
    for trial, (_, chosen) in zip(found, long, strict=True):
        assert trial.variant.settings == chosen

    alike = [(f"path-{path}", (f"data.path={path}", "data.size=16x16")) for path in ("a/b", "a-b", "A b", "c")]
    names = [trial.path.name for trial in planned(alike)]
    assert len({name.casefold() for name in names}) == 4
    assert names[3] == "path-c", "whose name was its own keeps it, and goes on where it stood"
    assert [name[:9] for name in names[:3]] == ["path-a-b-", "path-a-b-", "path-A-b-"]


def test_a_sweep_of_an_older_version_goes_on_where_its_names_were_its_own(tiny_dance: Path) -> None:
    """Names that were cut at 120 letters, but differ before."""
    values = [json.dumps(list(range(first, first + 45))) for first in (1, 2)]
    settings_of = [f"lr_schedule.milestones={value}" for value in values]
    common = trials.Common(str(tiny_dance), None, None, ())
    names = [  # as they stand in its sweep.json
        "milestones--1-2-3-4-5-6-7-8-9-10-11-12-13-14-15-16-17-18-19-"
        "20-21-22-23-24-25-26-27-28-29-30-31-32-33-34-35-36-37-38-39-",
        "milestones--2-3-4-5-6-7-8-9-10-11-12-13-14-15-16-17-18-19-20"
        "-21-22-23-24-25-26-27-28-29-30-31-32-33-34-35-36-37-38-39-40",
    ]
    runs = {name: settings.to_table(common.resolve([chosen])) for name, chosen in zip(names, settings_of, strict=True)}
    Path("s").mkdir()
    Path("s/sweep.json").write_text(json.dumps({"command": "vidcvae sweep", "vidcvae": "0.1.0", "runs": runs}))
    variants = [
        trials.Variant(trials.folder_name(f"milestones-{value}"), (chosen,))
        for value, chosen in zip(values, settings_of, strict=True)
    ]
    planned = trials.plan(Path("s"), common, variants, 1)
    assert [trial.path.name for trial in planned] == names
    trials._check_plan(Path("s"), planned)


def test_a_sweep_with_seeds_trains_what_it_says_and_refuses_another_plan(
    cli: Cli, tiny_dance: Path, here: None
) -> None:
    arguments = ("sweep", tiny_dance, "--config", "tiny.toml", "--vary", "kl.type=cyclical,none", "--seeds", 2)
    done = cli(*arguments, "--epochs", 1)
    assert done.code == 0, done.err
    folder = Path("runs/sweep-type")
    runs = sorted(path.parent for path in folder.glob("*/config.toml"))
    assert [run.name for run in runs] == [f"type-{t}_seed-{s}" for t in ("cyclical", "none") for s in (0, 1)]
    configs = [settings.resolve(settings.read_toml(run / "config.toml")) for run in runs]
    assert [(c.kl.type, c.training.seed) for c in configs] == [(t, s) for t in ("cyclical", "none") for s in (0, 1)]
    assert sum("±" in line for line in done.out.splitlines()) == 2, "a row for each setting, with spread over seeds"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert cli(*arguments, "--epochs", 1).code == 0
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    other = cli(*arguments, "--epochs", 2)
    assert other.code == 2 and "training.epochs was 1 and is 2" in other.err and "-o FOLDER" in other.err
    more = cli("sweep", tiny_dance, "--config", "tiny.toml", "--vary", "kl.type=cyclical", "--epochs", 1)
    assert more.code == 2 and "type-cyclical is new" in more.err
    Path("full").mkdir()
    Path("full/letter.txt").write_text("dear")
    taken = cli(*arguments, "--into", "full")
    assert taken.code == 2 and "is not an empty folder, nor a study of this command" in taken.err
    (folder / "sweep.json").write_text("{")
    assert cli(*arguments, "--epochs", 1).code == 4


def test_children_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []

    def popen(arguments: list[str], **options: dict[str, str]) -> None:
        given.append(options["env"])
        raise OSError

    monkeypatch.setattr(trials.subprocess, "Popen", popen)
    monkeypatch.setattr(trials, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    trial = trials.Trial(Path("x"), trials.Variant("x"), (), settings.resolve())
    for jobs in (1, 3, 16):
        with pytest.raises(OSError):
            trials.Child(trial, "x", jobs)
    assert [environment.get("OMP_NUM_THREADS") for environment in given] == [None, "2", "1"]


# --- ablate -----------------------------------------------------------------------------------------


def test_an_ablation_leaves_out_each_remedy_that_is_used(cli: Cli, tiny_dance: Path) -> None:
    used = ("training.noise=0.1", "training.ema=0.99", "loss.motion=2", "training.clip_length_start=3")
    options = [word for text in used for word in ("--set", text)]
    done = cli(
        *("ablate", tiny_dance, "--preset", "anchor-cpu", *options, "--set", "training.replay=0"),
        *("--set", "kl.free_bits=0", "--set", "data.size=16x16", "--steps", 100, "--dry-run"),
        *("--set", "data.flip=false", "--set", "data.shift=0", "--set", "training.latent_dropout=0"),
        *("--also", "training.noise=0.3"),
    )
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines() if "runs/" in line]
    assert {Path(line[0]).name for line in lines} == {
        *("full", "without-anchor", "without-scene", "without-own-roll-outs", "without-growing-clips", "without-noise"),
        *("without-EMA", "without-motion-weight", "with-training.noise-0.3"),
    }
    assert len({line[2] for line in lines}) == 1, "equal steps"
    neither = cli("ablate", tiny_dance)
    assert neither.code == 2 and "--max-minutes or --steps" in neither.err


def test_equal_steps_are_those_that_were_asked_for(cli: Cli, tiny_dance: Path) -> None:
    arguments = ("ablate", tiny_dance, "--preset", "anchor-cpu", "--set", "data.size=16x16", "--dry-run", "--steps")
    done = cli(*arguments, 1000)  # of a preset of 400 epochs
    assert done.code == 0 and "do not divide" not in done.err, done.err
    assert {tuple(line.split()[1:3]) for line in done.out.splitlines() if "runs/" in line} == {("250", "1000")}
    done = cli(*arguments, 997)
    assert "997 steps do not divide evenly: training 996, 332 epochs of 3" in done.err
    assert {tuple(line.split()[1:3]) for line in done.out.splitlines() if "runs/" in line} == {("332", "996")}


@pytest.mark.parametrize(
    ("steps", "most", "parts"),
    [(1000, 400, (250, 4)), (300, 400, (300, 1)), (1200, 400, (400, 3)), (20_000, 70, (50, 400)), (7, 1, (1, 7))],
)
def test_steps_are_parted_into_many_equal_epochs(steps: int, most: int, parts: tuple[int, int]) -> None:
    assert ablation._parts(steps, most) == parts
    for number in range(steps, steps + 50):
        epochs, each = ablation._parts(number, most)
        assert most >= epochs >= min(number, most) / 2 and abs(epochs * each - number) <= number / 100


@pytest.mark.parametrize("steps", [40, 1000, 20_000])
def test_what_counts_in_epochs_keeps_its_share_of_the_steps(steps: int) -> None:
    full = settings.resolve(
        {
            "training": {"epochs": 400},
            "teacher_forcing": {"ratio": 0.8, "decay_start": 100, "decay_step": 0.004},
            "lr_schedule": {"type": "multistep", "milestones": [160, 320]},
        }
    )
    budget = [settings.read_override(text) for text in ablation.budget(full, None, steps)]
    equal = settings.resolve(settings.to_table(full), *budget)
    lengths = [Length(c.training.epochs, c.training.steps_per_epoch or 7) for c in (full, equal)]
    assert lengths[1].steps == steps
    for share in (0.0, 0.2, 0.35, 0.45, 0.7, 0.9):  # between the steps of the stairs
        ratios, rates = [], []
        for config, length in zip((full, equal), lengths, strict=True):
            step = int(share * length.steps)
            ratios.append(schedules.teacher_forcing_ratio(config.teacher_forcing, length.epoch(step)))
            rates.append(schedules.learning_rate(config, length, step))
        assert ratios[0] == pytest.approx(ratios[1], abs=0.05) and rates[0] == pytest.approx(rates[1])


def test_an_ablation_tells_means_spread_and_age(cli: Cli, tiny_dance: Path, here: None) -> None:
    arguments = ("ablate", tiny_dance, "--preset", "course", "--config", "tiny.toml", "--set", "training.ema=0.9")
    arguments += ("--set", "teacher_forcing.ratio=1", "--set", "teacher_forcing.decay_step=0", "--steps", 4)
    done = cli(*arguments, "--seeds", 2)
    assert done.code == 0, done.err
    folder = Path("runs/ablate-course")
    rows = {row["variant"]: row for row in json.loads((folder / "ablation.json").read_text())["rows"]}
    assert set(rows) == {"full", "without-EMA"}
    for name, row in rows.items():
        records = [json.loads((folder / f"{name}_seed-{s}/scores/val-zero.json").read_text()) for s in (0, 1)]
        psnrs = [record["psnr_mean"] for record in records]
        assert row["psnr_mean"] == pytest.approx(fmean(psnrs)) and row["spread"] == pytest.approx(stdev(psnrs))
        assert row["steps"] == 4
        ages = [run["age_test"] for run in row["runs"]]
        assert row["lost_to_age"] == pytest.approx(fmean(age["from_restart"] - age["from_start"] for age in ages))
    full, without = rows["full"], rows["without-EMA"]
    assert without["against_full"] == pytest.approx(without["psnr_mean"] - full["psnr_mean"])
    table = (folder / "ablation.md").read_text()
    assert f"| without-EMA | {without['psnr_mean']:.2f} ± {without['spread']:.2f} |" in table
    assert "lost to age" in table
    everything = sorted(p for p in folder.iterdir() if p.name[0] != ".")  # as a shell lists it: runs, plan and tables
    compared = cli("compare", *everything)
    assert compared.code == 0, compared.err
    assert compared.err.count("left out") == 1 and compared.err.count("\n") == 2
    assert "not beat repeating the training frame of the nearest pose" in compared.err, "after so few steps"
    for name in ("sweep.json", "ablation.json", "ablation.md"):
        assert f"runs/ablate-course/{name}" in compared.err
    assert sum("±" in line for line in compared.out.splitlines()) == 2, "a row for each variant, over its seeds"
    page = cli("report", *everything, "--no-videos", "-o", "page.html")
    assert page.code == 0 and page.err.count("left out") == 1 and "page.html: 4 runs" in page.out, page.err
    for command in ("compare", "report"):
        assert cli(command, folder / "ablation.json").code == 4, "alone it is not overlooked"
    (folder / "full_seed-0/scores/val-zero.json").write_text("{")
    assert cli("compare", *everything).code == 4, "neither is a record that is damaged"
