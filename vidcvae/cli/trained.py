"""What the commands on a trained model share: their options, the model, and the data it is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcvae.cli import choice, completion, ui
from vidcvae.config import schema
from vidcvae.errors import UsageError, an

if TYPE_CHECKING:
    from vidcvae.data.clips import VideoData
    from vidcvae.models.loading import Loaded


def runs_argument(help: str) -> Any:
    """A Typer argument that names runs, which the shell completes."""
    return typer.Argument(help=help, show_default=False, autocompletion=completion.runs)


Run = Annotated[
    Path | None,
    typer.Argument(
        help="Run folder or checkpoint file; the newest run if left out.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
Runs = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Run folders; the newest run if left out.",
        show_default=False,
        autocompletion=completion.runs,
    ),
]
Data = Annotated[
    str | None, typer.Option("--data", help="Dataset; the one of the run's training if left out.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise that z is drawn with.")]
Device = Annotated[schema.Device, choice.option(schema.Device, "--device", help="Where to compute.")]
PRECISION = "Arithmetic of the networks; auto: the faster on this machine, as measured."
Precision = Annotated[schema.Precision, choice.option(schema.Precision, "--precision", help=PRECISION)]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        help="Which split of the dataset: train, val (or validate) or test.",
        autocompletion=lambda: ["train", "val", "validate", "test"],
    ),
]
LATENT = "How z is chosen: the prior's mean is 0 unless it is learned; the posterior is shown the truth."
FUTURE = "Frames to make after the given ones."
FRAMES = "Length in frames, the given ones included"
BatchStats = Annotated[
    bool, typer.Option("--batch-stats", help="Normalise each image by its own statistics, as the course's code does.")
]


def check_file(path: Path) -> None:
    """Raise ``VidcvaeError``, before any work, if ``path`` cannot become a file."""
    from vidcvae.storage import durable

    if path.is_dir():
        raise UsageError(f"{path} is a folder, but -o names a file.", f"Such as {path / 'result'}.")
    durable.check_writable(path)


Weights = Annotated[
    schema.Weights,
    choice.option(
        schema.Weights, "--weights", help="As trained, their moving average, or auto: the average where there is one."
    ),
]


def check_new_folder(path: Path) -> None:
    """Raise ``VidcvaeError``, before any work, unless ``path`` can become a folder, or is an empty one."""
    from vidcvae.storage import durable

    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is not an empty folder.", "Choose a folder that is new or empty.")
    durable.check_writable(path)


def refuse_posterior(latent: str | None, why: str) -> None:
    """Raise ``UsageError`` where z cannot be drawn from the posterior, because nobody knows the truth."""
    if latent == "posterior":
        raise UsageError(
            f"--latent posterior is shown the true frames, and {why}.", "Choose zero, prior-mean or prior."
        )


def load(run: Path | None, device: schema.Device, batch_stats: bool, weights: schema.Weights) -> Loaded:
    """The model that RUN means, and a word on which it is where the user did not say."""
    from vidcvae.models.loading import load_model, pick_device

    loaded = load_model(run, device=pick_device(device), batch_stats=batch_stats, weights=weights)
    if batch_stats and not loaded.config.model.image_statistics:  # it would take no notice of it
        raise UsageError(
            f"--batch-stats is for the course's pose-cvae, and {loaded.path} is {an(loaded.config.model.name)}.",
            "Leave it out.",
        )
    if run is None:
        ui.note(f"no RUN given: using the newest, {loaded.path}")
    step = loaded.meta.get("step", 0)
    ui.detail(f"model: {loaded.config.model.name}, step {step} of {loaded.path}, {loaded.weights} weights")
    parameter = next(loaded.model.parameters())
    ui.detail(f"device: {parameter.device}, {str(parameter.dtype).removeprefix('torch.')}, {_threads()} threads")
    return loaded


def computing(loaded: Loaded, precision: schema.Precision, rows: int = 1) -> Loaded:
    """The same model, whose free runs of ``rows`` videos side by side compute in ``precision``."""
    import torch

    from vidcvae.models import arithmetic

    found = arithmetic.free_run(precision, loaded.model, loaded.config, rows)
    torch.set_num_threads(found.threads)
    ui.detail(found.told())
    return replace(loaded, dtype=found.dtype)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def data_of(loaded: Loaded) -> str:
    """Where the dataset is that the model was trained on."""
    from vidcvae.storage.run import find_data

    if not loaded.config.data.path:
        raise UsageError(f"{loaded.path} does not say on what data it was trained.", "Name a dataset: --data FOLDER")
    return find_data(loaded.run.path if loaded.run else loaded.path, loaded.run, loaded.config.data.path)


def open_data(loaded: Loaded, given: str | None, quiet: bool) -> VideoData:
    """The dataset ``given``, or the one that the model was trained on, at the model's frame size."""
    from vidcvae.workflow.datasets import open_dataset

    path = given or data_of(loaded)
    if given is None:
        ui.note(f"no --data given: using {path}, which the model was trained on")
    cache = loaded.run.cache if loaded.run else None
    ui.detail(f"data: {path}, decoded images are kept in {cache or 'memory'}")
    with ui.progress("reading the data", quiet) as advance:
        return open_dataset(path, loaded.config.data.size, cache, advance)
