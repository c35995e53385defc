"""Models: one file each, one contract (``interface``), selected by one ``match``."""

from __future__ import annotations

from vidcvae import config as settings
from vidcvae.models.interface import VideoModel


def build_model(config: settings.Config) -> VideoModel:
    """Build the model that a config describes, with new weights."""
    match config.model:
        case settings.PoseCvaeConfig():
            from vidcvae.models.pose_cvae import PoseCvae

            return PoseCvae(config.model)
        case settings.AnchorCvaeConfig():
            from vidcvae.models.anchor_cvae import AnchorCvae

            return AnchorCvae(config.model, config.data.frame_size if config.model.scene else None)
        case settings.SvgConfig():
            from vidcvae.models.svg import Svg

            return Svg(config.model, config.training.past)
