"""Studies: several trainings that differ in a few settings, planned, checked, run and resumed together.

A study's folder holds its plan, ``sweep.json``, and an ordinary run folder for each trial.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vidcvae import __version__, reading
from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.device import cores
from vidcvae.errors import DataError, Stopped, UsageError
from vidcvae.storage import checkpoint, durable, lock
from vidcvae.storage.run import RunFolder
from vidcvae.training.signals import exit_code, listening
from vidcvae.workflow.at_glance import is_finished as has_finished
from vidcvae.workflow.voice import SILENT, Voice

if TYPE_CHECKING:
    from vidcvae.data.clips import VideoData
    from vidcvae.evaluation.records import Record

PLAN = "sweep.json"
OWN = (".cache", lock.FILE)  # may be in a new study's folder
POLL_SECONDS = 0.1
LONGEST_NAME = 120
# The signal that asks a child to save and stop; on Windows, SIGTERM would kill it at once
_OWN_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
_STOP = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)


@dataclass(frozen=True)
class Variant:
    """Settings, as ``--set`` takes them, that set some trials apart; ``name`` is part of their folders' names."""

    name: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One training. ``arguments`` are those of ``vidcvae train``; they resolve to ``config``."""

    path: Path
    variant: Variant
    arguments: tuple[str, ...]
    config: Config


@dataclass(frozen=True)
class Common:
    """The dataset and settings that all trials of a study share."""

    dataset: str
    preset: str | None
    config: Path | None
    settings: tuple[str, ...]

    def resolve(self, more: Sequence[str] = ()) -> Config:
        """The config of ``vidcvae train`` with these arguments; settings in ``more`` win."""
        from vidcvae.workflow.datasets import sized

        own = [*self.settings, *more]
        return sized(settings.gather(self.preset, self.config, own, {"data": {"path": self.dataset}}))

    def arguments(self, more: Sequence[str]) -> tuple[str, ...]:
        """The arguments of ``vidcvae train`` that resolve to ``resolve(more)``."""
        preset = ["--preset", self.preset] if self.preset else []
        config = ["--config", str(self.config)] if self.config else []
        options = itertools.chain.from_iterable(("--set", text) for text in (*self.settings, *more))
        return (self.dataset, *preset, *config, *options)


# --- planning ---------------------------------------------------------------------------------------


def every_combination(grid: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, list[Variant]]:
    """The name and the variants of a study that tries every combination of some settings' values."""
    keys = [key for key, _ in grid]
    short = [key.rpartition(".")[2] for key in keys]
    titles = short if len(set(short)) == len(keys) else keys
    variants = []
    for values in itertools.product(*(values for _, values in grid)):
        name = "_".join(map("-".join, zip(titles, values, strict=True)))
        variants.append(Variant(folder_name(name), tuple(map("=".join, zip(keys, values, strict=True)))))
    return folder_name("-".join(["sweep", *titles])), variants


def plan(folder: Path, common: Common, variants: Sequence[Variant], seeds: int) -> list[Trial]:
    """A trial for every variant and seed. Raises ``UsageError`` that lists the problems of all of them."""
    trials: list[Trial] = []
    problems: dict[str, None] = {}
    for variant, number in itertools.product(_with_unique_names(variants), range(seeds)):
        name, own = variant.name, variant.settings
        try:
            config = common.resolve(own)
            if seeds > 1:
                own = (*own, f"training.seed={config.training.seed + number}")
                config = common.resolve(own)
                name += f"_seed-{config.training.seed}"
        except UsageError as error:
            lines = error.message.splitlines()[1:]
            if not lines:
                raise
            problems |= dict.fromkeys(lines)
        else:
            trials.append(Trial(folder / name, variant, common.arguments(own), config))
    if problems:
        what = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise UsageError(
            f"nothing was started: the settings have {what}:\n" + "\n".join(problems),
            "What each key means: vidcvae config explain",
        )
    for a, b in itertools.combinations(trials, 2):
        if a.config == b.config:
            raise UsageError(f"{a.path.name} and {b.path.name} are the same training.", "Leave one of them out.")
    return trials


def _with_unique_names(variants: Sequence[Variant]) -> list[Variant]:
    """The variants, with a digest of their settings appended to names that several share.

    Names become equal when they are cut or their letters are replaced. Unique names stay as they are.
    """
    count = Counter(variant.name.casefold() for variant in variants)  # some file systems ignore case

    def unique(variant: Variant) -> Variant:
        if count[variant.name.casefold()] == 1:
            return variant
        digest = hashlib.sha256(json.dumps(variant.settings).encode()).hexdigest()[:8]
        return replace(variant, name=f"{variant.name[: LONGEST_NAME - 9]}-{digest}")

    return list(map(unique, variants))


def folder_name(text: str) -> str:
    """``text`` as part of a folder's name on any system."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:LONGEST_NAME]


def prepare(
    folder: Path, trials: Sequence[Trial], *, command: str, dry_run: bool = False, voice: Voice = SILENT
) -> list[dict[str, Any]]:
    """Check the trials' data and the plan in ``folder``, if there is one; then write the plan, except in a dry run.

    command: the command that starts and continues the study. Returns the run, epochs, steps and minutes (None: no
    limit) of each trial. Raises ``UsageError`` if the folder holds another study or other files.
    """
    from vidcvae.data.dataset import resize_note
    from vidcvae.models.loading import pick_device
    from vidcvae.workflow.datasets import check_kind, open_dataset
    from vidcvae.workflow.training import length_and_doubts

    _check_plan(folder, trials)
    opened: dict[Any, VideoData] = {}
    planned: list[dict[str, Any]] = []
    for trial in trials:
        config = trial.config
        device = pick_device(config.training.device)
        check_kind(config.data.path, config.model.condition_kind)
        key = (config.data.path, config.data.frame_size)
        if key not in opened:  # its cache lies beside the runs, so that all of them use it
            with voice.progress("reading the data") as advance:
                opened[key] = open_dataset(*key, None if dry_run else folder / ".cache", advance)
            if resized := resize_note(opened[key], "--set data.size="):
                voice.note(resized)
        length, doubts = length_and_doubts(config, opened[key], device)
        minutes = config.training.max_minutes or None
        planned.append({"run": str(trial.path), "epochs": length.epochs, "steps": length.steps, "minutes": minutes})
        for text in doubts:
            voice.warn(f"{trial.path.name}: {text}")
    if not dry_run and not (folder / PLAN).exists():
        runs = {trial.path.name: settings.to_table(trial.config) for trial in trials}
        durable.write_json(folder / PLAN, {"command": command, "vidcvae": __version__, "runs": runs})
    return planned


def _check_plan(folder: Path, trials: Sequence[Trial]) -> None:
    path = folder / PLAN
    if not path.exists():
        durable.must_be_new(folder, OWN.__contains__, ", nor a study of this command")
        return
    try:
        saved = reading.parse_json(reading.read_bytes(path))
        command, tables = str(saved["command"]), dict(saved["runs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the plan of a sweep ({error}).", "Choose another folder: -o FOLDER") from None
    hint = f"Its command was: {command}\n  For a new sweep, choose another folder: -o FOLDER"
    now = {trial.path.name: trial.config for trial in trials}
    for name in [*now, *tables]:
        if name not in tables or name not in now:
            where = "is new" if name in now else "is missing now"
            raise UsageError(f"{folder} holds another sweep: {name} {where}.", hint)
    for name, config in now.items():
        if changed := settings.differences(settings.resolve(tables[name]), config):
            what = ", ".join(f"{key} was {a} and is {b}" for key, (a, b) in changed.items())
            raise UsageError(f"{folder} holds another sweep: in {name}, {what}.", hint)


# --- running ----------------------------------------------------------------------------------------


def is_finished(trial: Trial) -> bool:
    """Whether the trial has had all its epochs or minutes; ``resume`` reports a damaged checkpoint."""
    try:
        return has_finished(trial.config, checkpoint.read(RunFolder(trial.path).checkpoints / checkpoint.LAST).meta)
    except DataError:
        return False


def run_all(trials: Sequence[Trial], jobs: int, *, command: str, voice: Voice = SILENT) -> dict[Trial, str]:
    """Start missing trials, resume interrupted ones and skip finished ones, ``jobs`` at a time.

    Returns the problem of each trial that failed. A signal is passed on to the running trials, which save; then
    ``Stopped`` is raised, with ``command`` as its hint. Raises ``UsageError`` if another process runs the study.
    """
    problems: dict[Trial, str] = {}
    shown = -1
    bar, listener = voice.progress("training, in percent"), listening(lambda event: voice.note(event["text"]))
    with lock.holding(trials[0].path.parent), bar as advance, listener as requests, _children() as running:
        waiting = deque((n, trial) for n, trial in enumerate(trials, 1) if not is_finished(trial))
        finished = len(trials) - len(waiting)
        if finished:
            voice.note(f"{finished} of {len(trials)} runs are finished already")
        while (waiting and requests.stop is None) or running:
            while waiting and len(running) < jobs and requests.stop is None:
                number, trial = waiting.popleft()
                running.append(Child(trial, f"{number}/{len(trials)} {trial.path.name}", jobs, voice))
            if requests.stop is not None:
                for child in running:
                    child.ask_to_stop()
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                if problem := child.ended():
                    if requests.stop is None:
                        problems[child.trial] = problem
                else:
                    finished += 1
            share = finished + len(problems) + sum(child.share for child in running)
            if (percent := round(100 * share / len(trials))) != shown:  # a log gets no line unless it has changed
                shown = percent
                advance(percent, 100)
            time.sleep(POLL_SECONDS)
        if requests.stop is not None:
            raise Stopped(
                f"stopped with {finished} of {len(trials)} runs finished; the others have saved their progress.",
                f"Continue with the same command: {command}",
                exit_code(requests.stop),
            )
    return problems


@contextlib.contextmanager
def _children() -> Iterator[list[Child]]:
    """A list for child processes, which are stopped at the end of the block."""
    running: list[Child] = []
    try:
        yield running
    finally:
        for child in running:
            child.ask_to_stop()
        for child in running:
            child.process.wait()


class Child:
    """A training in its own process. ``share`` is the part that is done, 0 to 1."""

    def __init__(self, trial: Trial, title: str, jobs: int, voice: Voice = SILENT) -> None:
        self.trial, self.title, self.voice, self.share = trial, title, voice, 0.0
        self.psnr: float | None = None
        self._asked = False
        environment = dict(os.environ)
        if jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        # In its own session the child does not receive the terminal's Ctrl-C; this process passes it on
        alone = {"creationflags": _OWN_GROUP} if sys.platform == "win32" else {"start_new_session": True}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vidcvae", *self._arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            **alone,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _arguments(self) -> list[str]:
        run = RunFolder(self.trial.path)
        if run.config.exists():
            self.voice.note(f"{self.title}: resumed")
            return ["resume", str(run.path), "--json"]
        if not lock.holder(run.path):  # a process died here before it wrote the settings
            durable.remove(run.info)
            durable.remove(run.path / lock.FILE)
        self.voice.note(f"{self.title}: started")
        return ["train", *self.trial.arguments, "--run", str(run.path), "--json"]

    def _read(self) -> None:
        assert self.process.stdout
        budget = self.trial.config.training.max_minutes
        steps = 1
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                steps = event.get("steps", steps)
                if "step" in event:
                    by_time = event.get("minutes", 0.0) / budget if budget else 0.0
                    self.share = min(1.0, max(self.share, event["step"] / steps, by_time))
                if event["kind"] == "done":
                    self.psnr = event.get("psnr_zero")

    def ask_to_stop(self) -> None:
        """Send the signal, but only once: a second one would keep the child from saving."""
        if not self._asked and self.process.poll() is None:
            self._asked = True
            self.process.send_signal(_STOP)

    def ended(self) -> str:
        """Report the end of the process; returns what went wrong, or the empty string."""
        self._reader.join()
        code = self.process.returncode
        if code == 0:
            score = "" if self.psnr is None else f": {self.psnr:.2f} dB"
            self.voice.note(f"{self.title}: finished{score}")
            return ""
        self._errors.seek(0)
        self.voice.note(f"{self.title}: {'stopped' if self._asked else f'ended with exit code {code}'}")
        output = self._errors.read().decode("utf-8", "replace").strip()
        _, error, message = output.rpartition("error: ")
        return message if error else output.rpartition("\n")[2] or f"exit code {code}"


def score(trials: Sequence[Trial], which: str = "best", voice: Voice = SILENT) -> list[tuple[str, Record]]:
    """The name and the score record of each trial."""
    from vidcvae.workflow import opening, scores

    named = []
    for number, trial in enumerate(trials, 1):
        loaded, data = opening.load_with_data(trial.path, which, voice=voice)
        title = f"scoring {number}/{len(trials)} {trial.path.name}"
        named.append((trial.path.name, scores.record_of(loaded, data, title, voice=voice)))
    return named
