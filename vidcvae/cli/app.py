"""The Typer app: its commands, one per file, and the exit codes of errors. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import errno
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
    help="Train conditional VAEs for video, generate videos with them, and score them honestly.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"vidcvae {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, command.option("Print the version and exit.", "--version", callback=_version, is_eager=True)
    ] = False,
    quiet: command.Quiet = False,
    verbose: command.Verbose = False,
) -> None:
    ui.speak("normal")
    ui.choose_loudness(quiet=quiet, verbose=verbose)


for function in (
    *(demo.demo, train.train, resume.resume, generate.generate, evaluate.evaluate, compare.compare, export.export),
    *(play.play, sweep.sweep, ablate.ablate, report.report, bench.bench, presets.presets, doctor.doctor),
):
    app.command()(function)
for name, group in {
    "dataset": dataset.app,
    "plot": plot.app,
    "checkpoint": checkpoint.app,
    "config": configuration.app,
    "runs": runs.app,
}.items():
    app.add_typer(group, name=name)
dataset.app.add_typer(clip_import.app, name="import")


def main() -> None:
    """Run the command line. Every failure that a user can meet ends in one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows cannot encode every letter
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # which background jobs set
        signal.signal(signal.SIGINT, _interrupt)
    try:
        app(prog_name="vidcvae")
    except Stopped as stop:  # by a signal, with everything saved
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
        if _interrupts:  # an interrupted import can end in any error
            _leave()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
            ui.fail("cannot write the output: the disk is full.", "Free some space, or write to another place.")
            sys.exit(DataError.exit_code)
        ui.fail(f"unexpected {type(error).__name__}: {error}", f"This is a bug in vidcvae. Details: {_log(error)}")
        sys.exit(EXIT_FAILURE)
    finally:
        signal.signal(signal.SIGINT, before)


_interrupts: list[int] = []


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    while frame:
        if "importlib" in frame.f_code.co_filename:  # PyTorch's import may abort, and others swallow the error
            _leave()
        frame = frame.f_back
    raise KeyboardInterrupt


def _leave() -> None:
    """Exit after Ctrl-C, without Python's own shutdown, in which a half-imported library may hang."""
    ui.fail("interrupted. No file is left half-written.")
    if _interrupts:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)
    sys.exit(EXIT_INTERRUPTED)


def _log(error: Exception) -> Path:
    """Write the traceback to a file for a bug report; the terminal shows only the sentence."""
    import tempfile
    import traceback

    from vidcvae.storage import durable

    text = f"vidcvae {__version__}, {' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}"
    for folder in (Path(typer.get_app_dir("vidcvae")), Path(tempfile.gettempdir())):
        with contextlib.suppress(DataError):
            durable.write_text(folder / "vidcvae-error.log", text)
            return folder / "vidcvae-error.log"
    return Path("(no place to write them)")
