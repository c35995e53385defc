"""The Typer app: one command a file, errors to exit codes. Nothing here imports torch."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vidcvae import __version__
from vidcvae.cli import bench, checkpoint, dataset, demo, evaluate, export, generate, plot, train, ui
from vidcvae.errors import EXIT_INTERRUPTED, VidcvaeError

app = typer.Typer(
    name="vidcvae",
    help="Train conditional VAEs for video, roll them out, and score them honestly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vidcvae {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.add_typer(dataset.app, name="dataset")
app.command("train")(train.train)
app.command("resume")(train.resume)
app.command("generate")(generate.generate)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.add_typer(plot.app, name="plot")
app.add_typer(checkpoint.app, name="checkpoint")
app.command("bench")(bench.bench)


def main() -> None:
    """Run the command line; every failure a user can meet ends in one sentence and an exit code."""
    try:
        app(prog_name="vidcvae")
    except VidcvaeError as error:
        ui.fail(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        ui.fail("interrupted.")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, as in `vidcvae ... | head`
        sys.stderr.close()
        sys.exit(0)
