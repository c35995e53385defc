"""Damaged checkpoints are told apart by file and tensor, and a run goes on from the newest good one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vidcvae.errors import DataError
from vidcvae.storage import checkpoint
from vidcvae.storage.history import read_history

from ..cli.conftest import TINY, Cli
from .test_sigkill import fingerprint

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("workplace")]


@pytest.fixture
def run(cli: Cli, tiny_dance: Path) -> Path:
    """Three epochs, each with its checkpoint: of 3, 6 and 9 steps."""
    done = cli("train", tiny_dance, *TINY, "--epochs", 3, "--run", "r")
    assert done.code == 0, done.err
    return Path("r")


def flip(path: Path, tensor: str) -> None:
    """Turn over one bit in the middle of a tensor, in the file itself: all its names are damaged."""
    begin, end = where(path)[tensor]
    with path.open("r+b") as file:
        file.seek((begin + end) // 2)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 16]))


def where(path: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor begins and ends in the file; read without our reader."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + size])
    table.pop("__metadata__")
    begins_ends = {name: entry["data_offsets"] for name, entry in table.items()}
    return {name: (8 + size + begin, 8 + size + end) for name, (begin, end) in begins_ends.items()}


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_damaged_last_falls_back_loudly(cli: Cli, run: Path) -> None:
    shutil.copytree(run, "whole")  # copies of the links, damaged none
    last, before = run / "checkpoints" / checkpoint.LAST, run / "checkpoints/step-00000006.safetensors"
    flip(last, "model.generator.0.expand.weight")
    done = cli("resume", run, "--epochs", 4, "--plain")
    assert done.code == 0, done.err
    said = words(done.err)
    assert f"warning: the checkpoint {last} is damaged: tensor model.generator.0.expand.weight does not match" in said
    assert f"warning: resuming from {before} instead, at step 6;" in said
    assert cli("resume", "whole", "--epochs", 4, "--plain").code == 0
    assert fingerprint(run) == fingerprint(Path("whole"))


def test_the_newest_good_one_is_found_among_many_bad(cli: Cli, run: Path) -> None:
    names = [path.name for path in checkpoint.steps(run / "checkpoints")]
    assert names == ["step-00000003.safetensors", "step-00000006.safetensors", "step-00000009.safetensors"]
    flip(run / "checkpoints" / names[2], "model.generator.0.expand.weight")
    (run / "checkpoints" / names[1]).write_bytes(b"")
    (run / "checkpoints" / checkpoint.LAST).unlink()
    (run / "checkpoints" / checkpoint.BEST).unlink()
    found, problems = checkpoint.read_newest(run / "checkpoints")
    assert found.path.name == names[0]
    assert [Path(problem.message.split()[i]).name for problem, i in zip(problems, (4, 2, 2), strict=True)] == [
        "last.safetensors.", names[1], names[2]]  # fmt: skip
    (run / "checkpoints" / names[0]).unlink()
    refused = cli("resume", run, "--epochs", 4)
    assert refused.code == 4 and "no checkpoint in r/checkpoints can be used" in refused.err
    assert "vidcvae train --config r/config.toml" in refused.err


def test_resume_from_best_or_a_file_gives_up_what_came_after(cli: Cli, run: Path) -> None:
    whole = fingerprint(run)
    first = run / "checkpoints/step-00000003.safetensors"
    assert cli("resume", run, "--resume-from", first, "--plain").code == 0
    assert fingerprint(run) == whole, "the same training again"
    (run / "checkpoints" / checkpoint.BEST).unlink()
    (run / "checkpoints" / checkpoint.BEST).hardlink_to(first)
    done = cli("resume", run, "--resume-from", "best", "--max-minutes", 0.00001, "--plain")
    assert done.code == 2 and "is a total" in done.err, "this time is over already"
    done = cli("resume", run, "--resume-from", "best", "--max-minutes", 0, "--epochs", 2, "--plain")
    assert done.code == 0, done.err
    assert [path.name[-6 - 12 : -12] for path in checkpoint.steps(run / "checkpoints")] == ["000003", "000006"]
    assert max(line["step"] for line in read_history(run / "history.jsonl")) == 6
    assert checkpoint.read(run / "checkpoints" / checkpoint.LAST).meta.step == 6


def test_what_cannot_be_resumed_from_is_refused(cli: Cli, run: Path, tiny_dance: Path) -> None:
    best = run / "checkpoints" / checkpoint.BEST
    flip(best, "optimizer.exp_avg.generator.0.expand.weight")
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    for given in ("best", best):
        refused = cli("resume", run, "--resume-from", given, "--epochs", 4)
        assert refused.code == 4
        assert f"{best} is damaged: tensor optimizer.exp_avg.generator.0.expand.weight does" in words(refused.err)
    missing = cli("resume", run, "--resume-from", "r/checkpoints/none.safetensors")
    assert missing.code == 4 and "there is no checkpoint r/checkpoints/none.safetensors" in missing.err
    other = ["train", tiny_dance, *TINY, "--epochs", 1, "--run", "o", "--set", "model.latent_channels=8"]
    assert cli(*other).code == 0
    refused = cli("resume", run, "--resume-from", "o/checkpoints/last.safetensors", "--epochs", 4)
    assert refused.code == 2 and "holds another model" in refused.err and "vidcvae train --init o/" in refused.err
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


def test_a_run_without_a_checkpoint_starts_again_with_its_weights(cli: Cli, run: Path, tiny_dance: Path) -> None:
    again = ("train", tiny_dance, *TINY, "--epochs", 1, "--init", run, "--run")
    assert cli(*again, "a").code == 0
    assert cli(*again, "b").code == 0
    shutil.rmtree("b/checkpoints")  # as if it had died before its first one
    done = cli("resume", "b", "--plain")
    assert done.code == 0 and "no checkpoint yet: it starts from the beginning" in done.err
    assert fingerprint(Path("a")) == fingerprint(Path("b"))


def test_damage_in_every_region_is_named(run: Path, tmp_path: Path, count: Callable[[str, int], None]) -> None:
    """Bits turned over and ends cut off: length, table, metadata, checksums, each tensor, tail."""
    path, whole = tmp_path / "x.safetensors", (run / "checkpoints" / checkpoint.LAST).read_bytes()
    tensors = where(run / "checkpoints" / checkpoint.LAST)
    header = min(begin for begin, _ in tensors.values())
    tried = 0

    def refused(content: bytes, says: str) -> None:
        nonlocal tried
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            checkpoint.read(path)
        assert str(path) in caught.value.message and says in caught.value.message, caught.value.message
        tried += 1

    def flipped(position: int, bit: int) -> bytes:
        return whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :]

    for position in (*range(8), *range(8, header, header // 50)):
        refused(flipped(position, position % 8), "")
    for number, (name, (begin, end)) in enumerate(sorted(tensors.items())[::8]):
        position = (begin, (begin + end) // 2, end - 1)[number % 3]
        refused(flipped(position, number % 8), f"tensor {name} does not match its checksum")
        refused(whole[: end - 1], f"it ends before the end of tensor {name}")
    for size in (0, 1, 7, 8, 9, header // 2, header - 1):
        refused(whole[:size], "it ends inside its header")
    refused(whole + b"\0", "")
    refused(whole + whole, "")
    count("damaged checkpoints named", tried)
