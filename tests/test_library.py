"""The package as a library: what the README shows, on a real (tiny) training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vidcvae
from vidcvae import config as settings
from vidcvae.storage import durable
from vidcvae.storage.run import create_run


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, vidcvae; vidcvae.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    for name in vidcvae.__all__:
        assert getattr(vidcvae, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vidcvae.nonsense


def test_train_load_score_and_roll_out(tmp_path: Path) -> None:
    data = vidcvae.open_dataset("synthetic:dance", (16, 16))
    small = {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8}
    config = vidcvae.resolve(
        {
            "model": small,
            "data": {"size": "16x16"},
            "training": {"epochs": 1, "steps_per_epoch": 2, "clip_length": 4, "device": "cpu"},
            "validation": {"every": 0},
        }
    )
    run = create_run("library", tmp_path / "run")
    durable.write_text(run.config, settings.to_toml(config))
    assert vidcvae.train(run, config, data).steps == 2

    loaded = vidcvae.load_model(str(run.path))
    scores = vidcvae.score_split(loaded, data, "val", frames=5)
    assert len(scores["psnr_per_frame"]) == 4
    sequence = data.split("test")[0]
    first, poses = torch.tensor(sequence.frames[:1]), torch.tensor(sequence.tracks["pose"][:6])
    frames = list(vidcvae.rollout(loaded.model, first[None], poses[None]))
    assert len(frames) == 5 and frames[0].shape == (1, 3, 16, 16)
    assert min(f.min() for f in frames) >= 0 and max(f.max() for f in frames) <= 1


@pytest.mark.parametrize(
    "modules", ["vidcvae.cli.runs, vidcvae.storage.upkeep, vidcvae.evaluation.records", "vidcvae.output.plots"]
)
def test_what_only_reads_files_imports_no_torch(modules: str) -> None:
    """``runs list`` and ``plot loss``: PyTorch alone takes a second or more to import."""
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
