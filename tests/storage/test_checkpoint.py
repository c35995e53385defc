"""Checkpoints: what goes in comes out, and no damage goes unnoticed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from pathlib import Path

import pytest
import torch

from vidcvae.errors import DataError
from vidcvae.storage import checkpoint
from vidcvae.storage.checkpoint import CheckpointMeta


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
    checkpoint.save(path, tensors, CheckpointMeta(step=12, config={"kl": {"stop": 0.1}}))
    torch.save(tensors, tmp_path / "x.pt")
    return path


def test_round_trip(saved: Path) -> None:
    found, wanted = checkpoint.read(saved), torch.load(saved.with_suffix(".pt"), weights_only=True)
    assert found.meta.step == 12 and found.meta.config == {"kl": {"stop": 0.1}}
    assert found.tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found.tensors[name].dtype == tensor.dtype and torch.equal(found.tensors[name], tensor), name
    assert set(found.part("model")) == {"weight", "count", "half", "strided"}
    assert saved.stat().st_mode & 0o777 == 0o644


def test_the_parts_are_counted(saved: Path) -> None:
    """35 float32, an int64, 4 bfloat16 and 96 float32; there is no moving average."""
    assert checkpoint.read(saved).sizes() == {
        "model": {"tensors": 4, "numbers": 35 + 1 + 4 + 96, "bytes": 4 * 35 + 8 + 2 * 4 + 4 * 96},
        "optimizer": {"tensors": 1, "numbers": 35, "bytes": 4 * 35},
    }


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"PK\3\4 and so on", "checkpoint import"),
        (b"\x80\x02 and so on", "checkpoint import"),
        (b"a text of any kind", "runs list"),
    ],
)
def test_a_file_of_another_format_is_told_apart(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="is not a vidcvae checkpoint: it is not in the safetensors format") as caught:
        checkpoint.read(tmp_path / "x")
    assert hint in caught.value.hint


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
    with pytest.raises(DataError, match="there is no checkpoint"):
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


def test_the_file_is_what_the_documentation_says(saved: Path) -> None:
    """Read as plain safetensors: a SHA-256 of every tensor's bytes in the metadata, and one over that and the table."""
    content = saved.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    strings = header.pop("__metadata__")
    meta = json.loads(strings["vidcvae"])
    assert (meta["format"], meta["step"]) == ("vidcvae-checkpoint-1", 12)
    data = content[8 + size :]
    assert meta["sha256"] == {
        name: hashlib.sha256(data[slice(*entry["data_offsets"])]).hexdigest() for name, entry in header.items()
    }
    table = sorted([name, entry["dtype"], entry["shape"]] for name, entry in header.items())
    assert hashlib.sha256(json.dumps([strings["vidcvae"], table]).encode()).hexdigest() == strings["digest"]
    assert checkpoint.read(saved).digest == strings["digest"]
    assert {entry["dtype"] for entry in header.values()} == {"F32", "I64", "BF16"}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]
)
def test_every_kind_of_number_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    checkpoint.save(tmp_path / "x", {"model.t": tensor.T, "model.empty": tensor[:0]}, CheckpointMeta())
    found = checkpoint.read(tmp_path / "x").tensors
    assert found["model.t"].dtype == dtype and torch.equal(found["model.t"], tensor.T)
    assert found["model.empty"].shape == (0, 3)


def numbered(folder: Path, *numbers: int, best: int = 0) -> None:
    for step in numbers:
        tensors = {"model.a": torch.tensor(float(step))}
        checkpoint.commit(folder, tensors, CheckpointMeta(step=step), best=step == best, keep=9)


def spoil(path: Path) -> None:
    """In place, so that it is spoilt under each of its names."""
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")


def test_a_commit_sends_away_the_future_that_was_given_up(tmp_path: Path) -> None:
    numbered(tmp_path, 1, 2, 3, 4, best=4)
    checkpoint.commit(tmp_path, {"model.a": torch.tensor(2.5)}, CheckpointMeta(step=2), best=False, keep=1)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-00000002.safetensors"]
    assert checkpoint.read(tmp_path / checkpoint.LAST).tensors["model.a"] == 2.5
    assert checkpoint.read(tmp_path / checkpoint.BEST).tensors["model.a"] == 4


def test_the_newest_good_checkpoint_is_found_beside_damaged_ones(tmp_path: Path) -> None:
    numbered(tmp_path, 1, 2, 3, best=1)
    found, problems = checkpoint.read_newest(tmp_path)
    assert (found.path.name, found.meta.step, problems) == ("last.safetensors", 3, [])
    spoil(tmp_path / checkpoint.LAST)  # and step 3, which is the same file
    found, problems = checkpoint.read_newest(tmp_path)
    assert (found.meta.step, len(problems)) == (2, 1) and "last.safetensors is damaged" in problems[0].message
    spoil(tmp_path / "step-00000002.safetensors")
    found, problems = checkpoint.read_newest(tmp_path)
    assert (found.meta.step, len(problems)) == (1, 2) and "step-00000002" in problems[1].message
    assert found.path.name == "step-00000001.safetensors", "which is best too"
    (tmp_path / checkpoint.LAST).unlink()
    assert checkpoint.read_newest(tmp_path)[0].meta.step == 1
    spoil(tmp_path / checkpoint.BEST)
    with pytest.raises(DataError, match=r"no checkpoint in .* can be used: there is no checkpoint") as caught:
        checkpoint.read_newest(tmp_path)
    assert "vidcvae train --config" in caught.value.hint


def test_a_damaged_one_does_not_hide_those_behind_it(tmp_path: Path) -> None:
    numbered(tmp_path, 1, 2, 3, 4)
    for name in (checkpoint.LAST, "step-00000001.safetensors"):
        spoil(tmp_path / name)
    found, problems = checkpoint.read_newest(tmp_path)
    assert (found.meta.step, len(problems)) == (3, 2)


def test_best_may_be_the_newest_good_one(tmp_path: Path) -> None:
    numbered(tmp_path, 1, 2, 3, best=2)
    (tmp_path / "step-00000002.safetensors").unlink()
    spoil(tmp_path / checkpoint.LAST)
    found, _ = checkpoint.read_newest(tmp_path)
    assert (found.path.name, found.meta.step) == ("best.safetensors", 2)


def rewritten(path: Path, text: str | None = None, dtype: str = "", **meta: object) -> None:
    """The same file with other metadata or kinds of numbers, and checksums that are right for them."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    strings = header.pop("__metadata__")
    text = json.dumps(json.loads(strings["vidcvae"]) | meta) if text is None else text
    header = {name: entry | ({"dtype": dtype} if dtype else {}) for name, entry in header.items()}
    table = sorted([name, e["dtype"], e["shape"]] for name, e in header.items())
    digest = hashlib.sha256(json.dumps([text, table]).encode()).hexdigest()
    header["__metadata__"] = {"vidcvae": text, "digest": digest}
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + content[8 + size :])


def test_metadata_that_are_no_json_and_numbers_of_no_kind_are_named(saved: Path) -> None:
    whole = saved.read_bytes()
    for text in ("{", "[]"):
        rewritten(saved, text)
        for read in (checkpoint.read, checkpoint.read_header):
            with pytest.raises(DataError, match="its metadata cannot be read"):
                read(saved)
        saved.write_bytes(whole)
    rewritten(saved, dtype="F31")
    with pytest.raises(DataError, match=r"x\.safetensors is damaged: .*F31"):
        checkpoint.read(saved)


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"format": "vidcvae-checkpoint-9"}, "has the format 'vidcvae-checkpoint-9'; this version reads"),
        ({"sha256": {"model.weight": "0"}}, "does not have a checksum for each tensor"),
        ({"sha256": []}, "does not have a checksum for each tensor"),
        ({"step": "12"}, "its metadata cannot be read"),
        ({"config": []}, "its metadata cannot be read"),
        ({"scores": 3}, "its metadata cannot be read"),
        ({"epoch": "3"}, "its metadata cannot be read"),
        ({"epoch": 1.5}, "its metadata cannot be read"),
        ({"progress": []}, "its metadata cannot be read"),
        ({"progress": 4}, "its metadata cannot be read"),
        ({"validation": "val"}, "its metadata cannot be read"),
        ({"arithmetic": "bf16"}, "its metadata cannot be read"),
        ({"history_size": "9"}, "its metadata cannot be read"),
    ],
)
def test_metadata_that_are_not_ours_are_named(saved: Path, meta: dict[str, object], says: str) -> None:
    rewritten(saved)
    assert checkpoint.read(saved).meta.step == 12
    rewritten(saved, **meta)
    for read in (checkpoint.read, checkpoint.read_header):
        with pytest.raises(DataError, match=says):
            read(saved)


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_unknown_keys_are_passed_over_and_missing_ones_have_defaults(saved: Path) -> None:
    """As files of other versions have them."""
    hashes = {name: hashlib.sha256(bytes_of(t)).hexdigest() for name, t in checkpoint.read(saved).tensors.items()}
    rewritten(saved, json.dumps({"format": "vidcvae-checkpoint-1", "sha256": hashes, "later": [1], "step": 12}))
    for meta in (checkpoint.read_header(saved)[0], checkpoint.read(saved).meta):
        assert meta == CheckpointMeta(step=12)
        assert (meta.config, meta.scores, meta.progress, meta.minutes, meta.history_size) == ({}, {}, None, None, None)


def test_metadata_are_written_as_the_versions_before_wrote_them() -> None:
    """A frozen checkpoint's JSON, key for key in its order; and that of an imported one, which has no position."""
    path = Path(__file__).parents[1] / "frozen/made/run/checkpoints/last.safetensors"
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    found, stored = checkpoint.read(path), json.loads(header["__metadata__"]["vidcvae"])
    remade = checkpoint.to_bytes({name: found.tensors[name] for name in stored["sha256"]}, found.meta)
    again = json.loads(remade[8 : 8 + int.from_bytes(remade[:8], "little")])
    assert again["__metadata__"] == header["__metadata__"]
    assert found.meta.minutes == stored["progress"]["minutes"]
    imported = CheckpointMeta("0.1.0", {"kl": {}}, epoch=3, imported_from="x.ckpt").to_json()
    assert list(imported) == ["version", "config", "step", "epoch", "scores", "imported_from"]


def test_a_header_of_16_mib_is_read_and_a_larger_one_is_not(saved: Path) -> None:
    """Whatever else is right: JSON may take twenty times its size in memory."""
    content = saved.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, tensors = content[8 : 8 + size], content[8 + size :]
    saved.write_bytes((2**24).to_bytes(8, "little") + header.ljust(2**24) + tensors)
    assert checkpoint.read(saved).meta.step == checkpoint.read_header(saved)[0].step == 12
    saved.write_bytes((2**24 + 1).to_bytes(8, "little") + header.ljust(2**24 + 1) + tensors)
    for read in (checkpoint.read, checkpoint.read_header):
        with pytest.raises(DataError, match="its header cannot be read"):
            read(saved)


def test_where_a_file_ends_is_named(saved: Path) -> None:
    content = saved.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = {k: v for k, v in json.loads(content[8 : 8 + size]).items() if k != "__metadata__"}
    first = min(header, key=lambda name: header[name]["data_offsets"])
    negative = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}).encode()
    for data, says in (
        (content[: size - 20], "ends inside its header"),
        (content[: size + 5], "ends inside its header"),
        (bytes(8), "its header cannot be read"),
        (content[:5], "ends inside its header"),
        ((1 << 40).to_bytes(8, "little") + content[8:], "ends inside its header"),
        (content[:8] + b"[" + content[9:], "its header cannot be read"),
        ((2).to_bytes(8, "little") + b"[]" + content[8:], "its header cannot be read"),
        (content[:-3], "ends before the end of tensor"),
        (content[: 8 + size], f"ends before the end of tensor {first}"),
        (len(negative).to_bytes(8, "little") + negative + content[8 + size :], "its header cannot be read"),
    ):
        saved.write_bytes(data)
        with pytest.raises(DataError, match=says) as caught:
            checkpoint.read(saved)
        assert caught.value.hint == f"Look for an older one beside it: ls {saved.parent}"
    with pytest.raises(DataError, match="there is no checkpoint"):
        checkpoint.read(saved.parent / "nowhere.safetensors")
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        checkpoint.read(saved.parent)


def test_commit_names_last_and_best_and_prunes(tmp_path: Path) -> None:
    for step in range(1, 6):
        tensors = {"model.a": torch.tensor(float(step))}
        checkpoint.commit(tmp_path, tensors, CheckpointMeta(step=step), best=step == 2, keep=2)
    assert [p.name for p in checkpoint.steps(tmp_path)] == ["step-00000004.safetensors", "step-00000005.safetensors"]
    assert checkpoint.read(tmp_path / checkpoint.LAST).tensors["model.a"] == 5
    assert checkpoint.read(tmp_path / checkpoint.BEST).tensors["model.a"] == 2
    assert not list(tmp_path.glob(".*"))


def test_commit_that_keeps_none_still_has_last(tmp_path: Path) -> None:
    checkpoint.commit(tmp_path, {"model.a": torch.tensor(1.0)}, CheckpointMeta(step=1), best=False, keep=0)
    assert checkpoint.steps(tmp_path) == []
    assert checkpoint.read(tmp_path / checkpoint.LAST).tensors["model.a"] == 1
