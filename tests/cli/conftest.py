"""The command line as a user meets it: real arguments in, exit code and both outputs out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from vidcvae.__main__ import main
from vidcvae.data import pose_folder
from vidcvae.scenes import dancing


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """``cli("train", folder)`` runs the command in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["vidcvae", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        return Result(code, *capsys.readouterr())

    return run


TINY = (
    *("--size", "16x16", "--clip-length", 4, "--batch-size", 4, "--device", "cpu", "--plain"),
    *("--set", "model.frame_channels=8", "--set", "model.pose_channels=4", "--set", "model.latent_channels=4"),
    *("--set", "model.decoder_channels=8", "--set", "training.log_every=1"),
)


@pytest.fixture(scope="session")
def tiny_dance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic dance in the course's layout, 16x16: 40 training frames, 8 of validation, 1 test."""
    folder = tmp_path_factory.mktemp("data") / "dance"
    pose_folder.write_folder(dancing.dance(40, 8, 1, 0, (16, 16)), folder)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
