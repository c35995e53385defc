"""``report`` as it is typed, on real runs; what its page looks like and does is tested in tests/output."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vidcvae import config as settings
from vidcvae.errors import DataError
from vidcvae.evaluation import drift, score
from vidcvae.output import plots
from vidcvae.output import report as page_of

from .conftest import TINY, Cli

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def runs(cli: Cli, tiny_dance: Path) -> list[str]:
    shutil.copytree(tiny_dance, "data")
    names = []
    for kind in ("none", "cyclical"):
        names.append(f"runs/{kind}")
        done = cli("train", "data", *TINY, "--epochs", 1, "--set", f"kl.type={kind}", "--run", names[-1])
        assert done.code == 0, done.err
    return names


def test_a_report_of_two_runs(cli: Cli, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("report", *runs, "--drift", "-o", "r.html")
    assert done.code == 0 and "r.html: 2 runs" in done.out, done.err
    page = Path("r.html").read_text()
    assert "2 runs that differ in kl.type" in page and page.count("<canvas") == 4, "truth, pose and two videos"
    for run in runs:
        record = json.loads(Path(run, "scores/val-zero.json").read_text())
        assert f"<td>{record['psnr_mean']:.2f}</td>" in page and record["protocol"]["checkpoint"] in page
    assert "vidcvae train data --size 16x16" in page and "vidcvae report runs/none" in page
    assert "Age test" in page and "<h2>Latents</h2>" not in page
    assert cli("evaluate", runs[0], "--latent", "all").code == 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(score, "score_split", never)
    monkeypatch.setattr(drift, "drift", never)
    assert cli("report", *runs, "--no-videos", "-o", "r.html").code == 0, "scores that are there are taken as they are"
    page = Path("r.html").read_text()
    assert "<canvas" not in page and "Age test" in page, "and so is the drift"
    assert "<h2>Latents</h2>" in page, "what was measured meanwhile is shown"


def test_scores_of_other_data_are_shown_and_said_to_be_incomparable(cli: Cli, runs: list[str]) -> None:
    assert (
        cli("dataset", "synth", "dance", "-o", "other", "--frames", 30, "--val", 9, "--test", 0, "--size", "16x16").code
        == 0
    )
    assert cli("train", "other", *TINY, "--epochs", 1, "--run", "runs/other").code == 0
    done = cli("report", runs[0], "runs/other", "--no-videos", "-o", "r.html")
    assert done.code == 0, done.err
    page = Path("r.html").read_text()
    assert "were not taken by the same protocol, so they cannot be compared" in page and "data_digest" in page
    assert "copy of a given frame" not in page and "The best," not in page


def test_a_drift_of_other_data_at_the_same_path_is_measured_again(cli: Cli, runs: list[str]) -> None:
    assert cli("report", runs[0], "--drift", "--no-videos", "-o", "r.html").code == 0
    kept = Path(runs[0], "scores/val-drift.json")
    before = json.loads(kept.read_text())
    frame = Path("data/val/val_img/2.png")
    shutil.copy("data/val/val_img/0.png", frame)
    assert cli("report", runs[0], "--drift", "--no-videos", "-o", "r.html").code == 0
    after = json.loads(kept.read_text())
    assert before["data"] == after["data"] and before["data_digest"] != after["data_digest"]
    assert before["free"] != after["free"]


def test_a_run_whose_drift_cannot_be_measured_is_shown_without_it(cli: Cli, runs: list[str], monkeypatch: Any) -> None:
    real = drift.drift

    def only_one(loaded: Any, *args: Any, **options: Any) -> Any:
        if loaded.run.name == "none":
            raise DataError("sequence 0 has 3 frames, too few to restart a run in.")
        return real(loaded, *args, **options)

    monkeypatch.setattr(drift, "drift", only_one)
    done = cli("report", *runs, "--drift", "--no-videos", "-o", "r.html")
    assert done.code == 0 and "none: sequence 0 has 3 frames, too few" in done.err
    page = Path("r.html").read_text()
    assert "none: sequence 0 has 3 frames, too few" in page and "Age test" in page


def test_the_ordinary_score_is_shown_whatever_else_was_scored(cli: Cli, runs: list[str]) -> None:
    for options in (("--future", 2), ("--future", 2, "--latent", "all"), ("--batch-stats",)):
        assert cli("evaluate", runs[0], *options).code == 0
    assert not Path(runs[0], "scores/val-zero.json").exists()
    assert cli("report", runs[0], "--no-videos", "-o", "r.html").code == 0
    page = Path("r.html").read_text()
    record = json.loads(Path(runs[0], "scores/val-zero.json").read_text())
    assert record["protocol"]["future"] == 7 and record["protocol"]["batch_norm"] == "running"
    assert f"reaches {record['psnr_mean']:.2f} dB over 7 frames made from one given frame" in page
    assert "<h2>Latents</h2>" not in page, "they are of fewer frames"
    assert "<td>best of 1 validation by psnr_zero on val</td>" in page
    chosen = {"chosen": "best", "of": 70, "metric": "psnr_zero", "split": "val", "on_scored_data": True}
    entries = [plots.Run(name, settings.resolve_saved({}), []) for name in ("a", "b")]
    both = [{**record, "selection": how} for how in (chosen, {"chosen": "last"})]
    told = tuple(page_of.Entry(run, {}, each) for run, each in zip(entries, both, strict=True))
    text = page_of.render(page_of.Report(told, (), {}, "vidcvae report", "2026-01-31"))
    assert "a: the checkpoint was chosen by its score on these very data" in text and "<td>last</td>" in text


def test_what_is_missing_is_told_on_the_page(cli: Cli, runs: list[str]) -> None:
    shutil.rmtree("data")
    shutil.rmtree(Path(runs[1], "checkpoints"))
    done = cli("report", *runs, "-o", "r.html")
    assert done.code == 0, done.err
    page = Path("r.html").read_text()
    assert f"there is no dataset {Path('data').absolute()}, which" in page and "has no checkpoint yet" in page
    assert "<h2>Training</h2>" in page, "what there is, is shown"
    assert "there is no dataset " in done.err
    asked = cli("report", runs[0], "--data", "elsewhere", "-o", "r.html")
    assert asked.code == 4 and "there is no dataset elsewhere" in asked.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["-o", "r.pdf"], 2, "r.pdf does not end in .html"),
        (["nowhere", "-o", "r.html"], 4, "there is no run nowhere"),
        (["-o", "r.html"], 4, "there is no run yet"),
    ],
)
def test_wrong_input_is_explained(cli: Cli, arguments: list[str], code: int, says: str) -> None:
    done = cli("report", *arguments)
    assert done.code == code and says in done.err, done
    assert not Path("r.html").exists()
