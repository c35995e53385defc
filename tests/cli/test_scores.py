"""``compare``, ``plot drift``, ``plot latents`` and the whole of ``evaluate`` on tiny real runs."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.cli.conftest import Cli
from vidcvae import config as settings
from vidcvae.__main__ import main
from vidcvae.workflow import comparison, opening, scores, trials

ANCHOR = (
    *(
        "--preset",
        "anchor-cpu",
        "--set",
        "model.scene=false",
        "--size",
        "16x16",
        "--clip-length",
        4,
        "--batch-size",
        4,
        "--device",
        "cpu",
        "--plain",
    ),
    *("--set", "model.channels=8", "--set", "model.latent_channels=2", "--set", "validation.every=0"),
    *("--epochs", 1, "--set", "training.steps_per_epoch=3"),
)


class Distance(torch.nn.Module):
    """(B, 3, H, W) twice -> B, as LPIPS."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().mean(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_dance: Path) -> Path:
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, seed, lr in (("a-0", 0, 1e-3), ("a-1", 1, 1e-3), ("b-0", 0, 1e-4)):
            options = (*ANCHOR, "--seed", seed, "--lr", lr, "--run", f"runs/{name}")
            patch.setattr(sys, "argv", ["vidcvae", "train", str(tiny_dance), *map(str, options)])
            with contextlib.suppress(SystemExit):
                main()
            assert Path(f"runs/{name}/checkpoints/last.safetensors").exists()
    return place


@pytest.fixture
def runs(workplace: Path, trained: Path) -> Path:
    """a-0, a-1 differ by their seed; b-0 has another learning rate. None has a score yet."""
    shutil.copytree(trained / "runs", workplace / "runs")
    return workplace


def _scores(run: str, name: str = "val-zero") -> dict[str, Any]:
    return json.loads(Path(f"runs/{run}/scores/{name}.json").read_text())  # type: ignore[no-any-return]


def test_records_lie_with_their_runs_and_compare_in_one_table(runs: Path, cli: Cli) -> None:
    missing = cli("compare", "a-0", "runs/b-0")
    assert missing.code == 4
    assert "a-0, runs/b-0 have no score record val-zero" in missing.err
    assert "vidcvae evaluate a-0; vidcvae evaluate runs/b-0" in missing.err
    done = cli("compare", "a-0", "a-1", "b-0", "--evaluate", "--json", "--csv", "t.csv")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["rows"]
    psnr = {name: _scores(name)["psnr_mean"] for name in ("a-0", "a-1", "b-0")}
    seeds = next(row for row in rows if len(row["names"]) == 2)
    assert seeds["names"] == ["a-0", "a-1"]
    assert seeds["differing"] == {"optimizer.lr": 1e-3}
    assert seeds["values"]["psnr"] == pytest.approx((psnr["a-0"] + psnr["a-1"]) / 2)
    assert seeds["spread"]["psnr"] == pytest.approx(abs(psnr["a-0"] - psnr["a-1"]) / 2**0.5)
    assert [row["values"]["psnr"] for row in rows] == sorted((r["values"]["psnr"] for r in rows), reverse=True)
    assert seeds["values"]["parameters"] == _scores("a-0")["model"]["parameters"] > 1000
    with Path("t.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {row["runs"]: float(row["psnr"]) for row in table} == {
        " ".join(row["names"]): pytest.approx(row["values"]["psnr"]) for row in rows
    }
    text = cli("compare", "a-0", "a-1", "b-0", "--markdown").out.splitlines()
    assert text[0].startswith("| run | what differs | PSNR (dB) | SSIM | KL (nats) | active units | parameters |")
    assert len(text) == 4 and all(line.count("|") == text[0].count("|") for line in text)
    shown = cli("compare", "a-0", "b-0", "--sort", "minutes").out
    assert "optimizer.lr = 0.0001" in shown and "PSNR (dB)" in shown


def test_scores_of_unlike_protocols_are_refused(runs: Path, cli: Cli) -> None:
    assert cli("evaluate", "a-0").code == 0
    assert cli("evaluate", "b-0", "--future", 4, "--latent", "prior", "-o", "b.json").code == 0
    assert not Path("runs/b-0/scores").exists()
    refused = cli("compare", "a-0", "b.json")
    assert refused.code == 2
    for words in ('latent is "zero" in a-0 and "prior" in b.json', "future is 7 in a-0 and 4 in b.json"):
        assert words in refused.err
    assert "vidcvae evaluate RUN --latent zero --future 7" in refused.err
    assert "data_digest" not in refused.err  # the same data, though fewer frames of them
    assert cli("compare", "a-0", "b.json", "--anyway").code == 0
    command = refused.err.partition("vidcvae evaluate RUN ")[2].partition(".")[0].split()
    assert cli("evaluate", "b-0", *command).code == 0
    assert cli("compare", "a-0", "runs/b-0/scores/val-zero-1to7.json").code == 0


def test_a_record_of_an_older_checkpoint_is_told_and_made_anew(runs: Path, cli: Cli) -> None:
    assert cli("evaluate", "a-0").code == 0
    record = _scores("a-0")
    record["protocol"]["checkpoint"] = "older"
    Path("runs/a-0/scores/val-zero.json").write_text(json.dumps(record))
    assert "is of an older checkpoint" in cli("compare", "a-0").err
    assert cli("compare", "a-0", "--evaluate").err.count("older") == 0
    assert _scores("a-0")["protocol"]["checkpoint"] != "older"


def test_sweep_and_ablate_take_the_ordinary_score_whatever_else_was_scored(runs: Path, cli: Cli) -> None:
    for options in (("--future", 2), ("--future", 2, "--latent", "all"), ("--split", "train"), ("--weights", "raw")):
        assert cli("evaluate", "a-0", *options).code == 0
    assert not Path("runs/a-0/scores/val-zero.json").exists()
    trial = trials.Trial(Path("runs/a-0"), trials.Variant("a"), (), settings.resolve())
    for which in ("best", "last"):
        ((_, record),) = trials.score([trial], which)
        told = record["protocol"]
        assert (told["future"], told["split"], told["weights"]) == (7, "val", "ema")
        assert record["psnr_mean"] == _scores("a-0")["psnr_mean"] and record["selection"] == {"chosen": "last"}


def test_another_dataset_of_the_same_name_is_not_the_ordinary_score(runs: Path, cli: Cli, tiny_dance: Path) -> None:
    shutil.copytree(tiny_dance, "b" / Path(tiny_dance.name))
    (image,) = Path("b").rglob("val_img/1.png")
    image.write_bytes(image.with_name("2.png").read_bytes())
    assert cli("evaluate", "a-0").code == 0
    before = _scores("a-0")
    other = cli("evaluate", "a-0", "--data", f"b/{tiny_dance.name}")
    assert other.code == 0 and "val-zero-dance-" in other.out
    assert _scores("a-0") == before
    assert f"{before['psnr_mean']:.2f} dB, z = 0; checkpoint: last" in cli("runs", "show", "a-0").out
    shown = json.loads(cli("compare", "a-0", "--json").out)
    assert shown["rows"][0]["values"]["psnr"] == before["psnr_mean"]


def test_a_best_that_is_damaged_is_told_and_its_record_compared(runs: Path, cli: Cli) -> None:
    assert cli("evaluate", "a-0").code == 0
    file = Path("runs/a-0/checkpoints/last.safetensors")
    whole = file.read_bytes()
    file.unlink()  # it may have other names
    damage, foreign = "last.safetensors is damaged", "last.safetensors is not a vidcvae checkpoint"
    contents = {whole[:100]: damage, b"": damage, b"\xff" * 100: foreign, whole[:8] + b"x" + whole[9:]: damage}
    for content, problem in contents.items():
        file.write_bytes(content)
        done = cli("compare", "a-0")
        assert done.code == 0 and problem in done.err, done.err
        again = cli("compare", "a-0", "--evaluate")
        assert again.code == 4 and problem in again.err and "bug in vidcvae" not in again.err
    shutil.rmtree("runs/a-0/scores")
    none = cli("compare", "a-0")
    assert none.code == 4 and "last.safetensors is damaged" in none.err, none.err


def test_compare_says_where_a_chosen_checkpoint_stands_beside_a_last_one(runs: Path, cli: Cli) -> None:
    for name in ("a-0", "b-0"):
        assert cli("evaluate", name).code == 0
    assert "flatters" not in cli("compare", "a-0", "b-0").err
    record = _scores("b-0")
    chosen = {"chosen": "best", "of": 70, "metric": "psnr_zero", "split": "val", "on_scored_data": True}
    Path("b.json").write_text(json.dumps(record | {"selection": chosen}))
    done = cli("compare", "a-0", "b.json", "--json", "--csv", "t.csv")
    assert done.code == 0 and "b.json: the checkpoint was chosen by its score on these very data" in done.err
    assert "beside a-0 (last)" in done.err
    told = json.loads(done.out)
    assert {row["selection"] for row in told["rows"]} == {"last", "best of 70 validations by psnr_zero on val"}
    assert len(told["warnings"]) == 2 and "flatters" in told["warnings"][0]
    assert told["warnings"][1].startswith("a-0, b.json do not beat repeating the training frame of the nearest pose")
    assert "best of 70 validations by psnr_zero on val" in Path("t.csv").read_text()
    assert "best of 70 validations by psnr_zero on val |" in cli("compare", "a-0", "b.json", "--markdown").out


def test_what_a_model_only_remembers_is_told(runs: Path, cli: Cli, tiny_dance: Path) -> None:
    """Three steps do not beat the training frames; where other data are scored, those of the training are searched."""
    text = cli("evaluate", "a-0").out
    assert "training frame of the nearest pose" in text and "of moving pixels" in text
    remembered = (
        "does not beat repeating the training frame of the nearest pose: it does no better than memorising would"
    )
    assert f"frames of train of {_scores('a-0')['nearest_pose']['dataset']}: the model {remembered}" in " ".join(
        text.split()
    )
    assert "its sequence is under 8 of 255" in " ".join(text.split())
    done = cli("compare", "a-0", "--json")
    assert json.loads(done.out)["warnings"] == [f"a-0 {remembered}."] and f"a-0 {remembered}" in done.err
    page = cli("report", "a-0", "--no-videos", "-o", "r.html")
    assert page.code == 0 and f"The model {remembered}. Higher is better." in Path("r.html").read_text("utf-8")
    shutil.copytree(tiny_dance, "b")
    shutil.rmtree("b/train")
    Path("b/dataset.toml").unlink()  # it tells of train
    other = json.loads(cli("evaluate", "a-0", "--data", "b", "--json").out)
    for key in ("nearest_pose", "baseline_nearest_pose_psnr"):
        assert other[key] == _scores("a-0")[key]


def test_training_data_that_are_gone_cost_the_baseline_and_nothing_else(runs: Path, cli: Cli, tiny_dance: Path) -> None:
    for name in ("there", "b"):
        shutil.copytree(tiny_dance, name)
    assert cli("train", "there", *ANCHOR, "--run", "runs/new").code == 0
    shutil.rmtree("there")
    (image,) = Path("b").rglob("val_img/1.png")
    image.write_bytes(image.with_name("2.png").read_bytes())
    done = cli("evaluate", "new", "--data", "b")
    assert done.code == 0, done.err
    assert "nearest pose: none was searched: there is no dataset" in done.out
    assert "training frame of the nearest pose" not in done.out
    (kept,) = Path("runs/new/scores").iterdir()
    record = json.loads(kept.read_text())
    assert (
        record["baseline_nearest_pose_psnr"] is None and "runs/new was trained on" in record["nearest_pose"]["reason"]
    )


def test_lpips_stands_beside_psnr_and_ssim(runs: Path, cli: Cli) -> None:
    torch.jit.script(Distance()).save("lpips.pt")  # type: ignore[no-untyped-call]
    lines = cli("evaluate", "a-0", "--lpips-weights", "lpips.pt").out.splitlines()
    record = _scores("a-0", "val-zero-perceptual")
    names = [" ".join(line.split()[:-1]) for line in lines[:8]]
    assert names[1:4] == ["PSNR per frame (dB)", "of still pixels", "of moving pixels"]
    assert names.index("LPIPS") == names.index("SSIM") + 1
    assert f"{record['perceptual']['lpips_mean']:.4g}" == lines[names.index("LPIPS")].split()[-1]


def test_evaluate_tells_latents_bounds_and_the_long_run(runs: Path, cli: Cli) -> None:
    done = cli("evaluate", "a-0", "--latent", "all", "--elbo", "--importance-samples", 3, "--long", 40, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert _scores("a-0", "val-all-bounds-long") == record
    assert set(record["by_latent"]) == {"prior-mean", "prior", "posterior"}
    assert record["by_latent"]["prior-mean"]["psnr_mean"] == record["psnr_mean"]
    bounds = record["bounds"]
    assert bounds["importance_weighted_bits_per_dimension"] <= bounds["elbo_bits_per_dimension"] < 8.5
    assert len(record["long"]["passes"]) == 5  # 39 frames over passes of 7
    assert sum(record["latents"]["kl_per_channel"]) == pytest.approx(record["kl"])
    shown = cli("evaluate", "a-0", "--latent", "all", "--elbo").out
    assert "z: posterior" in shown and "bits per dimension" in shown and "units active" in shown


def test_drift_and_latents_are_drawn(runs: Path, cli: Cli) -> None:
    done = cli("plot", "drift", "a-0", "b-0", "-o", "d.png", "--every", 2)
    assert done.code == 0, done.err
    assert "age test, frames 7-7" in done.out
    with Image.open("d.png") as image:
        assert image.width > 500
    told = json.loads(cli("plot", "drift", "a-0", "--json", "--age-test").out)["a-0"]
    assert told["lost"] == pytest.approx(told["from_restart"] - told["from_start"])
    assert cli("plot", "drift", "a-0", "--terminal").out.count("gap (dB)") == 1
    assert cli("plot", "latents", "a-0", "-o", "l.png").code == 0
    with Image.open("l-samples.png") as image:
        assert image.width > 8 * 128  # truth, six samples, their spread; 16 pixels made 128
    kept = Path("runs/a-0/scores/val-all.json")
    before = kept.stat().st_mtime_ns
    assert cli("plot", "latents", "a-0", "-o", "l.svg").code == 0  # the record is used again
    assert kept.stat().st_mtime_ns == before


def test_a_library_user_has_the_scores_of_the_commands_without_a_word(
    runs: Path, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded, data = opening.load_with_data(Path("runs/a-0"))
    assert scores.kept(loaded, data) == []
    record = scores.record_of(loaded, data, "scoring a-0")
    scores.keep(opening.load(Path("runs/a-1")), scores.score(opening.load(Path("runs/a-1")), data))
    named = comparison.gather([Path("a-0"), Path("b-0")], fill=True)
    assert capsys.readouterr() == ("", "")
    assert named[0] == ("a-0", _scores("a-0")) and record["psnr_mean"] == _scores("a-0")["psnr_mean"]
    assert cli("compare", "a-0", "a-1", "b-0", "--json").code == 0  # all three have their score


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("compare", "nowhere"), 4, "there is no run nowhere"),
        (("compare", "x.json"), 4, "there is no score record x.json"),
        (("compare", "a-0", "--sort", "psrn"), 2, "Did you mean 'psnr'"),
        (("compare", "a-0", "--json", "--markdown"), 2, "exclude each other"),
        (("compare", "a-0", "--record", "val-zero-x8", "--evaluate"), 2, "is not SPLIT-LATENT"),
        (("evaluate", "a-0", "--lpips-weights", "none.pt"), 2, "there is no file none.pt"),
        (("evaluate", "a-0", "--long", 9), 2, "less than two passes"),
        (("evaluate", "a-0", "--latent", "al"), 2, "Did you mean 'all'"),
        (("plot", "drift", "a-0", "-o", "a.jpg"), 2, "a.jpg is not a PNG, SVG or PDF"),
        (("plot", "drift", "a-0", "--split", "test"), 4, "nothing is left to score"),
        (("plot", "latents", "a-0", "--frame", 99), 2, "frame 99 of"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    trained: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, arguments: tuple[object, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(trained)
    refused = cli(*arguments)
    assert (refused.code, words in refused.err) == (code, True), refused.err
