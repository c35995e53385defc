"""``evaluate``, ``generate``, ``export`` and ``plot``: what a person types once a model is trained."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from vidcvae import config as settings
from vidcvae.cli import ui
from vidcvae.data import images
from vidcvae.evaluation.score import score_split
from vidcvae.models.loading import load_model
from vidcvae.output import score_summary, video
from vidcvae.storage import checkpoint, durable
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.course_import import from_course_names
from vidcvae.workflow import scores
from vidcvae.workflow.datasets import open_dataset

from .conftest import FRAME, FRAMES, H, W, poses, run

POSES = "data/test/test_label/0"

# --- evaluate --------------------------------------------------------------------------------------


def test_evaluate_without_a_run_scores_the_newest_on_its_own_data(place: Path, tmp_path: Path) -> None:
    code, out, err = run("evaluate", "--json", "-o", tmp_path / "score.json", "--latent", "prior", "--seed", "5")
    assert code == 0
    score = json.loads(out)
    assert json.loads((tmp_path / "score.json").read_text()) == score
    assert {
        "psnr_mean",
        "psnr_per_frame",
        "ssim_mean",
        "mse_mean",
        "baseline_copy_first_psnr",
        "protocol",
    } <= score.keys()
    loaded = load_model(place / "runs/tiny-001")
    expected = score_split(loaded, open_dataset(place / "data", (H, W)), "val", "prior", seed=5)
    assert score["psnr_per_frame"] == pytest.approx(expected["psnr_per_frame"], abs=1e-4)
    assert score["protocol"]["checkpoint"] == loaded.digest
    assert "using the newest, runs/tiny-001" in err
    assert "which the model was trained on" in err


def test_a_long_run_that_cannot_be_is_refused_before_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores.scoring, "score_split", lambda *_, **__: pytest.fail("it was scored"))
    code, _, err = run("evaluate", "runs/tiny-001", "--long", "3")
    assert code == 2 and "--long 3 is less than two passes" in err and "--long 13 or more" in err


@pytest.mark.parametrize(("past", "frame"), [(1, "first"), (2, "last given")])
def test_a_model_worse_than_a_repeated_frame_is_said_to_be(past: int, frame: str) -> None:
    protocol = {"past": past, "actions": "none"}
    copied = {
        f"baseline_copy_{name}_psnr": 17.0 if (name == "first") == (past == 1) else 1.0
        for name in ("first", "last_past")
    }
    record = {"protocol": protocol, **copied, "active_units": 3, "latent_dimensions": 9, "kl": 1.0}
    assert score_summary.remarks(record | {"psnr_mean": 17.0}) == []
    (text,) = score_summary.remarks(record | {"psnr_mean": 16.5})
    assert text == f"the model (16.50 dB) is worse than repeating the {frame} frame (17.00 dB)"


def test_evaluate_for_a_person(place: Path) -> None:
    code, out, _ = run("evaluate", "runs/tiny-001", "--data", "data", "--frames", "4")
    assert code == 0
    assert "PSNR per frame (dB)" in out
    assert "data val, 1 given -> 3 predicted, z: zero, seed 0; condition: pose" in out


# --- generate --------------------------------------------------------------------------------------


def test_generate_into_a_folder_begins_with_the_given_frame(tmp_path: Path) -> None:
    code, out, _ = run("generate", *poses(), "-o", tmp_path / "out")
    assert code == 0
    assert f"{FRAMES} frames, z: zero" in out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i:06d}.png" for i in range(FRAMES)]
    given = images.read_image(Path("data/test/test_img/0/0.png"), (H, W))
    assert np.array_equal(images.read_image(tmp_path / "out" / "000000.png", (H, W)), given)


@pytest.mark.parametrize("form", ["JPEG", "GIF", "WEBP", "BMP"])
def test_the_first_frame_and_the_poses_may_be_pictures_of_any_usual_form(tmp_path: Path, form: str) -> None:
    suffix = {"JPEG": "jpg"}.get(form, form.lower())
    shutil.copytree("data/test/test_label/0", tmp_path / "poses")
    for path in (tmp_path / "poses").iterdir():
        Image.open(path).save(path.with_suffix(f".{suffix}"), form)
        path.unlink()
    first = tmp_path / f"first.{suffix}"
    Image.open("data/test/test_img/0/0.png").save(first, form)
    given = ("--first-frame", first, "--poses", tmp_path / "poses", "-o", tmp_path / "out")
    assert run("generate", *given)[0] == 0
    expected = np.asarray(Image.open(first).convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(images.read_image(tmp_path / "out/000000.png", (H, W)), expected)


def test_a_picture_of_another_shape_is_not_distorted_in_silence(tmp_path: Path) -> None:
    Image.open("data/test/test_img/0/0.png").resize((60, 80)).save(tmp_path / "upright.png")
    poses = ("--poses", POSES, "-o", tmp_path / "out")
    code, _, err = run("generate", "--first-frame", tmp_path / "upright.png", *poses)
    assert code == 0 and "upright.png is 80x60, and the model's frames are 8x16" in err and "distorted" in err


def test_a_gif_is_large_enough_to_see_and_plays_at_the_speed_of_its_dataset(tmp_path: Path, place: Path) -> None:
    shutil.copytree(place / "data/test", tmp_path / "slow/test")
    durable.write_text(tmp_path / "slow/dataset.toml", 'name = "slow"\nfps = 5.0\n')
    given = ("--first-frame", FRAME, "--poses", tmp_path / "slow/test/test_label/0")
    code, out, _ = run("generate", *given, "-o", tmp_path / "slow.gif")
    assert code == 0 and "7 frames at 5 per second" in out
    with Image.open(tmp_path / "slow.gif") as image:
        assert image.size == (W * 16, H * 16) and image.info["duration"] == 200  # 128 rows of 8; 1 s / 5
    assert run("generate", *given, "-o", tmp_path / "fast.gif", "--fps", "50", "--upscale", "1")[0] == 0
    with Image.open(tmp_path / "fast.gif") as image:
        assert image.size == (W, H) and image.info["duration"] == 20
    assert run("generate", *poses(), "-o", tmp_path / "usual.gif")[0] == 0
    with Image.open(tmp_path / "usual.gif") as image:
        assert image.info["duration"] == 40  # neither the poses nor the training's dataset says


def test_a_gap_in_the_poses_is_refused_or_filled(tmp_path: Path) -> None:
    shutil.copytree("data/test/test_label/0", tmp_path / "poses")
    (tmp_path / "poses/3.png").unlink()
    given = ("--first-frame", "data/test/test_img/0/0.png", "--poses", tmp_path / "poses", "-o", tmp_path / "out")
    code, _, err = run("generate", *given)
    assert code == 4 and f"lacks 1 of the poses 0 to {FRAMES - 1}: 3.png" in err and "--fill" in err
    assert not (tmp_path / "out").exists()
    code, out, _ = run("generate", *given, "--fill")
    assert code == 0 and f"{FRAMES} frames" in out
    shutil.copy(tmp_path / "poses/2.png", tmp_path / "poses/3.png")
    assert run("generate", *given[:-1], tmp_path / "same")[0] == 0
    for name in (f"{t:06d}.png" for t in range(FRAMES)):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()


def test_samples_are_files_of_their_own_or_columns_of_one_picture(tmp_path: Path) -> None:
    assert run("generate", *poses(), "-o", tmp_path / "a", "--samples", "3", "--seed", "1")[0] == 0
    made = [video.read_poses(tmp_path / "a" / f"sample-{k}", (H, W)) for k in range(3)]
    assert np.array_equal(made[0][0], made[1][0])
    assert not np.array_equal(made[0], made[1])
    assert run("generate", *poses(), "-o", tmp_path / "b", "--latent", "prior", "--seed", "1")[0] == 0
    alone = video.read_poses(tmp_path / "b", (H, W)).astype(int)
    assert np.abs(alone - made[0]).max() <= 1  # the first sample is the single video of the same seed
    code, out, _ = run("generate", *poses(), "-o", tmp_path / "c.gif", "--samples", "3", "--side-by-side")
    assert (code, out.count(".gif")) == (0, 1)
    with Image.open(tmp_path / "c.gif") as image:
        assert image.n_frames == FRAMES  # type: ignore[attr-defined]
        assert image.width == 4 * W * 16 + 3 * 6  # pose and three samples, 8 rows made 128, three gaps
    assert run("generate", *poses(), "-o", tmp_path / "d.gif", "--samples", "2")[0] == 0
    assert {p.name for p in tmp_path.glob("d*")} == {"d-0.gif", "d-1.gif"}


def test_any_number_ofposes(tmp_path: Path) -> None:
    assert run("generate", *poses("1"), "-o", tmp_path / "out")[0] == 0
    assert len(list((tmp_path / "out").iterdir())) == FRAMES + 1


@pytest.mark.golden
@pytest.mark.parametrize(
    ("options", "tensor"),
    [
        (("--latents", "LATENTS"), "frames_running_stats"),
        (("--latents", "LATENTS", "--batch-stats"), "frames_batch_stats"),
        (("--latent", "zero"), "frames_zero_z_running_stats"),
    ],
)
def test_generate_makes_the_courses_frames(shared: Path, tmp_path: Path, options: tuple[str, ...], tensor: str) -> None:
    golden = load_file(shared / "golden" / "pose_rollout.safetensors")
    names = from_course_names(load_file(shared / "golden" / "pose_weights.safetensors"))
    meta = CheckpointMeta(config=settings.to_table(settings.Config()))
    checkpoint.save(tmp_path / "course.safetensors", {f"model.{name}": t for name, t in names.items()}, meta)
    durable.write_bytes(tmp_path / "first.png", images.encode_png(video.to_bytes(golden["first_frame"])))
    for index, pose in enumerate(golden["poses"][:6]):
        durable.write_bytes(tmp_path / "poses" / f"{index}.png", images.encode_png(video.to_bytes(pose)))
    save_file({"eps": golden["eps"][:5].contiguous()}, tmp_path / "eps.safetensors")
    arguments = [str(tmp_path / "eps.safetensors") if o == "LATENTS" else o for o in options]
    paths = ("--first-frame", tmp_path / "first.png", "--poses", tmp_path / "poses", "-o", tmp_path / "out")
    assert run("generate", tmp_path / "course.safetensors", *paths, *arguments)[0] == 0
    made = video.read_poses(tmp_path / "out", (32, 64)).astype(int)
    assert np.abs(made - video.to_bytes(golden[tensor][:6]).astype(int)).max() <= 1


# --- export ----------------------------------------------------------------------------------------


def test_export_is_the_kaggle_file_of_all_sequences_in_order(tmp_path: Path) -> None:
    code, out, _ = run("export", "--data", "data", "-o", tmp_path / "s.csv", "--gifs", tmp_path / "gifs")
    assert code == 0
    assert f"{3 * FRAMES + 1} rows of 3 sequences (0, 1, 10)" in out
    rows = []
    for name in ("0", "1", "10"):  # one has a pose more than the others
        assert run("generate", *poses(name), "-o", tmp_path / name)[0] == 0
        rows += [frame.flatten() for frame in video.read_poses(tmp_path / name, (H, W))]
        with Image.open(tmp_path / "gifs" / f"{name}.gif") as image:
            assert image.n_frames == FRAMES + (name == "1")  # type: ignore[attr-defined]
    table = pd.read_csv(tmp_path / "s.csv")
    assert list(table.columns) == ["id", *map(str, range(3 * H * W))]
    assert list(table["id"]) == list(range(3 * FRAMES + 1))
    assert np.abs(table.to_numpy()[:, 1:] - np.array(rows).astype(int)).max() <= 1
    assert (tmp_path / "s.csv").read_bytes() == table.to_csv(header=True, index=False).encode()


# --- plot ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["loss", "psnr", "schedule", "lr", "kl"])
def test_every_plot_draws_the_newest_run(tmp_path: Path, kind: str) -> None:
    code, out, err = run("plot", kind, "-o", tmp_path / f"{kind}.png")
    assert (code, out.strip()) == (0, str(tmp_path / f"{kind}.png"))
    assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert "using the newest, runs/tiny-001" in err


def test_a_plot_in_the_terminal_needs_no_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, _ = run("plot", "loss", "runs/tiny-001", "--terminal")
    assert code == 0
    assert "* total   o reconstruction" in out
    assert not Path("loss.png").exists()


def test_the_schedule_of_a_file_or_preset_warns_of_a_beta_that_never_arrives(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('[kl]\ntype = "cyclical"\nratio = 1.0\n[training]\nepochs = 70\n')
    code, out, err = run("plot", "schedule", "--config", tmp_path / "x.toml", "--terminal")
    assert code == 0
    assert "beta (KL weight)" in out
    assert "peaks at 0.94" in err  # 17 of 18 epochs up, from 0.01
    assert run("plot", "schedule", "--preset", "course", "-o", tmp_path / "s.svg")[0] == 0


def test_a_checkpoint_stands_for_its_run(place: Path, tmp_path: Path) -> None:
    best = place / "runs/tiny-001/checkpoints/best.safetensors"
    assert run("plot", "lr", best, "-o", tmp_path / "a.png")[0] == 0
    (tmp_path / "lone.safetensors").write_bytes(best.read_bytes())
    code, _, err = run("plot", "lr", tmp_path / "lone.safetensors")
    assert code == 4
    assert "lone.safetensors lies outside its run" in err


@pytest.mark.parametrize(
    ("options", "input_file"),
    [
        (("--first-frame", "f.png", "--poses", POSES, "--side-by-side", "-o", "f.gif"), "f.png"),
        (("--first-frame", FRAME, "--poses", "p.gif", "-o", "p.gif"), "p.gif"),
        (
            ("--first-frame", "x-poses.png", "--poses", POSES, "--fit-poses", "-o", "x.gif"),
            "x-poses.png",
        ),
    ],
)
def test_generate_replaces_none_of_its_inputs(options: tuple[str, ...], input_file: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path / word) if word in {input_file, "f.gif", "x.gif"} else word for word in options]
    shutil.copy(FRAME, tmp_path / input_file)
    before = (tmp_path / input_file).read_bytes()
    code, _, err = run("generate", *arguments)
    assert code == 2 and f"{tmp_path / input_file} is an input of this command, and would be replaced." in err
    assert (tmp_path / input_file).read_bytes() == before


def test_a_name_with_brackets_is_no_markup_for_the_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    console = ui._Console(force_terminal=True, width=100)
    monkeypatch.setattr(ui, "err", console)
    with console.capture() as shown, ui.progress("runs of runs/a[/b] x[red]") as advance:
        advance(1, 2)
        time.sleep(0.2)
    assert "runs/a[/b] x[red]" in shown.get()
