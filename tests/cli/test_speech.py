"""How the program speaks: loud or quiet, on narrow terminals and in pipes, and when it is cut short."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidcvae import errors
from vidcvae.cli import ui
from vidcvae.workflow import doctor

from .conftest import TINY, Cli

PROGRAM = [sys.executable, "-m", "vidcvae"]


@pytest.fixture(autouse=True)
def normal_voice() -> Iterator[None]:
    yield
    ui.speak("normal")


@pytest.mark.usefixtures("workplace")
def test_quiet_says_results_only_and_verbose_what_was_decided(cli: Cli, tiny_dance: Path) -> None:
    arguments = (tiny_dance, *TINY, "--epochs", 1)
    quiet = cli("--quiet", "train", *arguments, "--set", "kl.type=none")
    assert quiet.code == 0 and "trained 10 steps" not in quiet.err
    assert all(line.startswith("warning: ") for line in quiet.err.splitlines()), quiet.err
    assert quiet.out.startswith("trained ") and len(quiet.out.splitlines()) == 1
    assert "warning: beta never reaches" in cli("-q", "train", *arguments, "--set", "kl.cycles=1").err
    normal = cli("train", *arguments)
    assert "Next: " in normal.err and "device: cpu" not in normal.err
    verbose = cli("-v", "train", *arguments)
    assert "device: cpu" in verbose.err and "runs/.cache" in verbose.err and "thread" in verbose.err
    told = cli("-v", "evaluate").err
    assert "step " in told and "raw weights" in told and "device: cpu" in told
    assert cli("-q", "evaluate").err == ""
    assert cli("-q", "-v", "runs", "list").code == 2


def test_errors_are_said_however_quiet(cli: Cli) -> None:
    done = cli("--quiet", "evaluate", "nowhere")
    assert done.code == 4 and done.err.startswith("error: there is no run nowhere")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("trian",), "'train'"),
        (("dataset", "inspct"), "'inspect'"),
        (("runs", "lst"), "'list'"),
        (("train", "--epoch", "3"), "--epochs"),
        (("config", "show", "--preset", "corse"), "'course'"),
        (("config", "show", "--set", "model.name=pose-cave"), "'pose-cvae'"),
    ],
)
def test_a_slip_of_the_finger_is_answered_with_what_was_meant(cli: Cli, typed: tuple[str, ...], meant: str) -> None:
    done = cli(*typed)
    assert done.code == 2 and meant in done.err


@pytest.mark.parametrize(
    ("typed", "says", "then"),
    [
        ("trian", "there is no command 'trian'. Did you mean 'train'?", "vidcvae --help"),
        ("runs lst", "there is no command 'lst'. Did you mean 'list'?", "vidcvae runs --help"),
        ("--fersion", "there is no option --fersion. Did you mean '--version'?", "vidcvae --help"),
        ("train x --eppochs 3", "there is no option --eppochs. Did you mean '--epochs'?", "vidcvae train --help"),
        ("train x --foo", "there is no option --foo.", "vidcvae train --help"),
        ("train x --epochs", "--epochs needs a value: --epochs N.", "--epochs 10"),
        ("train x --device", "--device needs a value: --device auto|cpu|cuda.", "vidcvae train --help"),
        ("train x --plain=yes", "--plain takes no value.", "--plain"),
        ("compare", "RUN is missing.", "vidcvae compare runs/course-001 runs/anchor-001"),
        ("sweep x", "--vary is missing.", "vidcvae sweep my-dance --vary kl.type=none,cyclical"),
        ("export -o dance.gif", "dance.gif does not end in .csv.", "dance.csv"),
        ("evaluate -o dance.gif", "dance.gif does not end in .json.", "dance.json"),
        ("compare x --csv x.json", "x.json does not end in .csv.", "x.csv"),
        ("config check .", "cannot read .: Is a directory.", "vidcvae config init"),
    ],
)
@pytest.mark.usefixtures("workplace")
def test_what_is_typed_wrongly_is_one_sentence_and_what_to_type(cli: Cli, typed: str, says: str, then: str) -> None:
    done = cli(*typed.split())
    sentence, hint = done.err.splitlines()
    assert (done.code, sentence) == (2, f"error: {says}")
    assert hint.startswith("  ") and hint.endswith(f" {then}")


@pytest.mark.usefixtures("workplace")
def test_a_dataset_that_is_nearly_named_or_a_part_of_one_is_answered_with_its_name(cli: Cli, tiny_dance: Path) -> None:
    shutil.copytree(tiny_dance, "small")
    shutil.copytree(tiny_dance / "train", "smallish/not-a-dataset")
    assert "Did you mean 'small'?" in cli("train", "smal").err
    done = cli("train", "small/train")
    assert done.code == 4 and "small/train is part of the dataset small" in done.err


@pytest.mark.parametrize(
    ("name", "phrase"),
    [("pose-cvae", "a pose-cvae"), ("anchor-cvae", "an anchor-cvae"), ("svg-lp", "an svg-lp")],
)
def test_names_have_their_article(name: str, phrase: str) -> None:
    assert errors.an(name) == phrase


def test_one_is_no_plural() -> None:
    assert [errors.counted(n, "epoch") for n in (0, 1, 2, 1200)] == ["0 epochs", "1 epoch", "2 epochs", "1,200 epochs"]


@pytest.mark.usefixtures("workplace")
def test_a_training_that_was_stopped_and_saved_is_no_error(cli: Cli, tiny_dance: Path) -> None:
    child = subprocess.Popen(
        [*PROGRAM, "train", str(tiny_dance), *map(str, TINY), "--epochs", "100000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr
    said = ""
    while "step " not in said and (line := child.stderr.readline()):
        said += line
    child.terminate()
    said += child.stderr.read()
    assert child.wait() == 143, said
    assert "everything is saved" in said and "vidcvae resume" in said and "error" not in said


def test_an_unexpected_error_is_one_sentence_and_its_traceback_in_a_file(
    cli: Cli, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setenv("XDG_CONFIG_HOME", str(workplace / "home"))
    monkeypatch.setattr(doctor, "examine", fail)
    done = cli("doctor")
    assert done.code == 1 and "unexpected ZeroDivisionError: by zero" in done.err and "Traceback" not in done.err
    (log,) = workplace.rglob("vidcvae-error.log")
    assert str(log) in done.err.replace("\n", "") and "in fail" in log.read_text()


# --- terminals and pipes -----------------------------------------------------------------------------


def test_tables_suit_their_place(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    name = "runs/" + "a-long-name-" * 9
    rows = [(name, 1.5, "pose-cvae")]
    monkeypatch.delenv("COLUMNS", raising=False)
    ui.table("", ("run", "score", "model"), rows)
    assert name in capsys.readouterr().out  # in a pipe a row is a line
    monkeypatch.setenv("COLUMNS", "40")
    ui.table("title", ("run", "score", "model"), [("runs/x", 1.5, "m"), ("runs/y", 2.5, "m" * 40)])
    narrow = capsys.readouterr().out.splitlines()
    assert narrow[:5] == ["title", "run    runs/x", "score  1.5", "model  m", ""]
    ui.table("", ("run", "score"), [("runs/x", 1.5)])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


@pytest.mark.parametrize(
    "command", [("config", "explain", "kl"), ("runs", "--help"), ("config", "show", "--preset", "no")]
)
def test_pipes_and_no_color_get_no_colours(command: tuple[str, ...], workplace: Path) -> None:
    done = subprocess.run([*PROGRAM, *command], capture_output=True, check=False, cwd=workplace, timeout=60)
    assert b"\x1b" not in done.stdout + done.stderr
    on_a_terminal = ["script", "-qec", " ".join([*PROGRAM, *command]), "/dev/null"]
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    shown = subprocess.run(on_a_terminal, capture_output=True, check=False, cwd=workplace, env=environment, timeout=60)
    colours = [f"\x1b[{n}m".encode() for n in (*range(30, 38), *range(90, 98))]
    assert shown.stdout and not [colour for colour in colours if colour in shown.stdout]


@pytest.mark.parametrize("command", ["config explain", "doctor --json", "runs --help"])
def test_a_reader_that_leaves_is_no_disaster(command: str, workplace: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, *command.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=workplace
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) in (0, 1)


# --- Ctrl-C ------------------------------------------------------------------------------------------


SLOW_IMPORT = """
import time
print("importing", flush=True)
try:
    time.sleep(60)
except BaseException:
    raise RuntimeError("as libraries make of it") from None
"""


@pytest.mark.parametrize(
    ("module", "says"), [("typer", ""), ("torch", "error: interrupted. No file is left half-written.\n")]
)
@pytest.mark.parametrize("start", [["-m", "vidcvae"], ["-c", "from vidcvae.__main__ import main; main()"]])
def test_ctrl_c_in_the_middle_of_an_import(start: list[str], module: str, says: str, workplace: Path) -> None:
    """Of the program itself, which is quiet, and of what a command needs."""
    (workplace / f"{module}.py").write_text(SLOW_IMPORT)
    command = [sys.executable, *start, "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=workplace) as process:
        assert process.stdout and process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", says)


def test_ctrl_c_is_ignored_where_it_was_before_the_start(workplace: Path) -> None:
    """As in a job in the background, of a shell that is asked to stop."""
    (workplace / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nos._exit(7)\n")
    command = f"trap '' INT; exec '{sys.executable}' -m vidcvae"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=60, cwd=workplace).returncode == 7


def interrupted(arguments: list[str], seconds: float, place: Path) -> tuple[int, str]:
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize(
    "command",
    [
        "dataset synth dance big --frames 200000",
        "demo demo --max-minutes 5 --plain",
    ],
)
def test_ctrl_c_ends_long_work_with_one_sentence(command: str, workplace: Path) -> None:
    code, err = interrupted(command.split(), 4, workplace)
    assert code == 130, err
    assert "interrupted" in err.splitlines()[-1] or "interrupted" in err.splitlines()[-2]
    assert "Traceback" not in err
