"""What the commands on a trained model share: their options, and checks before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vidcvae.cli import choice, command, completion
from vidcvae.config import schema
from vidcvae.errors import UsageError

FUTURE = "Frames to make after the given ones."
FRAMES = "Length in frames, the given ones included"
LATENT = (
    "How z is chosen. The posterior sees the true frames. The prior's mean differs from zero only if the prior is "
    "learned. One of"
)
PRECISION = "Arithmetic of the networks; auto: the faster on this machine, as measured."


def runs_argument(help: str) -> Any:
    """A Typer argument that names runs, which the shell completes."""
    return typer.Argument(help=help, show_default=False, autocompletion=completion.runs)


def output(what: str, **settings: Any) -> Any:
    """A Typer option for the file that a command writes."""
    return typer.Option("-o", "--output", help=f"{what} {command.REPLACED}", **settings)


Run = Annotated[Path | None, runs_argument("Run folder or checkpoint file; the newest run if left out.")]
Runs = Annotated[list[Path] | None, runs_argument("Run folders; the newest run if left out.")]
Data = Annotated[
    str | None, typer.Option("--data", help="Dataset; the one of the run's training if left out.", show_default=False)
]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        help="Which split of the dataset: train, val (or validate) or test.",
        autocompletion=lambda: ["train", "val", "validate", "test"],
    ),
]
Latent = Annotated[schema.Latent, choice.option(schema.Latent, "--latent", help=LATENT)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise that z is drawn with.")]
Device = Annotated[schema.Device, choice.option(schema.Device, "--device", help="Where to compute.")]
BatchStats = Annotated[
    bool, typer.Option("--batch-stats", help="Normalise each image by its own statistics, as the course's code does.")
]
Weights = Annotated[
    schema.Weights,
    choice.option(
        schema.Weights,
        "--weights",
        help="Which weights. raw: as trained; ema: their moving average; auto: the average if there is one.",
    ),
]
Precision = Annotated[schema.Precision, choice.option(schema.Precision, "--precision", help=PRECISION)]


def check_file(path: Path, form: str = "") -> None:
    """Raise ``VidcvaeError``, before any work, if ``path`` cannot become a file, or has the name of another form."""
    from vidcvae.storage import durable

    if form and path.suffix.lower() not in ("", form):
        raise UsageError(f"{path} is no name in {form}.", f"Name it {path.with_suffix(form)}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder, but -o names a file.", f"Such as {path / 'result'}.")
    durable.check_writable(path)


def check_new_folder(path: Path) -> None:
    """Raise ``VidcvaeError``, before any work, unless ``path`` can become a folder, or is an empty one."""
    from vidcvae.storage import durable

    durable.must_be_new(path)
    durable.check_writable(path)


def refuse_posterior(latent: str | None, why: str) -> None:
    """Raise ``UsageError`` where z cannot be drawn from the posterior, because nobody knows the truth."""
    if latent == "posterior":
        raise UsageError(
            f"--latent posterior is shown the true frames, and {why}.", "Choose zero, prior-mean or prior."
        )
