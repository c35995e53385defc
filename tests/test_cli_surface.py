"""The command line, frozen: no command or option comes or goes unnoticed.

After a change that is meant: ``python -m tests.test_cli_surface`` writes the new surface.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from vidcvae.cli.app import app

FROZEN = Path(__file__).with_name("cli_surface.json")
COMPLETIONS = Path(__file__).parents[1] / "completions"
SHELLS = {"bash": "vidcvae.bash", "zsh": "_vidcvae", "fish": "vidcvae.fish", "powershell": "vidcvae.ps1"}


def surface() -> dict[str, list[str]]:
    """Every command with its arguments and options."""
    found: dict[str, list[str]] = {}

    def walk(command: Any, path: str) -> None:
        found[path] = sorted(
            "|".join([*p.opts, *p.secondary_opts]) if p.param_type_name == "option" else p.name.upper()
            for p in command.params
            if "completion" not in str(p.name)
        )
        for name, child in getattr(command, "commands", {}).items():
            walk(child, f"{path} {name}")

    walk(typer.main.get_command(app), "vidcvae")
    return found


def completion(shell: str) -> str:
    environment = {**os.environ, "_VIDCVAE_COMPLETE": f"source_{shell}"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'vidcvae'; from vidcvae.cli.app import app; app()"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() + "\n"


def test_commands_and_options_are_the_frozen_ones() -> None:
    assert surface() == json.loads(FROZEN.read_text())


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts_have_not_drifted(shell: str) -> None:
    script = completion(shell)
    assert "vidcvae" in script
    assert (COMPLETIONS / SHELLS[shell]).read_text() == script


def test_help_imports_neither_torch_nor_numpy_and_is_quick() -> None:
    code = (
        "import sys; sys.argv = ['vidcvae', '--help']\n"
        "from vidcvae.cli.app import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "sys.exit('|'.join(sorted({'torch', 'numpy', 'PIL', 'matplotlib'} & sys.modules.keys())) or 0)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout
    assert time.monotonic() - began < 5  # 0.3 s on a quiet machine; this only catches an import of torch


@pytest.mark.parametrize("path", [path for path in surface() if path != "vidcvae"])
def test_every_command_and_option_has_help(path: str) -> None:
    command: Any = typer.main.get_command(app)
    for name in path.split()[1:]:
        command = command.commands[name]
    assert command.help
    missing = [p.name for p in command.params if not getattr(p, "help", None) and p.name != "help"]
    assert missing == []


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(surface(), indent=1) + "\n")
    COMPLETIONS.mkdir(exist_ok=True)
    for shell, file in SHELLS.items():
        (COMPLETIONS / file).write_text(completion(shell))
