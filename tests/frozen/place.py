"""A folder to type commands in: datasets, a run of each family, and what people get wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

from tests import video_clips
from tests.frozen import texts
from vidcvae.data import pose_folder
from vidcvae.scenes import dancing, pushing

MADE = texts.HERE / "made"
TINY = """
[model]
name = "anchor-cvae"
channels = 8
latent_channels = 1
[data]
size = [16, 16]
[training]
epochs = 1
steps_per_epoch = 2
batch_size = 2
clip_length = 4
log_every = 1
precision = "float32"
device = "cpu"
"""
ARM = (
    "train push --model svg-fp --set model.backbone=dcgan64 --set model.frame_dim=4 --set model.latent_dim=2 "
    "--set model.hidden_dim=8 --size 64x64 --clip-length 4 --batch-size 2 --epochs 1 --set training.steps_per_epoch=1 "
    "--set training.past=2 --device cpu --plain --run runs/arm"
)


def furnish(place: Path) -> None:
    """Make what a user may have.

    packed, runs/tiny        as an earlier version made them
    data, push               datasets in the course's layout
    runs/arm                 a run on push
    tiny.toml                settings to train with
    pictures, coco.json      a clip of a person, and the joints in it
    """
    shutil.copytree(MADE / "packed", place / "packed")
    shutil.copytree(MADE / "run", place / "runs" / "tiny")
    pose_folder.write_folder(dancing.dance(12, 8, 1, 0, (16, 16)), place / "data")
    pushing.write_folder(pushing.push(2, 2, 1, 6, 0), place / "push")
    (place / "tiny.toml").write_text(TINY)
    result = texts.run(ARM, place)
    assert result.code == 0, result.err
    config = place / "runs/arm/config.toml"
    config.write_text(config.read_text().replace(str(place / "push"), "push"))  # the place may be copied
    clip = video_clips.make_clip(12, (45, 81))
    (place / "pictures").mkdir()
    for t, frame in enumerate(clip.frames):
        Image.fromarray(frame).save(place / "pictures" / f"{t}.png")
    video_clips.write_coco(place / "coco.json", clip.joints)


def spoil(place: Path) -> None:
    """Beside what ``furnish`` made, what is damaged, missing or of another kind."""
    for name in ("empty", "full"):
        (place / name).mkdir()
    (place / "full" / "notes.txt").write_text("mine\n")
    (place / "notes.txt").write_text("mine\n")
    (place / "notes.gif").write_text("mine\n")
    (place / "bad.toml").write_text("[kl]\nratio = half\n")
    (place / "wrong.toml").write_text('[kl]\ntpye = "none"\nratio = 2.0\n[training]\nepochs = "many"\n')
    (place / "score.json").write_text("{}\n")
    shutil.copy(place / "data/val/val_img/0.png", place / "frame.png")
    shutil.copytree(place / "data/val/val_label", place / "poses")
    shutil.copytree(place / "poses", place / "gappy")
    (place / "gappy" / "3.png").unlink()
    shutil.copytree(place / "data", place / "torn-data")
    (place / "torn-data/train/train_img/7.png").write_bytes(b"not a picture")
    for name, change in (("torn", lambda content: content[:-100]), ("flipped", _with_a_flipped_bit)):
        shutil.copytree(place / "packed", place / f"{name}-packed")
        path = place / f"{name}-packed" / "data-00000.bin"
        path.write_bytes(change(path.read_bytes()))
    save_file({"eps": np.zeros((2, 1, 2, 2), np.float32)}, place / "noise.safetensors")
    torch.save({"state_dict": {"w": torch.zeros(1)}}, place / "other.ckpt")
    _spoil_runs(place / "runs")


def _spoil_runs(runs: Path) -> None:
    """runs/torn with cut checkpoints and a damaged history, runs/bare without any, runs/edited with a setting changed,
    runs/lost whose dataset is gone."""
    for name in ("torn", "bare", "edited", "lost"):
        shutil.copytree(runs / "tiny", runs / name)
    for path in (runs / "torn/checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    history = runs / "torn/history.jsonl"
    history.write_text("rubbish\n" + history.read_text())
    shutil.rmtree(runs / "bare/checkpoints")
    (runs / "bare/history.jsonl").unlink()
    config = runs / "edited/config.toml"
    config.write_text(config.read_text().replace("smoothing = 0.3", "smoothing = 0.5"))
    config = runs / "lost/config.toml"
    config.write_text(config.read_text().replace('"packed"', '"gone"'))
    info = runs / "lost/run.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"data": "gone"}))


def _with_a_flipped_bit(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
