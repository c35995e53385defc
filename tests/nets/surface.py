"""Which commands and options of the frozen command line the net must try, and which it need not, with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.nets.commands import COMMANDS, SURFACE, Preset, train_first

NO_RUN = "takes no run and no preset"
OLD_NAME = "a hidden old name; tests/cli/test_language.py"
EXCUSED = {  # a command, or a command and its option: why it is not here
    "demo": "trains for minutes what the preset demo trains here; tests/cli/test_demo.py",
    "doctor": NO_RUN,
    "play": "serves a page until Ctrl-C; tests/cli/test_play.py, tests/output/test_play_page.py",
    "presets": NO_RUN,
    "bench": f"{NO_RUN}; tests/training/test_bench.py",
    "dataset inspect": NO_RUN,
    "dataset pack": NO_RUN,
    "dataset synth dance": NO_RUN,
    "dataset synth push": NO_RUN,
    "dataset import video": NO_RUN,
    "dataset import frames": NO_RUN,
    "dataset import gif": NO_RUN,
    "dataset import bair": NO_RUN,
    "checkpoint import": "takes a checkpoint of the course's trainer; tests/storage/test_course_import.py",
    "config explain": NO_RUN,
    "sweep --into": OLD_NAME,
    "ablate --into": OLD_NAME,
    "ablate --minutes": OLD_NAME,
    "train --play": "opens a page in a process of its own; tests/cli/test_play.py",
    "train --compile": "takes a C++ compiler and minutes; tests/training/test_engine.py",
}


def unexercised(preset: Preset) -> list[str]:
    """What the frozen command line has and this preset is not tried with; and excuses that excuse nothing."""
    typed = [train_first(preset), *itertools.chain.from_iterable(make(preset) for make in COMMANDS.values())]
    given: dict[str, set[str]] = {}
    for one in typed:
        for part, words in _split(one.arguments):
            given.setdefault(part, set()).update(words)
    missing, needless = [], {*EXCUSED}
    for command, options in SURFACE.items():
        if not command and not options:
            continue
        if any(other.startswith(f"{command} ") for other in SURFACE) and command:  # a group of commands
            continue
        if command in EXCUSED:
            needless.discard(command)
            continue
        if command and command not in COMMANDS:
            missing.append(command)
            continue
        for option in options:
            names = option.split("|")
            if option.isupper() or {*names} & given.get(command, set()):
                continue
            if command and {*names} & {"--verbose", "--quiet"}:  # steps_of puts them behind every line
                continue
            if f"{command} {names[0]}" in EXCUSED:
                needless.discard(f"{command} {names[0]}")
            else:
                missing.append(f"{command} {option}".strip())
    return missing + [f"needless excuse: {name}" for name in sorted(needless)]


def _split(arguments: tuple[str, ...]) -> Iterator[tuple[str, set[str]]]:
    """The program's own options under "", and those of the command under its name."""
    first = next((i for i, word in enumerate(arguments) if not word.startswith("-")), len(arguments))
    yield "", {*arguments[:first]}
    rest = arguments[first:]
    for length in (3, 2, 1):
        if (command := " ".join(rest[:length])) in SURFACE and rest:
            yield command, {word for word in rest[length:] if word.startswith("-")}
            return
