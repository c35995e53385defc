"""Run the command line in this process, hundreds of times: exit code, both outputs, and the traceback of a fault."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from vidcvae.__main__ import main
from vidcvae.cli import app
from vidcvae.cli.training_view import Screen
from vidcvae.workflow import training, trials

_command_tree = functools.cache(typer.main.get_command)  # made anew each time, it takes a third of a short command
FAULT = "bug in vidcvae"  # what the command line says of an error that is nobody's but its own


class Result(NamedTuple):
    """fault: the traceback behind "This is a bug in vidcvae", or "" where there was none."""

    code: int
    out: str
    err: str
    fault: str


def vidcvae(*arguments: str, within: Path) -> Result:
    """``vidcvae ARGUMENTS`` typed in the folder ``within``."""
    out, err, faults = io.StringIO(), io.StringIO(), [""]

    def log(error: Exception) -> Path:  # in place of a file in the home folder
        faults.append("".join(traceback.format_exception(error)))
        return Path("log")

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(within):
        patch.setattr(sys, "argv", ["vidcvae", *arguments])
        patch.setattr(sys, "stdin", io.StringIO())  # there is nobody to ask
        patch.setattr(app, "_log", log)
        patch.setattr(typer.main, "get_command", _command_tree)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code = 0
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return Result(code, out.getvalue(), err.getvalue(), faults[-1])


def explained(result: Result) -> str:
    """What is wrong with a result whatever it was to be: a fault, a traceback, an unknown exit code; else ""."""
    if result.fault or FAULT in result.err:
        return f"a bug in vidcvae:\n{result.fault or result.err}"
    if "Traceback (most recent call last)" in result.err + result.out:
        return f"a traceback on the screen:\n{result.err}{result.out}"
    if result.code not in (0, 1, 2, 3, 4):
        return f"exit code {result.code}:\n{result.err}"
    if result.code and not result.err.strip():
        return f"exit code {result.code} without a word"
    return ""


def studies_in_this_process(patch: pytest.MonkeyPatch) -> None:
    """``sweep`` and ``ablate`` start processes, of which each takes seconds to import torch."""

    def run_all(planned: list[trials.Trial], jobs: int, **told: object) -> dict[trials.Trial, str]:
        for trial in planned:
            if not trials.is_finished(trial):
                screen = Screen.asked_for(plain=True, json=False)
                with contextlib.redirect_stdout(io.StringIO()):  # of a process of its own
                    prepared = training.prepare(trial.config, screen, path=trial.path)
                    training.start(prepared, screen, name="", path=trial.path)
        return {}

    patch.setattr(trials, "run_all", run_all)
