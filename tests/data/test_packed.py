"""The packed form: what goes in comes out, and nothing damaged or malicious does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidcvae.data import packed
from vidcvae.data.clips import Sequence, Stream, VideoData
from vidcvae.errors import DataError, UsageError, VidcvaeError
from vidcvae.workflow.datasets import open_dataset


def make(seed: int = 0) -> VideoData:
    draw = np.random.default_rng(seed)
    image = lambda n: draw.integers(0, 256, (n, 3, 8, 16), np.uint8)  # noqa: E731
    action = lambda n: draw.standard_normal((n, 4)).astype(np.float32)  # noqa: E731
    train = (
        Sequence("0-4", image(5), {"pose": image(5)}, frozenset({0, 3})),
        Sequence("5-7", image(3)[:, :, ::-1], {"pose": image(3)}),  # not contiguous
    )
    return VideoData("made", "dance", 12.5, Path("made"), {
        "train": train, "test": (Sequence("0", image(1), {"pose": image(6), "action": action(6)}),)
    })  # fmt: skip


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    packed.write(make(), tmp_path / "pack")
    return tmp_path / "pack"


def test_what_goes_in_comes_out(pack: Path) -> None:
    data, again = make(), packed.open_packed(pack, verify=True)
    assert (again.name, again.kind, again.fps, again.size) == ("made", "dance", 12.5, (8, 16))
    assert list(again.splits) == ["train", "test"]
    for split, sequences in data.splits.items():
        for a, b in zip(sequences, again.split(split), strict=True):
            assert (a.name, a.unknown_poses, a.tracks.keys()) == (b.name, b.unknown_poses, b.tracks.keys())
            assert np.array_equal(a.frames, b.frames)
            for name in a.tracks:
                assert np.array_equal(a.tracks[name], b.tracks[name]) and a.tracks[name].dtype == b.tracks[name].dtype


def test_arrays_are_mapped_and_read_only(pack: Path) -> None:
    frames = packed.open_packed(pack).split("train")[0].frames
    base: Any = frames
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0


def test_the_form_is_what_it_says(pack: Path) -> None:
    """Read with nothing but the standard library and numpy."""
    manifest = json.loads((pack / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"], manifest["size"]) == ("vidcvae-packed", 1, [8, 16])
    raw = (pack / "data-00000.bin").read_bytes()
    block = manifest["splits"]["test"][0]["tracks"]["action"]
    cut = raw[block["offset"] : block["offset"] + 6 * 4 * 4]
    assert hashlib.sha256(cut).hexdigest() == block["sha256"]
    assert np.array_equal(np.frombuffer(cut, "<f4").reshape(6, 4), make().split("test")[0].tracks["action"])


def test_a_new_file_begins_when_one_is_full(tmp_path: Path) -> None:
    packed.write(make(), tmp_path / "pack", shard_bytes=1000)
    assert sorted(p.name for p in (tmp_path / "pack").glob("*.bin")) == [f"data-0000{i}.bin" for i in range(3)]
    assert np.array_equal(
        packed.open_packed(tmp_path / "pack", verify=True).split("train")[1].frames, make().split("train")[1].frames
    )


def test_only_one_sequence_is_held_at_a_time(tmp_path: Path) -> None:
    asked: list[str] = []

    def sequences() -> Any:
        for split, found in make().splits.items():
            for sequence in found:
                asked.append(sequence.name)
                yield split, sequence

    stream = Stream("made", "dance", 25, Path("made"), sequences())
    assert asked == []
    packed.write(stream, tmp_path / "pack")
    assert asked == ["0-4", "5-7", "0"]


# --- where it may be written -----------------------------------------------------------------------


def test_an_interrupted_pack_is_no_dataset_and_is_written_anew(tmp_path: Path) -> None:
    out = tmp_path / "pack"

    def broken() -> Any:
        for count, sequence in enumerate(make().split("train")):
            yield "train", sequence
            if count == 1:
                raise DataError("the power went")

    with pytest.raises(DataError, match="power"):
        packed.write(Stream("made", "dance", 25, Path("made"), broken()), out, shard_bytes=1)
    assert [p.name for p in out.iterdir()] == ["data-00000.bin"]
    with pytest.raises(DataError, match="interrupted"):
        open_dataset(out)
    (out / "data-00009.bin").write_bytes(b"of a longer pack")
    packed.write(make(), out)
    assert sorted(p.name for p in out.iterdir()) == ["data-00000.bin", "manifest.json"]
    assert packed.open_packed(out, verify=True).name == "made"


def test_nothing_else_is_overwritten(tmp_path: Path, pack: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match="thesis is not an empty folder, nor half a pack"):
        packed.write(make(), tmp_path / "thesis")
    with pytest.raises(UsageError, match="already holds a packed dataset"):
        packed.write(make(1), pack)
    with pytest.raises(UsageError, match=r"manifest\.json is a file, not a folder"):
        packed.write(make(), pack / "manifest.json")
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]
    packed.open_packed(pack, verify=True)


def test_frames_of_two_sizes_are_refused(tmp_path: Path) -> None:
    data = make()
    odd = Sequence("odd", np.zeros((2, 3, 16, 16), np.uint8), {})
    with pytest.raises(DataError, match=r"sequence odd .* differs in frame size"):
        packed.write(VideoData("x", "dance", 25, Path("x"), {**data.splits, "val": (odd,)}), tmp_path / "pack")
    assert not packed.is_packed(tmp_path / "pack")


# --- damage ----------------------------------------------------------------------------------------


def test_a_flipped_bit_is_found_and_named(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack / "data-00000.bin"
    for split, index, block in (("train", 0, "frames"), ("train", 1, "pose"), ("test", 0, "action")):
        raw = bytearray(file.read_bytes())
        record = json.loads((pack / "manifest.json").read_text())["splits"][split][index]
        where = (record["frames"] if block == "frames" else record["tracks"][block])["offset"] + 7
        raw[where] ^= 1
        file.write_bytes(bytes(raw))
        with pytest.raises(
            DataError, match=f"data-00000.bin is damaged: the {block} of {split} sequence {record['name']}"
        ):
            packed.open_packed(pack, verify=True)
        with pytest.raises(DataError, match="do not match their checksum"):  # whoever opens it
            packed.open_packed(pack)
        monkeypatch.setattr(packed, "VERIFIED_BYTES", 100)  # as of a pack that takes minutes to read
        packed.open_packed(pack)
        monkeypatch.undo()
        assert len(packed.damage(pack)) == 1
        raw[where] ^= 1
        file.write_bytes(bytes(raw))
    assert packed.damage(pack) == []


@pytest.mark.parametrize("size", [0, 1, 700, -1])
def test_a_cut_off_file_is_named(pack: Path, size: int) -> None:
    file = pack / "data-00000.bin"
    os.truncate(file, size if size >= 0 else file.stat().st_size - 1)
    with pytest.raises(DataError, match=r"data-00000\.bin"):
        packed.open_packed(pack)


def test_a_missing_file_is_named(pack: Path) -> None:
    (pack / "data-00000.bin").unlink()
    with pytest.raises(DataError, match=r"cannot read .*data-00000\.bin: No such file"):
        packed.open_packed(pack)


def first(manifest: dict[str, Any]) -> dict[str, Any]:
    block: dict[str, Any] = manifest["splits"]["train"][0]["frames"]
    return block


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "version": (lambda m: m.update(version=2), "version 2 of the packed form; this program reads 1"),
    "format": (lambda m: m.update(format="zip"), "not the manifest of a packed vidcvae dataset"),
    "kind": (lambda m: m.update(kind="cooking"), "its kind is none of dance, push"),
    "fps": (lambda m: m.update(fps=0), "fps"),
    "no splits": (lambda m: m.update(splits={}), "no sequences"),
    "unknown key": (lambda m: m.update(extra=1), "and has extra"),
    "outside": (lambda m: first(m).update(file="../data-00000.bin"), "odd file"),
    "absolute": (lambda m: first(m).update(file="/etc/passwd"), "odd file"),
    "newline": (lambda m: first(m).update(file="data-00000.bin\n"), "odd file"),
    "negative offset": (lambda m: first(m).update(offset=-64), "odd offset"),
    "far offset": (lambda m: first(m).update(offset=2**40), "is cut off"),
    "bool": (lambda m: first(m).update(offset=True), "odd offset"),
    "huge shape": (lambda m: first(m).update(shape=[2**40, 3, 8, 16]), "is cut off"),
    "other shape": (lambda m: first(m).update(shape=[5, 3, 16, 8]), "have the shape"),
    "float frames": (lambda m: first(m).update(dtype="float32"), "not uint8"),
    "dtype": (lambda m: first(m).update(dtype="object"), "unknown dtype"),
    "track": (lambda m: m["splits"]["train"][0]["tracks"].update(sound=dict(first(m))), "track sound"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_manifest_is_named(pack: Path, case: str) -> None:
    spoil, message = BAD[case]
    manifest = json.loads((pack / "manifest.json").read_text())
    spoil(manifest)
    (pack / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=message) as error:
        packed.open_packed(pack)
    assert str(pack) in error.value.message and error.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\udcff"])
def test_a_manifest_that_is_no_json(pack: Path, text: str) -> None:
    (pack / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"manifest\.json"):
        packed.open_packed(pack)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_manifest_opens_or_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One value anywhere in the manifest is replaced by anything."""
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.exists():
        packed.write(make(), folder)
        (folder / "good.json").write_bytes((folder / "manifest.json").read_bytes())
    manifest = json.loads((folder / "good.json").read_text())
    node: Any = manifest
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not (isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans())):
            break
        node = node[key]
    node[key] = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=8)
        | st.lists(st.integers(), max_size=5)
    )
    (folder / "manifest.json").write_text(json.dumps(manifest))
    try:
        for sequences in packed.open_packed(folder, verify=True).splits.values():
            for sequence in sequences:
                sequence.frames.sum()
    except VidcvaeError:
        pass
