"""Checkpoints: what goes in comes out, and no damage goes unnoticed."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
import torch

from vidcvae.errors import DataError
from vidcvae.storage import checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tensors = {
        "model.weight": torch.randn(7, 5),
        "model.count": torch.tensor(3),
        "model.half": torch.randn(4).bfloat16(),
        "model.strided": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "optimizer.exp_avg.weight": torch.randn(7, 5),
    }
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, tensors, {"step": 12, "config": {"kl": {"stop": 0.1}}})
    torch.save(tensors, tmp_path / "x.pt")
    return path


def test_round_trip(saved: Path) -> None:
    found, wanted = checkpoint.read(saved), torch.load(saved.with_suffix(".pt"), weights_only=True)
    assert found.meta["step"] == 12 and found.meta["config"] == {"kl": {"stop": 0.1}}
    assert found.tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found.tensors[name].dtype == tensor.dtype and torch.equal(found.tensors[name], tensor), name
    assert set(found.part("model")) == {"weight", "count", "half", "strided"}
    assert saved.stat().st_mode & 0o777 == 0o644


def test_every_cut_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in [0, 3, 7, 8, 50, *range(100, len(whole), 97), len(whole) - 1]:
        saved.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"x\.safetensors"):
            checkpoint.read(saved)


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    """Each byte of the file once, with a random bit of it."""
    whole, chance = saved.read_bytes(), random.Random(0)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        saved.write_bytes(damaged)
        with pytest.raises(DataError):
            checkpoint.read(saved)


def test_the_header_is_read_alone_and_its_damage_noticed(saved: Path) -> None:
    whole = checkpoint.read(saved)
    assert checkpoint.read_header(saved) == (whole.meta, whole.digest)
    content = saved.read_bytes()
    end, chance = 8 + int.from_bytes(content[:8], "little"), random.Random(1)
    saved.write_bytes(content[:end])  # no tensor is looked at
    assert checkpoint.read_header(saved) == (whole.meta, whole.digest)
    for position in range(0, end, 13):
        damaged = bytearray(content)
        damaged[position] ^= 1 << chance.randrange(8)
        saved.write_bytes(damaged)
        with contextlib.suppress(DataError):  # where a tensor's bytes lie is not covered: nothing of it is told
            assert checkpoint.read_header(saved) == (whole.meta, whole.digest)
    for size in (0, 3, 8, end - 1):
        saved.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"x\.safetensors is damaged"):
            checkpoint.read_header(saved)
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        checkpoint.read_header(saved.parent / "none.safetensors")


def test_only_files_with_exactly_their_names_are_numbered_checkpoints(tmp_path: Path) -> None:
    for name in ("step-00000009", "step-00000010", "step-123456789", "step-x", "step-1", "step-00000001-mine"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "step-00000011.safetensors").symlink_to(tmp_path / "step-x.safetensors")
    names = [path.stem for path in checkpoint.steps(tmp_path)]
    assert names == ["step-00000009", "step-00000010", "step-123456789"]


def test_the_damaged_tensor_is_named(saved: Path) -> None:
    whole = saved.read_bytes()
    raw = checkpoint.read(saved).tensors["optimizer.exp_avg.weight"].numpy().tobytes()
    at = whole.index(raw) + 5
    saved.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(DataError, match=r"tensor optimizer\.exp_avg\.weight does not match"):
        checkpoint.read(saved)


def test_another_safetensors_file_is_told_apart(shared: Path) -> None:
    with pytest.raises(DataError, match="not a vidcvae checkpoint") as caught:
        checkpoint.read(shared / "golden" / "pose_weights.safetensors")
    assert "checkpoint import" in caught.value.hint


def test_commit_names_last_and_best_and_prunes(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoint.commit(tmp_path, {"model.a": torch.tensor(float(step))}, {}, step=step, best=step == 2, keep=2)
    assert [p.name for p in checkpoint.steps(tmp_path)] == ["step-00000004.safetensors", "step-00000005.safetensors"]
    assert checkpoint.read(tmp_path / checkpoint.LAST).tensors["model.a"] == 5
    assert checkpoint.read(tmp_path / checkpoint.BEST).tensors["model.a"] == 2
    assert not list(tmp_path.glob(".*"))


def test_commit_that_keeps_none_still_has_last(tmp_path: Path) -> None:
    checkpoint.commit(tmp_path, {"model.a": torch.tensor(1.0)}, {}, step=1, best=False, keep=0)
    assert checkpoint.steps(tmp_path) == []
    assert checkpoint.read(tmp_path / checkpoint.LAST).tensors["model.a"] == 1
