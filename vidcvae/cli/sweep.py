"""``vidcvae sweep``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import choice, command, configuration, trials, ui
from vidcvae.config import schema
from vidcvae.errors import UsageError

Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Train each with so many seeds, for error bars.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="How many train at the same time.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="The folder of all runs: new, empty, or of the same command, which then goes on.",
        show_default="under runs",
    ),
    command.Also("--into"),
]
Device = Annotated[
    schema.Device | None,
    choice.option(
        schema.Device, "--device", help="Where to compute.", show_default=configuration.usual("training.device")
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        help="Seed of everything random; of the first of --seeds.",
        show_default=configuration.usual("training.seed"),
    ),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        "--max-minutes",
        help="End each training after this many minutes in total.",
        show_default=configuration.usual("training.max_minutes"),
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and do nothing.")]


def sweep(
    dataset: command.Dataset,
    vary: Annotated[
        list[str],
        typer.Option("--vary", metavar="SECTION.KEY=V1,V2,..", help="A setting and its values; may be repeated."),
    ],
    preset: configuration.Preset = None,
    config: configuration.File = None,
    set_: configuration.Set = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            help="Passes over the training clips, each run.",
            show_default=configuration.usual("training.epochs"),
        ),
    ] = None,
    max_minutes: MaxMinutes = None,
    seeds: Seeds = 1,
    jobs: Jobs = 1,
    output: Output = None,
    device: Device = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    json: command.Json = False,
) -> None:
    """Train with every combination of some settings' values, and compare.

    The same command again goes on where it stopped: finished runs are skipped, interrupted ones taken up, missing ones
    started. A run that fails does not stop the others.

    Examples:
      vidcvae sweep my-dance --vary kl.type=none,cyclical
      vidcvae sweep my-dance --preset course --vary optimizer.lr=1e-3,1e-4 --seeds 3 -o runs/lr
    """
    grid = [read_values(text) for text in vary]
    keys = [key for key, _ in grid]
    short = [key.rpartition(".")[2] for key in keys]
    titles = short if len(set(short)) == len(keys) else keys
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"--vary {key} is given twice.", f"List all its values in one: --vary {key}=V1,V2")
    if (seeds > 1 or seed is not None) and "training.seed" in keys:
        raise UsageError(
            f"{'--seeds' if seeds > 1 else '--seed'} and --vary training.seed both choose seeds.",
            "Leave one of them out.",
        )
    settings = [*(set_ or []), *computing(device, seed)]
    settings += [f"training.epochs={epochs}"] if epochs is not None else []
    settings += [f"training.max_minutes={max_minutes:g}"] if max_minutes is not None else []
    folder = output or Path("runs") / trials.folder_name("sweep-" + "-".join(titles))
    variants = []
    for combination in itertools.product(*(values for _, values in grid)):
        name = "_".join(f"{title}-{value}" for title, value in zip(titles, combination, strict=True))
        chosen = tuple(f"{key}={value}" for key, value in zip(keys, combination, strict=True))
        variants.append(trials.Variant(trials.folder_name(name), chosen))
    common = trials.Common(dataset, preset, config, tuple(settings))

    def tell(done: list[trials.Trial]) -> None:
        from vidcvae.evaluation.compare import table

        rows = table(trials.score(done, quiet=json)) if done else []
        if json:
            counts = {"trained": len(done), "planned": len(variants) * seeds}
            ui.emit({"output": str(folder), **counts, "rows": [row.to_json() for row in rows]})
            return
        if rows:
            ui.score_table(rows)
        ui.say(f"{len(done)} of {len(variants) * seeds} runs are trained in {folder}")

    trials.carry_out(folder, common, variants, seeds=seeds, jobs=jobs, dry_run=dry_run, tell=tell, json=json)


def computing(device: schema.Device | None, seed: int | None) -> list[str]:
    """--device and --seed as settings."""
    found = [f"training.device={device}"] if device else []
    return found + ([f"training.seed={seed}"] if seed is not None else [])


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
