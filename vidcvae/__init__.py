"""Conditional variational autoencoders for video: train them, generate videos with them, and score them honestly.

The library offers what the command line does. Names are imported on first use, so that ``import vidcvae`` is fast.
"""

from importlib import import_module

TYPE_CHECKING = (
    False  # in place of typing.TYPE_CHECKING: importing typing is slow, and Ctrl-C is not quiet until ``__main__`` runs
)
if TYPE_CHECKING:
    from typing import Any

    from vidcvae.config import Config as Config
    from vidcvae.config import read_preset as read_preset
    from vidcvae.config import resolve as resolve
    from vidcvae.config import to_toml as to_toml
    from vidcvae.data.clips import Sequence as Sequence
    from vidcvae.data.clips import VideoData as VideoData
    from vidcvae.errors import VidcvaeError as VidcvaeError
    from vidcvae.evaluation.score import score_split as score_split
    from vidcvae.models import build_model as build_model
    from vidcvae.models.loading import load_model as load_model
    from vidcvae.models.rollout import rollout as rollout
    from vidcvae.workflow.datasets import open_dataset as open_dataset
    from vidcvae.workflow.library import resume as resume
    from vidcvae.workflow.library import train as train

__version__ = "0.1.0"

_API = {
    "Config": "vidcvae.config",
    "resolve": "vidcvae.config",
    "read_preset": "vidcvae.config",
    "to_toml": "vidcvae.config",
    "VidcvaeError": "vidcvae.errors",
    "open_dataset": "vidcvae.workflow.datasets",
    "Sequence": "vidcvae.data.clips",
    "VideoData": "vidcvae.data.clips",
    "build_model": "vidcvae.models",
    "rollout": "vidcvae.models.rollout",
    "load_model": "vidcvae.models.loading",
    "train": "vidcvae.workflow.library",
    "resume": "vidcvae.workflow.library",
    "score_split": "vidcvae.evaluation.score",
}

__all__ = ["__version__", *_API]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> "Any":
    if name not in _API:
        raise AttributeError(f"module 'vidcvae' has no attribute {name!r}")
    return getattr(import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
