"""What the commands that use a trained model share: their options, and checks before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from vidcvae.cli import completion
from vidcvae.cli.command import argument, option
from vidcvae.config import schema
from vidcvae.errors import UsageError

FUTURE = "Frames to predict after the given ones."
FRAMES = "Length in frames, including the given ones"
LATENT = (
    "How z is chosen. The posterior sees the true frames. The prior's mean differs from zero only if the prior is "
    "learned. One of"
)
PRECISION = "Arithmetic of the networks; auto: the faster one on this machine, as measured."


def runs_argument(help: str) -> Any:
    """A Typer argument that names runs, which the shell completes."""
    return argument(help, autocompletion=completion.runs)


Run = Annotated[Path | None, runs_argument("Run folder or checkpoint file; the newest run if left out.")]
Runs = Annotated[list[Path] | None, runs_argument("Run folders; the newest run if left out.")]
Data = Annotated[str | None, option("Dataset; the one that the run was trained on if left out.", show_default=False)]
Split = Annotated[
    str,
    option(
        "Which split of the dataset: train, val (or validate) or test.",
        autocompletion=lambda: ["train", "val", "validate", "test"],
    ),
]
Latent = Annotated[schema.Latent, option(LATENT)]
Seed = Annotated[int, option("Seed of the noise that z is drawn with.", min=0)]
Device = Annotated[schema.Device, option("Where to compute.")]
BatchStats = Annotated[bool, option("Normalise each image by its own statistics, as the course's code does.")]
Weights = Annotated[
    schema.Weights,
    option("Which weights. raw: as trained; ema: their moving average; auto: the average if there is one."),
]
Precision = Annotated[schema.Precision, option(PRECISION)]


def check_file(path: Path, suffix: str = "") -> None:
    """Raise ``VidcvaeError``, before any work, if ``path`` cannot be written as a file or has the wrong suffix."""
    from vidcvae.storage import durable

    if suffix and path.suffix.lower() not in ("", suffix):
        raise UsageError(f"{path} does not end in {suffix}.", f"Name it {path.with_suffix(suffix)}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a file.", f"Name a file, for example {path / 'result'}{suffix}")
    durable.check_writable(path)


def check_new_folder(path: Path) -> None:
    """Raise ``VidcvaeError``, before any work, unless ``path`` is an empty folder or can be made."""
    from vidcvae.storage import durable

    durable.must_be_new(path)
    durable.check_writable(path)


def refuse_posterior(latent: str | None, why: str) -> None:
    """Raise ``UsageError`` if z is to come from the posterior, which needs true frames that the command has not."""
    if latent == "posterior":
        raise UsageError(f"--latent posterior needs the true frames, and {why}.", "Choose zero, prior-mean or prior.")
