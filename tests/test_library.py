"""The package as a library: what the README shows, on a real (tiny) training."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vidcvae
from vidcvae import config as settings


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, vidcvae; vidcvae.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    for name in vidcvae.__all__:
        assert getattr(vidcvae, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vidcvae.nonsense


def test_type_checkers_know_every_public_name() -> None:
    """They read the imports under TYPE_CHECKING; at run time the names come from ``_API``."""
    tree = ast.parse(Path(vidcvae.__file__).read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "vidcvae" in str(node.module)]
    assert {alias.asname: node.module for node in imports for alias in node.names} == vidcvae._API


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
    assert vidcvae.train(config, data, tmp_path / "run").steps == 2

    loaded = vidcvae.load_model(str(tmp_path / "run"), device="auto")
    with pytest.raises(vidcvae.VidcvaeError, match="no checkpoint called 'first'"):
        vidcvae.load_model(str(tmp_path / "run"), which="first")
    scores = vidcvae.score_split(loaded, data, "val", frames=5)
    assert len(scores["psnr_per_frame"]) == 4
    sequence = data.split("test")[0]
    first, poses = torch.tensor(sequence.frames[:1]), torch.tensor(sequence.tracks["pose"][:6])
    frames = list(vidcvae.rollout(loaded.model, first[None], poses[None]))
    assert len(frames) == 5 and frames[0].shape == (1, 3, 16, 16)
    assert min(f.min() for f in frames) >= 0 and max(f.max() for f in frames) <= 1


def test_a_run_of_python_is_resumed_by_python_exactly_and_by_the_command_line_with_a_word(tmp_path: Path) -> None:
    data = vidcvae.open_dataset("synthetic:dance", (16, 16))
    small = {"frame_channels": 8, "pose_channels": 4, "latent_channels": 4, "decoder_channels": 8}
    lasting = {"epochs": 2, "steps_per_epoch": 2, "clip_length": 4, "device": "cpu"}
    config = vidcvae.resolve(
        {"model": small, "data": {"size": "16x16"}, "training": lasting, "validation": {"every": 0}}
    )
    events: list[str] = []
    whole = vidcvae.train(config, data, tmp_path / "whole", report=lambda event: events.append(event["kind"]))
    assert {"start", "epoch", "done"} <= {*events}

    first = settings.with_values(config, {"training": {"epochs": 1}})
    vidcvae.train(first, data, tmp_path / "broken")
    later = vidcvae.resume(tmp_path / "broken", data, more_epochs=1)
    assert later is not None and (later.steps, whole.steps) == (4, 4)
    states = [vidcvae.load_model(str(tmp_path / n), which="last").model.state_dict() for n in ("whole", "broken")]
    assert all(torch.equal(a, states[1][name]) for name, a in states[0].items())
    told: list[str] = []
    assert vidcvae.resume(tmp_path / "broken", data, report=lambda event: told.append(event["kind"])) is None
    assert told == ["finished"]
    with pytest.raises(vidcvae.VidcvaeError, match="was trained from Python"):
        vidcvae.resume(tmp_path / "broken", more_epochs=1)
    fewer = vidcvae.VideoData("fewer", "dance", 25, Path("x"), {"train": data.split("train")[:1]})
    with pytest.raises(vidcvae.VidcvaeError, match="is not the dataset that"):
        vidcvae.resume(tmp_path / "broken", fewer, more_epochs=1)


@pytest.mark.parametrize(
    "modules",
    [
        "vidcvae.cli.runs, vidcvae.workflow.at_glance, vidcvae.storage.upkeep, vidcvae.evaluation.records",
        "vidcvae.workflow.comparison, vidcvae.output.score_table",
        "vidcvae.output.plots",
    ],
)
def test_what_only_reads_files_imports_no_torch(modules: str) -> None:
    """``runs list``, ``compare`` and ``plot loss``: PyTorch alone takes a second or more to import."""
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
