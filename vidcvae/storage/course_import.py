"""Checkpoints of the course's own trainer: ``torch.save`` of state_dict, optimizer, lr, tfr, last_epoch.

They are read with ``weights_only=True``: tensors and plain containers, never code. Their "optimizer" is a copy of the
model's weights, so training cannot be resumed from them, only continued with a fresh optimizer.

``weights_only`` keeps out code, but not bombs such as ``bytearray(2**40)`` or a storage deflated a thousandfold. The
file is therefore scanned first, and refused if it holds anything that no trainer saves.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from vidcvae import reading
from vidcvae.config import PoseCvaeConfig
from vidcvae.errors import DataError

_MODULES = {
    "frame_transformation": "frame_encoder",
    "label_transformation": "pose_encoder",
    "Gaussian_Predictor": "gaussian_predictor",
    "Decoder_Fusion": "fusion",
    "Generator": "generator",
}
_BLOCKS = {
    "block.0.conv1.0": "pointwise1",
    "block.0.depth_conv": "depthwise",
    "block.0.conv2": "pointwise2",
    "block.0.adaptor": "skip",
    "block.1.conv": "expand",
    "block.1.conv_out": "contract",
}


_SAFE_TORCH = (2, 6)  # earlier versions let code through (CVE-2025-32434)
_SAFE_GLOBALS = re.compile(
    r"collections OrderedDict|torch (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)|torch\.nn\.parameter Parameter|torch Size"
)
_CODE = (
    "holds more than weights (loading it would run code), so it is refused; nothing of it was run.",
    "Save it again from the course's code: torch.save({'state_dict': model.state_dict()}, PATH)",
)
_EXPECTED = "Give a file that the course's trainer saved."


class _Refused(Exception):
    """Why a scanned file must not be loaded; the text completes the sentence "PATH ..."."""


@dataclass(frozen=True)
class CourseCheckpoint:
    """Weights under our names, the model's dimensions read from them, and the number of epochs trained."""

    weights: dict[str, Tensor]
    model: PoseCvaeConfig
    epoch: int


def from_course_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names: ``Generator.0.block.1.conv.bias`` -> ``generator.0.expand.bias``."""
    renamed = {}
    for name, tensor in weights.items():
        module, _, rest = name.partition(".")
        index, _, inner = rest.partition(".")
        block, _, kind = inner.rpartition(".")
        parts = [_MODULES.get(module, module), index, _BLOCKS.get(block, block), kind]
        renamed[".".join(part for part in parts if part)] = tensor
    return renamed


def read_course_checkpoint(path: Path) -> CourseCheckpoint:
    """Read a course checkpoint; raises ``DataError`` if it is damaged, holds code, or is something else."""
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_TORCH:
        raise DataError(
            f"{path} cannot be read safely by PyTorch {torch.__version__}, which may run code in it.",
            "Install PyTorch 2.6 or newer: pip install -U torch",
        )
    try:
        with reading.open_file(path) as file:
            _refuse_bombs(file)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or 'it is damaged'}.") from None
    except pickle.UnpicklingError:
        raise DataError(f"{path} {_CODE[0]}", _CODE[1]) from None
    except _Refused as error:
        raise DataError(f"{path} {error}.", _EXPECTED) from None
    except Exception:  # for a damaged file, torch.load raises many kinds of errors
        raise DataError(
            f"{path} cannot be read as a checkpoint: it is damaged or cut off.", "Is the file complete?"
        ) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(_is_plain(t) for t in state.values()):
        raise DataError(f"{path} has no state_dict of tensors.", _EXPECTED)
    if missing := [name for name in _MODULES if not any(str(key).startswith(f"{name}.") for key in state)]:
        raise DataError(
            f"{path} is a checkpoint of another model: it has no module {missing[0]}.",
            "Only the course's five-module model can be imported.",
        )
    weights = from_course_names(
        {str(name): tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    )
    try:
        model = PoseCvaeConfig(
            frame_channels=len(weights["frame_encoder.6.bias"]),
            pose_channels=len(weights["pose_encoder.4.conv2.bias"]),
            latent_channels=len(weights["gaussian_predictor.6.bias"]) // 2,
            decoder_channels=len(weights["fusion.5.bias"]),
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} is a checkpoint of another model: {reading.label(str(error)[:200])} is missing."
        ) from None
    epoch = content.get("last_epoch")
    return CourseCheckpoint(weights, model, epoch if type(epoch) is int and 0 <= epoch < 2**31 else 0)


def _is_plain(tensor: object) -> bool:
    """Whether it is an ordinary dense CPU tensor whose storage is large enough for all of its elements."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return False
    assert isinstance(tensor, Tensor)
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_complex()
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _refuse_bombs(file: BinaryIO) -> None:
    """Raise ``UnpicklingError`` if loading could call anything that weights do not need.

    Raise ``_Refused`` if the file inflates when read, or is neither a ZIP archive nor a series of pickles.
    """
    head = file.read(4)
    if head == b"PK\3\4":
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            size = file.seek(0, io.SEEK_END)
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            if not stored or sum(entry.file_size for entry in entries) > size or len({*names}) < len(names):
                raise _Refused("cannot be read as a checkpoint: its archive is not one that torch.save writes")
            pickles = [archive.read(entry) for entry in entries if entry.filename.endswith(".pkl")]
        for data in pickles:
            _check_globals(io.BytesIO(data))
    elif head[:1] != pickle.PROTO:
        raise _Refused("is not a PyTorch checkpoint")
    else:  # before PyTorch 1.6: a magic number, a version, the system, the data, and a list of storages; all pickles
        file.seek(0)
        for _ in range(5):
            _check_globals(file)


def _check_globals(pickled: BinaryIO) -> None:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and _SAFE_GLOBALS.fullmatch(str(argument)):
            continue
        if opcode.name in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            raise pickle.UnpicklingError(argument)
