"""``train``, ``resume`` and ``checkpoint`` as they are typed, with right and wrong input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vidcvae.data import images
from vidcvae.storage import checkpoint
from vidcvae.storage.history import read_history

from .conftest import TINY, Cli

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def run(cli: Cli, tiny_dance: Path) -> Path:
    done = cli("train", tiny_dance, *TINY, "--epochs", 2)
    assert done.code == 0, done.err
    return Path("runs/pose-cvae-001")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_train_then_resume_for_longer(cli: Cli, run: Path) -> None:
    assert {"config.toml", "run.json", "history.jsonl", "checkpoints"} == {p.name for p in run.iterdir()}
    assert json.loads((run / "run.json").read_text())["command"][1] == "train"
    again = cli("resume")
    assert again.code == 0 and "is finished" in again.err and "--more-epochs 10" in again.err
    (event,) = map(json.loads, cli("resume", "--json").out.splitlines())
    assert event == {"kind": "finished", "run": str(run), "epochs": 2, "minutes": event["minutes"]}
    assert 0 < event["minutes"] < 5
    more = cli("resume", run, "--epochs", 3, "--plain")
    assert more.code == 0, more.err
    assert "training.epochs 2 -> 3" in more.err
    assert checkpoint.read(run / "checkpoints/last.safetensors").meta.epoch == 3
    assert "epochs = 3" in (run / "config.toml").read_text()
    back = cli("resume", run, "--epochs", 1)
    assert back.code == 2 and "already finished 3 epochs" in back.err


def test_runs_are_numbered_and_never_overwritten(cli: Cli, run: Path, tiny_dance: Path) -> None:
    before = contents(run)
    assert cli("train", tiny_dance, *TINY, "--epochs", 1).code == 0
    assert Path("runs/pose-cvae-002/config.toml").exists()
    refused = cli("train", tiny_dance, *TINY, "--run", run)
    assert refused.code == 2 and "never overwritten" in refused.err and f"vidcvae resume {run}" in refused.err
    assert contents(run) == before


def test_json_is_one_event_a_line(cli: Cli, tiny_dance: Path) -> None:
    arguments = [a for a in TINY if a != "--plain"]
    done = cli("train", tiny_dance, *arguments, "--epochs", 1, "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "start" and kinds[-1] == "done"
    assert {"step", "epoch", "validation", "checkpoint"} <= set(kinds)
    both = cli("train", tiny_dance, "--json", "--plain")
    assert both.code == 2 and "exclude each other" in both.err


def test_without_a_dataset_the_project_file_decides_else_synthetic_data(cli: Cli, tiny_dance: Path) -> None:
    shown = cli("train", "--dry-run", "--size", "8x16")
    assert shown.code == 0 and "built-in synthetic:dance" in shown.err and 'path = "synthetic:dance"' in shown.out
    Path("vidcvae.toml").write_text(f'[data]\npath = "{tiny_dance}"\n[optimizer]\nlr = 0.5\n')
    shown = cli("train", "--dry-run", "--size", "16x16", "--clip-length", 4, "--lr", 0.25)
    assert str(tiny_dance) in shown.out and "lr = 0.25" in shown.out
    assert not Path("runs").exists(), "a dry run writes nothing"


def test_weights_of_another_run_can_be_the_start(cli: Cli, run: Path, tiny_dance: Path) -> None:
    done = cli("train", tiny_dance, *TINY, "--epochs", 1, "--lr", 1e-12, "--init", run, "--name", "x")
    assert done.code == 2, "an unknown option is refused"
    done = cli("train", tiny_dance, *TINY, "--epochs", 1, "--lr", 1e-12, "--init", run / "checkpoints/last.safetensors")
    assert done.code == 0, done.err
    old = checkpoint.read(run / "checkpoints/last.safetensors").part("model")
    new = checkpoint.read(Path("runs/pose-cvae-002/checkpoints/last.safetensors")).part("model")
    weights = [name for name in old if "running" not in name and "batches" not in name]
    assert all(torch.allclose(old[name], new[name], atol=1e-8) for name in weights)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_goes_on(cli: Cli, tiny_dance: Path, number: int, code: int) -> None:
    """A real process gets a real signal in the middle of its training."""
    command = [sys.executable, "-m", "vidcvae", "train", str(tiny_dance), *map(str, TINY), "--epochs", "5000"]
    command += ["--set", "validation.every=0", "--run", "r"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        history, deadline = Path("r/history.jsonl"), time.monotonic() + 60
        while not (history.exists() and history.stat().st_size > 2000):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "everything is saved" in err and "vidcvae resume r" in err
    stopped = checkpoint.read(Path("r/checkpoints/last.safetensors"))
    assert stopped.meta.step == max(line["step"] for line in read_history(history))
    assert cli("resume", "r", "--epochs", stopped.meta.epoch + 2, "--plain").code == 0
    assert checkpoint.read(Path("r/checkpoints/last.safetensors")).meta.step > stopped.meta.step


def edit(run: Path, *changes: tuple[str, str]) -> str:
    """Change lines of the run's config.toml as a person would; returns the whole text."""
    text = (run / "config.toml").read_text()
    for old, new in changes:
        assert text.count(f"\n{old}\n") == 1
        text = text.replace(f"\n{old}\n", f"\n{new}\n")
    (run / "config.toml").write_text(text)
    return text


def test_what_was_edited_in_a_run_is_named_and_nothing_is_undone(cli: Cli, run: Path) -> None:
    edit(run, ("smoothing = 0.3", "smoothing = 0.5"), ("seed = 0", "seed = 7"), ("epochs = 2", "epochs = 4"))
    before = contents(run)
    done = cli("resume", run, "--plain")
    assert done.code == 2, done
    said = " ".join(done.err.split())
    assert "loss.smoothing 0.3 -> 0.5, training.seed 0 -> 7" in said and "epochs" not in said
    assert f"vidcvae train --config {run}/config.toml --init {run}/checkpoints/last.safetensors" in said
    assert contents(run) == before
    (run / "config.toml").write_text((run / "config.toml").read_text().replace("smoothing = 0.5", "smoothing = fast"))
    assert "not valid TOML" in cli("resume", run).err


def test_what_may_change_in_a_run_is_taken_and_said(cli: Cli, run: Path, tiny_dance: Path) -> None:
    shutil.copytree(tiny_dance, "elsewhere")
    changes = [("epochs = 2", "epochs = 3"), ("keep = 3", "keep = 1"), ("log_every = 1", "log_every = 2")]
    text = edit(run, *changes, (f'path = "{tiny_dance}"', 'path = "elsewhere"'))
    done = cli("resume", run, "--plain")
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    for change in (
        "training.epochs 2 -> 3",
        "checkpoint.keep 3 -> 1",
        f"data.path {tiny_dance} -> {Path('elsewhere').absolute()}",
    ):
        assert change in said
    text = text.replace('path = "elsewhere"', f'path = "{Path("elsewhere").absolute()}"')
    assert (run / "config.toml").read_text() == text
    assert checkpoint.read(run / "checkpoints/last.safetensors").meta.config["training"]["log_every"] == 2
    assert len(checkpoint.steps(run / "checkpoints")) == 1


def test_a_run_that_cannot_be_made_is_refused_before_the_data_are_read(
    cli: Cli, tiny_dance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("taken").mkdir()
    Path("taken/notes.txt").write_text("mine")
    monkeypatch.setattr(images, "open_image", lambda path: pytest.fail(f"{path} was read"))
    refused = cli("train", tiny_dance, *TINY, "--run", "taken")
    assert refused.code == 2 and "taken already holds something" in refused.err and "resume" not in refused.err
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK and access(path, mode))
    refused = cli("train", tiny_dance, *TINY, "--run", "locked/run")
    assert refused.code == 4 and "cannot write locked/run: Permission denied" in refused.err, refused.err
    assert "Choose another place" in refused.err and ".cache" not in refused.err


# --- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere"], 4, "there is no dataset nowhere"),
        (["--preset", "curse"], 2, "Did you mean 'course'?"),
        (["--config", "none.toml"], 2, "there is no config file none.toml"),
        (["--set", "kl.tpye=none"], 2, "unknown key kl.tpye. Did you mean 'type'?"),
        (["--set", "loss.smoothing=-0.1"], 2, "loss.smoothing is -0.1, but it must be at least 0"),
        (["--set", "teacher_forcing.ratio=1.5"], 2, "must be at most 1"),
        (["--set", "nonsense"], 2, "cannot read the setting 'nonsense'"),
        (["--lr", "0"], 2, "optimizer.lr is 0.0, but it must be above 0"),
        (["--epochs", "many"], 2, "--epochs is 'many', but it must be a whole number. For example: --epochs 10"),
        (["--max-minutes", "3m"], 2, "--max-minutes is '3m', but it must be a number. For example: --max-minutes 10"),
        (["--lr=fast"], 2, "--lr is 'fast', but it must be a number. For example: --lr 0.001"),
        (["another"], 2, "'another' is an argument too many: train takes one DATASET. Leave it out: vidcvae train"),
        (["--set", "kl.type=mono"], 2, "one of cyclical, monotonic, none. Did you mean 'monotonic'? What each key"),
        (["--size", "30x64"], 2, "multiples of 8"),
        (["--model", "pose-cave"], 2, "Did you mean 'pose-cvae'?"),
        (["--device", "tpu"], 2, "must be one of auto, cpu, cuda"),
        (["--set", "validation.frames=1"], 2, "validation.frames (1) must exceed training.past (1)"),
        (["--batch-size", "999999", "--clip-length", "4"], 1, "training.batch_size (999999) needs about"),
        (["--clip-length", "5000"], 4, "no sequence has the 5000 frames of a clip"),
    ],
)  # fmt: skip
def test_wrong_settings_are_explained_and_nothing_is_made(
    cli: Cli, tiny_dance: Path, arguments: list[str], code: int, says: str
) -> None:
    dataset = [] if arguments[0] == "nowhere" else [tiny_dance, "--size", "16x16"]
    done = cli("train", *dataset, *arguments)
    assert done.code == code, done
    assert says in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert not Path("runs").exists() or not list(Path("runs").glob("*/config.toml"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_cuda_is_said_before_anything_is_made(cli: Cli, tiny_dance: Path) -> None:
    done = cli("train", tiny_dance, "--size", "16x16", "--device", "cuda")
    assert done.code == 2 and "there is no CUDA device" in done.err and "--device cpu" in done.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: shutil.rmtree(d / "train"), "train"),
        (lambda d: [p.unlink() for p in (d / "train/train_img").iterdir()], "train_img"),
        (lambda d: (d / "train/train_img/7.png").unlink(), "7.png"),
        (lambda d: (d / "train/train_label/7.png").unlink(), "7.png"),
        (lambda d: (d / "val/val_img/3.png").write_bytes((d / "val/val_img/3.png").read_bytes()[:60]), "3.png"),
        (lambda d: (d / "val/val_img/3.png").write_bytes(b"not a picture"), "3.png"),
    ],
)  # fmt: skip
def test_damaged_data_are_named(cli: Cli, tiny_dance: Path, spoil: object, says: str) -> None:
    shutil.copytree(tiny_dance, "data")
    spoil(Path("data"))  # type: ignore[operator]
    done = cli("train", "data", *TINY, "--epochs", 1)
    assert done.code == 4, done
    assert says in done.err and "vidcvae dataset inspect" in done.err
    assert not list(Path("runs").glob("*/config.toml"))


def test_a_gif_is_a_clip_to_train_and_no_dataset_to_inspect(cli: Cli) -> None:
    Path("dance.gif").write_bytes(b"GIF89a")
    done = cli("train", "dance.gif")
    assert done.code == 2 and "dance.gif: the joints in each frame are missing" in done.err
    done = cli("dataset", "inspect", "dance.gif")
    assert done.code == 4 and "dance.gif is a GIF, but a dataset is a folder" in done.err


def test_cut_checkpoints_are_refused_and_the_run_left_alone(cli: Cli, run: Path) -> None:
    last = run / "checkpoints/last.safetensors"
    whole = last.read_bytes()
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(whole[: len(whole) * 9 // 10])
    before = contents(run)
    done = cli("resume", run, "--epochs", 5)
    assert done.code == 4 and "is damaged: it ends before the end of tensor" in done.err and str(last) in done.err
    assert "vidcvae train --config" in done.err
    assert cli("checkpoint", "verify", last).code == 4
    assert contents(run) == before


def test_a_checkpoint_of_another_model_is_refused(cli: Cli, run: Path, tiny_dance: Path) -> None:
    done = cli("train", tiny_dance, *TINY, "--set", "model.latent_channels=8", "--init", run)
    assert done.code == 4, done.err
    assert "another model: gaussian_predictor.0.conv1.weight is [1," in done.err
    assert not Path("runs/pose-cvae-002/checkpoints").exists()


# --- checkpoints ------------------------------------------------------------------------------------


@pytest.mark.golden
def test_a_course_checkpoint_becomes_ours(cli: Cli, shared: Path) -> None:
    done = cli("checkpoint", "import", shared / "golden/course_pose.ckpt", "-o", "x.safetensors")
    assert done.code == 0 and "1,585,620 parameters, epoch 7" in done.out
    assert cli("checkpoint", "verify", "x.safetensors").code == 0
    shown = json.loads(cli("checkpoint", "show", "x.safetensors", "--json").out)
    assert shown["sizes"]["model"]["tensors"] == len(load_file(shared / "golden/pose_weights.safetensors"))
    assert shown["config"]["model"]["decoder_channels"] == 192


def test_show_tells_position_scores_and_sizes(cli: Cli, run: Path) -> None:
    shown = json.loads(cli("checkpoint", "show", run, "--json").out)
    history = read_history(run / "history.jsonl")
    best = max((h for h in history if h["kind"] == "validation"), key=lambda h: h["psnr_zero"])
    assert shown["step"] == best["step"] and shown["scores"]["psnr_zero"] == best["psnr_zero"]
    assert shown["sizes"]["optimizer"]["numbers"] > 2 * 0.9 * shown["sizes"]["model"]["numbers"]
    text = cli("checkpoint", "show", run).out
    assert f"step {best['step']}" in text and "[teacher_forcing]" in text


def test_a_malicious_checkpoint_is_refused(cli: Cli) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, ("pwned",)

    torch.save({"state_dict": Payload()}, "evil.ckpt")
    done = cli("checkpoint", "import", "evil.ckpt", "-o", "x.safetensors")
    assert done.code == 4 and "nothing of it was run" in done.err
    assert not Path("pwned").exists() and not Path("x.safetensors").exists()
