"""Robot pushing from the command line: ``evaluate``, ``generate`` and ``dataset import``, right and wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import Cli
from vidcvae import config as settings
from vidcvae.data import images, packed, trajectories
from vidcvae.data.clips import condition_rows
from vidcvae.models import build_model
from vidcvae.models.rollout import rollout
from vidcvae.output import pictures, video
from vidcvae.scenes import pushing
from vidcvae.storage import checkpoint
from vidcvae.storage.checkpoint import CheckpointMeta
from vidcvae.storage.run import create_run

FRAMES = 6
CLIP = "push/test/traj_0_to_0/0"


def _save_model(path: Path, **model: Any) -> None:
    table = {"name": "svg-fp", "backbone": "dcgan64", "frame_dim": 4, "latent_dim": 2, "hidden_dim": 8, **model}
    data = {"size": [64, 64], "path": "push"}
    config = settings.resolve({"model": table, "data": data, "training": {"past": 2}})
    torch.manual_seed(0)
    weights = {  # large enough for conditions and noise to show
        f"model.{name}": tensor if "stages" in name or not tensor.is_floating_point() else tensor * 20
        for name, tensor in build_model(config).state_dict().items()
    }
    checkpoint.save(path, weights, CheckpointMeta(config=settings.to_table(config), step=8, epoch=2))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips of 6 frames (``push``), two models, and the first frames of a clip (``given``)."""
    place = tmp_path_factory.mktemp("place")
    pushing.write_folder(pushing.push(2, 3, 1, FRAMES, 0), place / "push")
    _save_model(place / "lp.safetensors", name="svg-lp")
    _save_model(place / "actions.safetensors", conditions="actions")
    _save_model(place / "free.safetensors", conditions="none")
    (place / "given").mkdir()
    for number in (0, 1):
        shutil.copy(place / CLIP / f"{number}.png", place / "given")
    for name in trajectories.TRACK_FILES.values():
        shutil.copy(place / CLIP / name, place)
    shutil.copytree(place / "given", place / "start")
    for name in trajectories.TRACK_FILES.values():
        shutil.copy(place / CLIP / name, place / "start")
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


# --- evaluate --------------------------------------------------------------------------------------


def test_evaluate_prints_both_psnrs_the_samples_and_whether_it_listens(cli: Cli) -> None:
    code, out, err = cli("evaluate", "lp.safetensors", "--past", 2, "--future", 3, "--samples", 2)
    assert code == 0, err
    for words in ("PSNR per frame (dB)", "PSNR per channel (dB)", "mean of 2", "best of 2", "posterior", "last given"):
        assert words in out
    assert "with those of other clips it loses" in out
    assert "validate, 2 given -> 3 predicted, z: prior, 2 samples, seed 0" in out
    assert "condition: actions+positions (source), actions own" in out


def test_compare_finds_the_score_of_a_pushing_run(cli: Cli, place: Path) -> None:
    """Its data call the split validate, and so does the file of its record."""
    run = create_run("push", Path("runs/push"))
    _save_model(run.checkpoints / checkpoint.LAST, name="svg-lp")
    meta, _ = checkpoint.read_header(run.checkpoints / checkpoint.LAST)
    run.config.write_text(settings.to_toml(settings.resolve(meta.config)))
    assert "validate-zero.json" in cli("evaluate", "runs/push").out
    (record,) = (run.path / "scores").iterdir()
    before = record.stat().st_mtime_ns
    for options in ((), ("--evaluate",), ("--record", "val-zero"), ("--record", "validate-zero")):
        done = cli("compare", "runs/push", "--json", *options)
        assert done.code == 0, done.err
        assert json.loads(done.out)["rows"][0]["values"]["psnr"] == json.loads(record.read_text())["psnr_mean"]
    assert record.stat().st_mtime_ns == before and list((run.path / "scores").iterdir()) == [record]
    assert cli("evaluate", "runs/push", "--latent", "prior").code == 0
    assert cli("compare", "runs/push", "--record", "val-prior").code == 0


def test_shuffled_actions_are_a_score_of_their_own(cli: Cli, tmp_path: Path) -> None:
    records = []
    for option in ((), ("--shuffle-actions",)):
        result = cli("evaluate", "lp.safetensors", "--future", 2, "--json", "-o", tmp_path / "score.json", *option)
        assert result.code == 0, result.err
        records.append(json.loads(result.out))
        assert json.loads((tmp_path / "score.json").read_text()) == records[-1]
    own, shuffled = records
    assert own["other_actions"]["psnr_mean"] == pytest.approx(shuffled["psnr_mean"], abs=1e-5)
    assert own["psnr_mean"] != shuffled["psnr_mean"]
    assert (own["protocol"]["actions"], shuffled["protocol"]["actions"]) == ("own", "of other clips")


def test_a_protocol_of_one_given_frame_needs_no_other_command(cli: Cli) -> None:
    record = json.loads(cli("evaluate", "free.safetensors", "--past", 1, "--future", 5, "--split", "val", "--json").out)
    assert (record["protocol"]["past"], record["protocol"]["future"]) == (1, 5)
    assert "listening_gap_psnr" not in record and len(record["psnr_per_channel_per_frame"]) == 5


# --- generate --------------------------------------------------------------------------------------


def _expected() -> np.ndarray:
    """The frames that the conditioned model makes of the test clip with z = 0."""
    saved = checkpoint.read(Path("lp.safetensors"))
    model = build_model(settings.resolve(saved.meta.config)).eval()
    model.load_state_dict(saved.part("model"))
    (clip,) = trajectories.stream(Path("push"), (64, 64)).collect().split("test")
    rows = condition_rows(clip, 0, FRAMES, "actions+positions", "source")
    given = torch.from_numpy(clip.frames[None, :2].copy())
    made = rollout(model, given, torch.from_numpy(np.asarray(rows))[None], length=FRAMES)
    return np.concatenate([clip.frames[:2], *map(video.to_bytes, made)])


@pytest.mark.parametrize(
    "form",
    [
        ("--trajectory", CLIP),
        ("--trajectory", "start"),  # the two given frames and the tables of all
        ("--past-frames", "given", "--actions", "actions.csv", "--positions", "endeffector_positions.csv"),
    ],
)
def test_every_form_makes_the_models_frames(cli: Cli, tmp_path: Path, form: tuple[str, ...]) -> None:
    code, out, err = cli("generate", "lp.safetensors", *form, "-o", tmp_path / "out")
    assert code == 0, err
    assert f"{FRAMES} frames, z: zero" in out
    made = np.stack([images.read_image(tmp_path / "out" / f"{t:06d}.png", (64, 64)) for t in range(FRAMES)])
    assert np.abs(made.astype(int) - _expected()).max() <= 1


def test_samples_come_beside_the_truth_as_a_video_and_as_a_picture_of_all_time_steps(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("generate", "lp.safetensors", "--trajectory", CLIP, "--samples", 2, "-o", tmp_path / "a.gif")
    assert code == 0, err
    assert "truth, posterior, best, sample 0, sample 1" in out
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.width) == (FRAMES, 5 * 128 + 4 * pictures.GAP)  # type: ignore[attr-defined]
    with Image.open(tmp_path / "a.png") as strip:
        pixels = np.asarray(strip.convert("RGB")).astype(int)
    assert pixels.shape[:2] == (pictures.BAR + 5 * (64 + pictures.GAP), pictures.MARGIN + FRAMES * (64 + pictures.GAP))

    def cell(row: int, column: int) -> np.ndarray:
        top = pictures.BAR + pictures.GAP + row * (64 + pictures.GAP)
        left = pictures.MARGIN + pictures.GAP + column * (64 + pictures.GAP)
        return pixels[top : top + 64, left : left + 64]

    truth = images.read_image(Path(CLIP) / "5.png", (64, 64)).transpose(1, 2, 0)
    assert np.array_equal(cell(0, 5), truth)
    errors = [np.mean([-10 * np.log10(((cell(r, t) - cell(0, t)) ** 2).mean()) for t in range(2, 6)]) for r in (3, 4)]
    best = 3 + int(np.argmax(errors))
    assert errors[0] != errors[1]
    assert all(np.array_equal(cell(2, t), cell(best, t)) for t in range(FRAMES))
    code, out, _ = cli("generate", "lp.safetensors", "--trajectory", "start", "--samples", 2, "-o", tmp_path / "b.gif")
    assert (code, "truth" in out, "sample 0, sample 1" in out) == (0, False, True)


def test_a_model_without_conditions_is_told_how_many_frames(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("generate", "free.safetensors", "--past-frames", "given", "--future", 9, "-o", tmp_path / "o")
    assert (code, "11 frames" in out) == (0, True), err
    code, out, err = cli("generate", "free.safetensors", "--trajectory", CLIP, "--future", 2, "-o", tmp_path / "p")
    assert (code, "4 frames" in out) == (0, True), err


TABLES = ("--actions", "actions.csv", "--positions", "endeffector_positions.csv")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("generate", "lp.safetensors"), 2, "conditioned on actions and positions, and --past-frames is missing"),
        (("generate", "lp.safetensors", "--past-frames", "given"), 2, "--actions is missing"),
        (("generate", "lp.safetensors", "--past-frames", "given", *TABLES[:2]), 2, "--positions is missing"),
        (("generate", "actions.safetensors", "--past-frames", "given", *TABLES), 2, "does not take --positions"),
        (("generate", "free.safetensors", "--past-frames", "given", *TABLES), 2, "without conditions, which does not"),
        (("generate", "free.safetensors", "--past-frames", "given"), 2, "how many frames to make"),
        (("generate", "lp.safetensors", "--trajectory", CLIP, *TABLES), 2, "--actions beside --trajectory"),
        (("generate", "lp.safetensors", "--first-frame", "a.png", "--poses", "b"), 2, "does not take --first-frame"),
        (("generate", "lp.safetensors", "--trajectory", CLIP, "--future", "9"), 4, "9 more need 11 lines"),
        (("generate", "lp.safetensors", "--trajectory", "given"), 4, "there is no file given/actions.csv"),
        (("generate", "lp.safetensors", "--trajectory", "nowhere"), 4, "nowhere cannot be read"),
        (("generate", "lp.safetensors", "--past-frames", CLIP, *TABLES), 4, "no frame is left to make"),
        (("generate", "lp.safetensors", "--trajectory", CLIP, "--batch-stats"), 2, "--batch-stats is for the course"),
        (("generate", "free.safetensors", "--past-frames", "one", "--future", "3"), 4, "one has no frames"),
        (("evaluate", "lp.safetensors", "--future", "28"), 2, "cannot score 30 frames of sequence traj_0_to_2/0"),
        (("evaluate", "lp.safetensors", "--past", "6"), 4, "nothing is left to score"),
        (("evaluate", "lp.safetensors", "--future", "2", "--frames", "4"), 2, "--frames and --future both set"),
        (("evaluate", "lp.safetensors", "--samples", "2", "--latent", "zero"), 2, "2 samples are draws"),
        (("evaluate", "lp.safetensors", "--split", "test", "--shuffle-actions"), 2, "no other clip has the 6 frames"),
        (("evaluate", "free.safetensors", "--shuffle-actions"), 2, "not conditioned on actions"),
        (("evaluate", "lp.safetensors", "--data", "start/.."), 4, "is not in any known layout"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    cli: Cli, place: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (place / "one").mkdir(exist_ok=True)
    target = ("-o", tmp_path / "out") if arguments[0] == "generate" else ()
    result = cli(*arguments, *target)
    assert (result.code, words in result.err) == (code, True), result.err
    assert "Traceback" not in result.err and not list(tmp_path.iterdir())


# --- dataset import --------------------------------------------------------------------------------


@pytest.fixture
def records(shared: Path, tmp_path: Path) -> Path:
    root = tmp_path / "bair"
    shutil.copytree(shared / "data" / "bair-tfrecord" / "softmotion30_44k", root, copy_function=shutil.copyfile)
    for folder in (root, *root.rglob("*")):
        folder.chmod(0o755)
    return root


def test_import_bair_packs_a_camera_and_evaluate_reads_it(cli: Cli, records: Path, tmp_path: Path) -> None:
    code, out, _ = cli("dataset", "import", "bair", records, tmp_path / "out", "--camera", "aux1")
    assert (code, "train 120 frames in 4 sequences; test 60 frames in 2 sequences" in out) == (0, True)
    assert packed.open_packed(tmp_path / "out").name == "bair-aux1"
    result = cli("evaluate", "lp.safetensors", "--data", tmp_path / "out", "--split", "test", "--future", 2)
    assert (result.code, "bair-aux1 test, 2 given -> 2 predicted" in result.out) == (0, True)


@pytest.mark.reliability
def test_what_an_import_loses_is_named_and_the_rest_is_there(cli: Cli, records: Path, tmp_path: Path) -> None:
    damaged = records / "train" / "traj_0_to_1.tfrecords"
    content = bytearray(damaged.read_bytes())
    content[5000] ^= 1
    damaged.write_bytes(content)
    code, out, err = cli("dataset", "import", "bair", records, tmp_path / "out")
    assert (code, "train 90 frames in 3 sequences" in out) == (4, True)
    assert f"warning: {damaged}, byte 0: the checksum of the record's data is wrong" in err
    assert "1 part of" in err and "everything else is in" in err
    assert len(packed.open_packed(tmp_path / "out", verify=True).split("train")) == 3


@pytest.mark.reliability
def test_unimported_and_half_imported_data_say_what_to_type(cli: Cli, records: Path, tmp_path: Path) -> None:
    for path in (records, records / "train", records / "train" / "traj_0_to_1.tfrecords"):
        code, _, err = cli("dataset", "inspect", path)
        assert (code, f"vidcvae dataset import bair {records} OUT" in err) == (4, True)
    (tmp_path / "half" / ".parts").mkdir(parents=True)
    code, _, err = cli("dataset", "inspect", tmp_path / "half")
    assert (code, "is an import that was interrupted" in err, "dataset import bair SRC" in err) == (4, True, True)
    code, _, err = cli("dataset", "import", "bair", records, tmp_path / "x", "--camera", "aux")
    assert (code, "Did you mean 'aux1'" in err) == (2, True)
    code, _, err = cli("dataset", "import", "bair", "push", tmp_path / "x")
    assert (code, "push has no train/*.tfrecords" in err) == (4, True)
    assert not (tmp_path / "x").exists()


def test_pack_begins_a_new_file_at_the_shard_size(cli: Cli, tmp_path: Path) -> None:
    pushing.write_folder(pushing.push(60, 1, 0, 7, 0), tmp_path / "push")  # 5 MiB
    assert cli("dataset", "pack", tmp_path / "push", tmp_path / "packed", "--shard-size", 2).code == 0
    assert len(list((tmp_path / "packed").glob("data-*.bin"))) == 3
