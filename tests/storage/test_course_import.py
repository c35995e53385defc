"""The course's checkpoints: the same weights under our names, and never a line of code run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.security.readers import course_weights
from vidcvae.errors import DataError
from vidcvae.models.loading import import_course
from vidcvae.storage.course_import import from_course_names, read_course_checkpoint


@pytest.mark.golden
def test_the_course_s_weights_arrive_unchanged(shared: Path) -> None:
    found = read_course_checkpoint(shared / "golden" / "course_pose.ckpt")
    wanted = from_course_names(load_file(shared / "golden" / "pose_weights.safetensors"))
    assert found.weights.keys() == wanted.keys()
    assert all(torch.equal(found.weights[name], wanted[name]) for name in wanted)
    assert (found.model.frame_channels, found.model.pose_channels) == (128, 32)
    assert (found.model.latent_channels, found.model.decoder_channels) == (12, 192)
    assert found.epoch == 7


class Payload:
    """What a malicious checkpoint carries: loading it by pickle makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.ckpt"
    torch.save(
        {"state_dict": {"w": torch.zeros(1)}, "x": Payload(mark)}, path, _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(DataError, match=r"refused; nothing of it was run"):
        read_course_checkpoint(path)
    assert not mark.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(DataError, match=r"evil\.pkl"):
        read_course_checkpoint(path)
    assert not mark.exists()


def test_a_cut_checkpoint_is_named(tmp_path: Path, shared: Path) -> None:
    whole = (shared / "golden" / "course_pose.ckpt").read_bytes()
    path = tmp_path / "cut.ckpt"
    for size in (0, 10, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.ckpt"):
            read_course_checkpoint(path)


@pytest.mark.parametrize("text", ["mine\n", "it is a text, and a list of items: (i, o)\n", "cos\nsystem\n(S'ls'\ntR."])
def test_a_text_is_no_checkpoint_and_said_to_be_none(tmp_path: Path, text: str) -> None:
    """Bytes of a text are opcodes of pickles too, some of which would call something."""
    (tmp_path / "notes.txt").write_text(text)
    with pytest.raises(DataError, match=r"notes\.txt is not a PyTorch checkpoint\.\n") as error:
        read_course_checkpoint(tmp_path / "notes.txt")
    assert error.value.hint == "Give a file that the course's trainer saved."


def test_a_damaged_checkpoint_is_told_of_in_our_words(tmp_path: Path, shared: Path) -> None:
    whole = (shared / "golden" / "course_pose.ckpt").read_bytes()
    for content in (whole[: len(whole) // 2], pickle.dumps([1, 2, 3]), b"PK\3\4" + bytes(40)):
        (tmp_path / "cut.ckpt").write_bytes(content)
        with pytest.raises(DataError, match=r"cut\.ckpt cannot be read as a checkpoint: it is damaged or cut off\.\n"):
            read_course_checkpoint(tmp_path / "cut.ckpt")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"state_dict": {"encoder.weight": torch.zeros(2)}}, "another model: it has no module frame_transformation"),
        ({"state_dict": [1, 2]}, "no state_dict of tensors"),
        ([torch.zeros(2)], "no state_dict of tensors"),
        (
            {
                f"{m}.0.x": torch.zeros(1)
                for m in (
                    "frame_transformation",
                    "label_transformation",
                    "Gaussian_Predictor",
                    "Decoder_Fusion",
                    "Generator",
                )
            },
            "another model",
        ),
    ],
)
def test_other_contents_are_explained(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    with pytest.raises(DataError, match=says):
        read_course_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*nowhere\.ckpt"):
        read_course_checkpoint(tmp_path / "nowhere.ckpt")


def test_a_model_of_a_size_that_settings_do_not_allow_is_named(tmp_path: Path) -> None:
    weights = course_weights() | {"Decoder_Fusion.5.bias": torch.zeros(4)}
    torch.save({"state_dict": weights}, tmp_path / "small.ckpt")
    with pytest.raises(DataError, match=r"(?s)small\.ckpt cannot be imported: .*decoder_channels is 4"):
        import_course(tmp_path / "small.ckpt", tmp_path / "small.safetensors")
    assert not (tmp_path / "small.safetensors").exists()
