"""Completion, as the shells ask for it: installed by the program itself, and answered on a press of the tab key."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vidcvae import config as settings
from vidcvae.cli import completion
from vidcvae.config import describe

SCRIPTS = Path(__file__).parents[2] / "completions"
BIN = Path(sys.executable).parent


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("course-001", "course-002", "sweep-type/kl-none"):
        folder = tmp_path / "runs" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.toml").touch()
    (tmp_path / "runs/course-001/checkpoints/best.safetensors").touch()
    (tmp_path / "runs/course-001/checkpoints/last.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- what is offered ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("place")
def test_runs_are_offered_by_name_by_path_and_down_to_their_checkpoints() -> None:
    assert completion.runs("cour") == ["course-001", "course-002"]
    assert completion.runs("sw") == ["sweep-type/kl-none"]
    assert completion.runs("runs/c") == ["runs/course-001", "runs/course-002"]
    inside = "runs/course-001/checkpoints"
    assert completion.runs("runs/course-001/") == [f"{inside}/best.safetensors", f"{inside}/last.safetensors"]
    assert completion.runs("elsewhere/") == []


def test_every_setting_that_is_offered_is_accepted() -> None:
    offered = completion.overrides("")
    assert {text.partition("=")[0] for text in offered} == set(describe.known())
    for text in offered:
        model = next(
            name for name, cls in settings.MODELS.items()
            if not text.startswith("model.") or text.partition("=")[0][6:] in cls.__dataclass_fields__
        )  # fmt: skip
        if text.startswith("model.name") or "batch_norm" in text:
            continue
        settings.resolve_with_preset(None, [{"model": {"name": model}}, settings.read_override(text)])
    assert completion.overrides("kl.ty") == ["kl.type=cyclical", "kl.type=monotonic", "kl.type=none"]
    assert "kl.ratio" in completion.keys("kl.") and completion.presets("course") == ["course", "course-best"]


def test_answers_come_without_torch(place: Path) -> None:
    code = (
        "import os, sys\nos.environ.update(_VIDCVAE_COMPLETE='complete_bash', COMP_CWORD='2')\n"
        "os.environ['COMP_WORDS'] = 'vidcvae\\nevaluate\\ncour'\nsys.argv = ['vidcvae']\n"
        "from vidcvae.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["course-001", "course-002"]


# --- in real shells ----------------------------------------------------------------------------------


class Shell:
    """An interactive shell on a terminal of its own, in ``place``, with an empty home."""

    def __init__(self, place: Path, *command: str) -> None:
        home = place / "home"
        home.mkdir(exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if key in ("LANG", "OMP_NUM_THREADS")}
        environment = {
            **kept, "HOME": str(home), "PATH": f"{BIN}:/usr/bin:/bin", "TERM": "dumb", "COLUMNS": "200", "PS1": "% ",
        }  # fmt: skip
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(place)
            os.execvpe(command[0], list(command), environment)
        self.wait_for(r"[#$%>]", quiet=1.0)  # a prompt

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def wait_for(self, pattern: str, quiet: float = 0.0, seconds: float = 30) -> None:
        """Read until ``pattern`` has appeared and nothing more comes; fails with what was shown if it does not."""
        shown, until = "", time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self.fd], [], [], quiet or 0.2)
            if ready:
                shown += os.read(self.fd, 65536).decode(errors="replace")
            elif re.search(pattern, shown):
                return
            assert time.monotonic() < until, f"no {pattern!r} in:\n{shown}"

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


COMMANDS = {
    "bash": ("bash", "-i"),
    "zsh": ("zsh", "-i", "--no-globalrcs"),
    "fish": ("fish", "-i"),
}


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", COMMANDS)
def test_completion_installs_itself_and_works_in_a_fresh_shell(place: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    installing = Shell(place, *COMMANDS[name])
    installing.type("vidcvae --install-completion\n")
    installing.wait_for(f"{name} completion installed in .*vidcvae")
    installing.end()

    shell = Shell(place, *COMMANDS[name])
    try:
        shell.type("vidcvae \t")  # zsh: the first press of the key only loads the script
        shell.wait_for("vidcvae", quiet=2.0)
        shell.type("\x15")
        for typed, want in (
            ("vidcvae train --set kl.ra\t", r"kl\.ratio=0\.5"),
            ("vidcvae train --preset course-\t", "course-best"),
            ("vidcvae evaluate sweep-\t", "sweep-type/kl-none"),
            ("vidcvae checkpoint show runs/course-001/checkpoints/b\t", r"checkpoints/best\.safetensors"),
            ("vidcvae doc\t", "doctor"),
        ):
            shell.type(typed)
            shell.wait_for(want)
            shell.type("\x15")  # Ctrl-U empties the line
    finally:
        shell.end()


def test_the_script_in_completions_answers_bash(place: Path) -> None:
    ask = (
        f"source {SCRIPTS / 'vidcvae.bash'}\nCOMP_WORDS=(vidcvae train --set kl.type) COMP_CWORD=3\n"
        "$(complete -p vidcvae | sed 's/.*-F \\([^ ]*\\).*/\\1/') vidcvae\nprintf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", ask], capture_output=True, text=True, check=True, cwd=place, env=environment, timeout=60
    )
    assert done.stdout.split() == ["kl.type=cyclical", "kl.type=monotonic", "kl.type=none"]
