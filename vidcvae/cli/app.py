"""The Typer app: one command a file, errors to exit codes. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from vidcvae import __version__
from vidcvae.cli import (
    ablate,
    bench,
    checkpoint,
    clip_import,
    command,
    compare,
    configuration,
    dataset,
    demo,
    doctor,
    evaluate,
    export,
    generate,
    play,
    plot,
    presets,
    report,
    resume,
    runs,
    sweep,
    train,
    ui,
)
from vidcvae.errors import EXIT_FAILURE, EXIT_INTERRUPTED, DataError, Stopped, VidcvaeError

app = command.App(
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
    quiet: command.Quiet = False,
    verbose: command.Verbose = False,
) -> None:
    ui.speak("normal")
    ui.choose_loudness(quiet=quiet, verbose=verbose)


app.command("demo")(demo.demo)
app.add_typer(dataset.app, name="dataset")
dataset.app.add_typer(clip_import.app, name="import")
app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("generate")(generate.generate)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("play")(play.play)
app.add_typer(plot.app, name="plot")
app.command("sweep")(sweep.sweep)
app.command("ablate")(ablate.ablate)
app.command("report")(report.report)
app.add_typer(checkpoint.app, name="checkpoint")
app.command("bench")(bench.bench)
app.add_typer(configuration.app, name="config")
app.command("presets")(presets.presets)
app.add_typer(runs.app, name="runs")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; every failure a user can meet ends in one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):  # in a pipe on Windows, 256 letters are known, and others would be an error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as it is in background jobs
        signal.signal(signal.SIGINT, _interrupt)
    try:
        app(prog_name="vidcvae")
    except Stopped as stop:  # as it was asked to, with everything saved
        ui.end(stop.message, stop.hint)
        sys.exit(stop.exit_code)
    except VidcvaeError as error:
        ui.fail(error.message, error.hint)
        sys.exit(error.exit_code)
    except SystemExit as leaving:
        # Typer turns Ctrl-C into an exit
        if isinstance(getattr(leaving.__context__, "__cause__", None), KeyboardInterrupt):
            _leave()
        raise
    except KeyboardInterrupt:  # before Typer was ready for it
        _leave()
    except Exception as error:
        if _interrupts:  # an import that was cut short can end in any error
            _leave()
        ui.fail(f"unexpected {type(error).__name__}: {error}", f"This is a fault of vidcvae. Details: {_log(error)}")
        sys.exit(EXIT_FAILURE)
    finally:
        signal.signal(signal.SIGINT, before)


_interrupts: list[int] = []


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    while frame:
        if "importlib" in frame.f_code.co_filename:  # cut short, PyTorch's import may abort, and others swallow it
            _leave()
        frame = frame.f_back
    raise KeyboardInterrupt


def _leave() -> None:
    """After Ctrl-C: a library whose import was cut short may hang in Python's own ending."""
    ui.fail("interrupted; every file that was written is whole.")
    if _interrupts:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)
    sys.exit(EXIT_INTERRUPTED)


def _log(error: Exception) -> Path:
    """Write the traceback where it can be found, for a report; users are shown the sentence only."""
    import tempfile
    import traceback

    from vidcvae.storage import durable

    text = f"vidcvae {__version__}, {' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}"
    for folder in (Path(typer.get_app_dir("vidcvae")), Path(tempfile.gettempdir())):
        with contextlib.suppress(DataError):
            durable.write_text(folder / "vidcvae-error.log", text)
            return folder / "vidcvae-error.log"
    return Path("(nowhere could be written)")
