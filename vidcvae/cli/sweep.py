"""``vidcvae sweep``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import compare, configuration, trials, ui
from vidcvae.errors import UsageError

Dataset = Annotated[str, typer.Argument(help="Dataset folder, packed dataset, or synthetic:dance.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Train each with so many seeds, for error bars.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="How many train at the same time.")]
Into = Annotated[Path | None, typer.Option("--into", help="Folder of all runs.", show_default="under runs")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and do nothing.")]


def sweep(
    dataset: Dataset,
    vary: Annotated[
        list[str],
        typer.Option("--vary", metavar="SECTION.KEY=V1,V2,..", help="A setting and its values; may be repeated."),
    ],
    preset: configuration.Preset = None,
    config: configuration.File = None,
    set_: configuration.Set = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training clips, each run.")] = None,
    max_minutes: Annotated[float | None, typer.Option("--max-minutes", help="Time for the training, each run.")] = None,
    seeds: Seeds = 1,
    jobs: Jobs = 1,
    into: Into = None,
    dry_run: DryRun = False,
) -> None:
    """Train with every combination of some settings' values, and compare.

    The same command again goes on where it stopped: finished runs are skipped, interrupted ones taken up, missing ones
    started. A run that fails does not stop the others.
    """
    grid = [read_values(text) for text in vary]
    keys = [key for key, _ in grid]
    short = [key.rpartition(".")[2] for key in keys]
    titles = short if len(set(short)) == len(keys) else keys
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"--vary {key} is given twice.", f"List all its values in one: --vary {key}=V1,V2")
    if seeds > 1 and "training.seed" in keys:
        raise UsageError("--seeds and --vary training.seed both choose seeds.", "Leave one of them out.")
    settings = [*(set_ or [])]
    settings += [f"training.epochs={epochs}"] if epochs is not None else []
    settings += [f"training.max_minutes={max_minutes:g}"] if max_minutes is not None else []
    folder = into or Path("runs") / trials.folder_name("sweep-" + "-".join(titles))
    variants = []
    for combination in itertools.product(*(values for _, values in grid)):
        name = "_".join(f"{title}-{value}" for title, value in zip(titles, combination, strict=True))
        chosen = tuple(f"{key}={value}" for key, value in zip(keys, combination, strict=True))
        variants.append(trials.Variant(trials.folder_name(name), chosen))
    common = trials.Common(dataset, preset, config, tuple(settings))

    def tell(done: list[trials.Trial]) -> None:
        from vidcvae.evaluation.compare import table

        if done:
            compare.show(table(trials.score(done)))
        ui.say(f"{len(done)} of {len(variants) * seeds} runs are trained in {folder}")

    trials.carry_out(folder, common, variants, seeds=seeds, jobs=jobs, dry_run=dry_run, tell=tell)


def read_values(text: str) -> tuple[str, list[str]]:
    """``section.key=a,b`` as its key and values; commas in brackets or quotes belong to a value."""
    key, equals, rest = text.partition("=")
    values, depth, quote = [""], 0, ""
    for letter in rest:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += letter
    values = [value.strip() for value in values]
    if not equals or "." not in key or not all(values):
        raise UsageError(
            f"cannot read --vary {text!r}.", "Write --vary section.key=V1,V2, such as kl.type=none,cyclical"
        )
    return key.strip(), values
