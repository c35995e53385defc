"""Every reader of files that others wrote, with a small valid dataset of each kind to break.

A case writes its files into a folder, breaks one of them, and reads all of it. Nothing but a ``VidcvaeError`` may
come out of that.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.security import keypoint_files
from tests.security.mutate import mend_png, mutate, mutate_json, mutate_toml
from vidcvae import config as settings
from vidcvae.data import bair, dataset_toml, images, packed, pose_folder, tfrecord, trajectories
from vidcvae.data.clips import Sequence, VideoData
from vidcvae.models import build_model
from vidcvae.models.loading import build_filled, load_model
from vidcvae.storage import checkpoint, course_import, history

Files = dict[str, bytes]
Break = Callable[[str, bytes, random.Random], bytes]
SIZE = (8, 16)


@dataclass(frozen=True)
class Reader:
    """files: a valid folder; harm: breaks the content of one of them; read: all that reading it can mean."""

    files: Callable[[], Files]
    read: Callable[[Path], None]
    harm: Break
    names: bool = False  # also break names and kinds of files
    only: str = ""  # break files of this suffix only


def words(text: str) -> tuple[bytes, ...]:
    return tuple(word.encode() for word in text.split(" "))


def plain(tokens: tuple[bytes, ...] = ()) -> Break:
    return lambda _, data, draw: mutate(data, draw, tokens)


# --- small valid files -----------------------------------------------------------------------------


def picture(seed: int, size: tuple[int, int] = SIZE) -> bytes:
    return images.encode_png(np.random.default_rng(seed).integers(0, 256, (3, *size), np.uint8))


def dance() -> VideoData:
    draw = np.random.default_rng(0)
    image = lambda n: draw.integers(0, 256, (n, 3, *SIZE), np.uint8)  # noqa: E731
    train = Sequence("0-2", image(3), {"pose": image(3)}, frozenset({0}))
    test = Sequence("0", image(1), {"pose": image(4)})
    return VideoData("made", "dance", 12.5, Path("made"), {"train": (train,), "test": (test,)})


def folder_files(root: Path) -> Files:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def through_folder(write: Callable[[Path], None]) -> Files:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "it")
        return folder_files(Path(folder) / "it")


@cache
def _pack() -> Files:
    return through_folder(lambda out: packed.write(dance(), out))


@cache
def _dance_folder() -> Files:
    return through_folder(lambda out: pose_folder.write_folder(dance(), out))


@cache
def _push_folder() -> Files:
    clip = "train/traj_0_to_9/0"
    rows = b"0.5,-1,2e-3,0\n" * 3
    return {
        **{f"{clip}/{n}.png": picture(n) for n in range(3)},
        f"{clip}/actions.csv": rows,
        f"{clip}/endeffector_positions.csv": b"1,2,3\n" * 3,
        "dataset.toml": b'name = "push"\nfps = 10.0\n',
    }


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def record(data: bytes) -> bytes:
    """A TFRecord with right checksums."""
    length = struct.pack("<Q", len(data))
    crc = lambda part: struct.pack("<I", tfrecord.masked_crc32c(part))  # noqa: E731
    return length + crc(length) + data + crc(data)


@cache
def _example() -> bytes:
    features = {}
    for i in range(2):
        for camera in bair.CAMERAS:
            features[f"{i}/image_{camera}/encoded"] = field(1, field(1, bytes(64 * 64 * 3)))
        features[f"{i}/action"] = field(2, field(1, struct.pack("<4f", 1, 2, 3, 4)))
        features[f"{i}/endeffector_pos"] = field(2, field(1, struct.pack("<3f", 1, 2, 3)))
    entries = (field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items())
    return field(1, b"".join(entries))


SMALL = {"frame_channels": 8, "pose_channels": 2, "latent_channels": 4, "decoder_channels": 8}
_COURSE_MODULES = {ours: theirs for theirs, ours in course_import._MODULES.items()}
_COURSE_BLOCKS = {ours: theirs for theirs, ours in course_import._BLOCKS.items()}


def small_config() -> settings.Config:
    return settings.resolve({"model": {"name": "pose-cvae", **SMALL}, "data": {"size": list(SIZE)}})


@cache
def small_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_model(small_config()).state_dict()


def course_weights() -> dict[str, torch.Tensor]:
    """``small_weights`` under the course's names."""
    renamed = {}
    for name, tensor in small_weights().items():
        module, *path, kind = name.split(".")
        path = [_COURSE_BLOCKS.get(part, part) for part in path]
        renamed[".".join([_COURSE_MODULES[module], *path, kind])] = tensor
    assert course_import.from_course_names(renamed).keys() == small_weights().keys()
    return renamed


def course_file(legacy: bool) -> bytes:
    buffer, weights = io.BytesIO(), course_weights()
    content = {"state_dict": weights, "optimizer": weights, "lr": 1e-3, "tfr": 0.0, "last_epoch": 3}
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@cache
def checkpoint_file() -> bytes:
    config = settings.to_table(small_config())
    meta = checkpoint.CheckpointMeta(version="1", config=config, step=3, epoch=1, scores={"psnr": 20.0})
    return checkpoint.to_bytes({f"model.{name}": tensor for name, tensor in small_weights().items()}, meta)


def sealed(header: dict[str, Any], data: bytes) -> bytes:
    """A checkpoint file with this header, its checksum made right: what somebody writes who means harm."""
    strings = header["__metadata__"]
    table = {n: (e.get("dtype"), e.get("shape")) for n, e in header.items() if n != "__metadata__"}
    strings["digest"] = checkpoint._digest(strings["vidcvae"], table)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def split_checkpoint(content: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def gif() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.open(io.BytesIO(picture(n))) for n in range(3)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=40)
    return buffer.getvalue()


# --- how each is broken ----------------------------------------------------------------------------


def _harm_json(_: str, data: bytes, draw: random.Random) -> bytes:
    return mutate_json(data, draw) if draw.random() < 0.7 else mutate(data, draw, words("{ } [ ] , : null -"))


def _harm_toml(_: str, data: bytes, draw: random.Random) -> bytes:
    return mutate_toml(data, draw) if draw.random() < 0.6 else mutate(data, draw, TOML_TOKENS)


def _harm_pack(name: str, data: bytes, draw: random.Random) -> bytes:
    return _harm_json(name, data, draw) if name.endswith(".json") else mutate(data, draw)


def _harm_png(_: str, data: bytes, draw: random.Random) -> bytes:
    tokens = words("IHDR IDAT IEND PLTE tRNS iCCP zTXt iTXt acTL fcTL fdAT eXIf gAMA pHYs")
    broken = mutate(data, draw, tokens)
    return mend_png(broken) if draw.random() < 0.7 else broken


def _harm_folder(name: str, data: bytes, draw: random.Random) -> bytes:
    return _harm_png(name, data, draw) if name.endswith(".png") else mutate(data, draw)


def _harm_record(_: str, data: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.5:
        return mutate(data, draw)
    # most of a clip is pixels: half of the mutants are broken in what stands around them
    message = _example()
    at = draw.choice([i for i in range(len(message) - 1) if message[i] or message[i + 1]])
    part = slice(at, min(at + draw.choice((4, 30, 200)), len(message)))
    return record(message[: part.start] + mutate(message[part], draw, words("encoded action /")) + message[part.stop :])


def _harm_course(_: str, data: bytes, draw: random.Random) -> bytes:
    if data[:2] != b"PK" or draw.random() < 0.3:
        return mutate(data[:20_000], draw) + data[20_000:]
    entries = unzipped(data)
    tokens = (*words("collections\nOrderedDict\n torch\nTensor\n R c 0 } ] ( . \x80\x02"), b"c__builtin__\nbytearray\n")
    name = next(name for name in entries if name.endswith(".pkl")) if draw.random() < 0.8 else draw.choice([*entries])
    return zipped(entries | {name: mutate(entries[name], draw, tokens)})


def _harm_checkpoint(_: str, data: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.3:
        return mutate(data, draw)
    header, tensors = split_checkpoint(data)
    strings = header["__metadata__"]
    if draw.random() < 0.5:
        meta = mutate_json(strings["vidcvae"].encode(), draw) if draw.random() < 0.8 else mutate(b"{}", draw)
        strings["vidcvae"] = meta.decode("latin-1")
        return sealed(header, tensors)
    table = mutate_json(json.dumps({k: v for k, v in header.items() if k != "__metadata__"}).encode(), draw)
    try:
        return sealed(json.loads(table) | {"__metadata__": strings}, tensors)
    except (AttributeError, TypeError):  # an entry that is no table has no checksum to make right
        return struct.pack("<Q", len(table)) + table + tensors


# --- how each is read ------------------------------------------------------------------------------


def _read_config(root: Path) -> None:
    settings.to_toml(settings.resolve_with_preset(None, [settings.read_toml(root / "vidcvae.toml")]))


def _read_override(root: Path) -> None:
    text = (root / "override.txt").read_bytes().decode("utf-8", "replace")
    settings.resolve_with_preset(None, [settings.read_override(text)])


def _read_pack(root: Path) -> None:
    data = packed.open_packed(root)
    for sequences in data.splits.values():
        for sequence in sequences:
            assert sequence.frames[-1].sum() >= 0 and sequence.condition_length >= 0
    packed.damage(root)
    packed.open_packed(root, verify=True)


def _read_pose_folder(root: Path) -> None:
    for problem in pose_folder.scan(root).listing.problems:
        str(problem)
    pose_folder.stream(root, SIZE).collect()


def _read_push_folder(root: Path) -> None:
    for error in trajectories.faults(root):
        str(error)
    trajectories.stream(root, SIZE).collect()


def _read_records(root: Path) -> None:
    problems: list[object] = []
    for clip, _ in bair.read_file(root / "x.tfrecords", on_problem=problems.append):
        assert clip.frames.shape[1:] == (3, 64, 64)
    for clip, _ in bair.read_file(root / "x.tfrecords", "aux1"):
        assert clip.frames.shape[1:] == (3, 64, 64)


def _read_course(root: Path) -> None:
    path = root / "course.ckpt"
    found = course_import.read_course_checkpoint(path)
    config = settings.with_values(small_config(), {"model": vars(found.model)})
    build_filled(config, found.weights, path)


def _read_checkpoint(root: Path) -> None:
    load_model(root / "x.safetensors")


def _read_gif(root: Path) -> None:
    from vidcvae.output import video

    video.read_poses(root / "poses.gif", SIZE)


def _read_keypoints(root: Path) -> None:
    from vidcvae.own_clips import keypoints

    path = next((path for path in root.iterdir() if path.is_file()), root / "k")
    keypoints.read_keypoints(path)


def _read_facts(root: Path) -> None:
    dataset_toml.to_toml(dataset_toml.read_facts(root))


def _read_table(root: Path) -> None:
    assert np.isfinite(trajectories.read_track(root / "actions.csv", 4)).all()


def _read_png(root: Path) -> None:
    assert images.read_image(root / "0.png", SIZE).shape == (3, *SIZE)


def _read_history(root: Path) -> None:
    assert all(isinstance(line, dict) for line in history.read_history(root / "history.jsonl"))


HISTORY = b'{"kind": "step", "step": 1, "total": 0.5}\n' * 3
FACTS = b'name = "x"\nfps = 25.0\n[train]\nstarts = [0, 629]\nunknown_poses = [0]\n'
CSV_TOKENS = (*words(', \n nan 1e39 1_0 " ; \t \r'), b"\xef\xbb\xbf", "\u0661".encode())
TOML_TOKENS = (
    *words('[ ] [[ { } = " \'\'\' """ # . , 1979-05-27 07:32:00 inf nan true 0b1 0o7'),
    *(b"\n[model]\n", b"a.a.a.a.", b'name = "svg-fp"\n'),
)


def _toml() -> bytes:
    return settings.to_toml(settings.resolve()).encode()


READERS: dict[str, Reader] = {
    "TOML configs": Reader(lambda: {"vidcvae.toml": _toml()}, _read_config, _harm_toml),
    "--set values": Reader(lambda: {"override.txt": b"lr_schedule.milestones = [2, 5]"}, _read_override, _harm_toml),
    "dataset.toml": Reader(lambda: {"dataset.toml": FACTS}, _read_facts, _harm_toml),
    "manifests": Reader(_pack, _read_pack, _harm_json, only=".json"),
    "packed files": Reader(_pack, _read_pack, _harm_pack, names=True),
    "TFRecords": Reader(lambda: {"x.tfrecords": record(_example())}, _read_records, _harm_record),
    "course checkpoints": Reader(lambda: {"course.ckpt": course_file(legacy=False)}, _read_course, _harm_course),
    "old course checkpoints": Reader(lambda: {"course.ckpt": course_file(legacy=True)}, _read_course, _harm_course),
    "checkpoints": Reader(lambda: {"x.safetensors": checkpoint_file()}, _read_checkpoint, _harm_checkpoint),
    "CSV tables": Reader(lambda: {"actions.csv": b"0.5,-1,2e-3,0\n" * 3}, _read_table, plain(CSV_TOKENS)),
    "pushing folders": Reader(_push_folder, _read_push_folder, _harm_folder, names=True),
    "dance folders": Reader(_dance_folder, _read_pose_folder, _harm_folder, names=True),
    "PNG files": Reader(lambda: {"0.png": picture(0)}, _read_png, _harm_png),
    "GIF poses": Reader(lambda: {"poses.gif": gif()}, _read_gif, plain()),
    "histories": Reader(lambda: {"history.jsonl": HISTORY}, _read_history, plain(words("{ } [ ] \n null"))),
    "keypoints (COCO)": Reader(keypoint_files.coco, _read_keypoints, _harm_json),
    "keypoints (OpenPose)": Reader(keypoint_files.openpose, _read_keypoints, _harm_json, names=True),
    "keypoints (MediaPipe JSON)": Reader(keypoint_files.mediapipe, _read_keypoints, _harm_json),
    "keypoints (MediaPipe CSV)": Reader(keypoint_files.mediapipe_csv, _read_keypoints, plain(CSV_TOKENS)),
    "keypoints (MediaPipe long CSV)": Reader(keypoint_files.mediapipe_long, _read_keypoints, plain(CSV_TOKENS)),
}
