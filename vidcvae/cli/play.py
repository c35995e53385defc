"""``vidcvae play``."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import command, trained, ui
from vidcvae.cli.command import option
from vidcvae.errors import DataError, typed


def play(
    run: trained.Run = None,
    data: trained.Data = None,
    poses: Annotated[Path | None, option("Dance: pose images to play, a folder of numbered images or a GIF.")] = None,
    port: Annotated[
        int | None,
        option("Port on this machine; 0: any.", min=0, max=65535, show_default="8317, or the next free one"),
    ] = None,
    no_browser: Annotated[bool, option("Print the address, but open no browser.")] = False,
    output: Annotated[Path, option("The folder for recordings.", "-o")] = Path("played"),
    wait: Annotated[bool, option("Wait for the first checkpoint of a run in training.")] = False,
    yes: Annotated[bool, option("If there is no run, train the demo's without asking.")] = False,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    precision: trained.Precision = "auto",
    json: command.Json = False,
) -> None:
    """Steer a model live, on a page in the browser: move a joint, or the robot, and the model draws the next frame.

    The page is served to this machine only, and loads nothing from the network. If the run is in training, the page
    shows each new checkpoint. Press Ctrl-C to end it.

    Examples:
      vidcvae play
      vidcvae play runs/anchor-cpu-001 --no-browser --port 8000
    """
    from vidcvae.output import live
    from vidcvae.storage.run import ROOT, find_run
    from vidcvae.workflow import play

    with contextlib.ExitStack() as stack:
        if wait and run is not None and not run.is_file():
            run = next((place for place in (run, ROOT / run) if place.exists()), run)
            ui.note(f"waiting for the first checkpoint of {run}")
            play.wait_for_checkpoint(run)
        if run is None:
            try:
                run = find_run(None).path
                ui.note(f"no RUN given: playing the newest, {run}")
            except DataError:
                run = stack.enter_context(_demo(yes))
        elif not run.is_file():
            run = find_run(run).path
        session = play.open_session(
            run,
            output,
            data,
            device=device,
            precision=precision,
            weights=weights,
            batch_stats=batch_stats,
            poses=poses,
            voice=ui.Speaker(bars=not json),
        )
        server = live.Server(session, play.secret_of(run), port)
        if json:
            ui.emit({"address": server.address, "run": str(session.loaded.path), "recordings": str(output)})
        else:
            ui.say(server.address)
            ui.note("Press Ctrl-C to end it.")
        if not no_browser and _has_screen():
            import webbrowser

            webbrowser.open(server.address)
        with contextlib.suppress(KeyboardInterrupt), server:
            server.serve_forever()
        session.close()


def _demo(yes: bool) -> contextlib.AbstractContextManager[Path]:
    """The demo's run: an existing one, or one that trains while it is played."""
    from vidcvae.storage.run import RunFolder, has_checkpoint
    from vidcvae.workflow import play

    run = play.DEMO / "run"
    if has_checkpoint(RunFolder(run)):
        ui.note(f"there is no run under runs: playing {run}")
        return contextlib.nullcontext(run)
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise DataError("there is no run yet under runs.", f"To train the demo's and play it: {typed('play', '--yes')}")
    if not yes:
        typer.confirm("There is no run yet. Train the demo's for two minutes, and play it now?", True, abort=True)
    ui.note(f"training the demo in {play.DEMO}; the page opens at its first checkpoint")
    return play.demo_training()


def _has_screen() -> bool:
    """Whether this machine can show a browser window; without a screen, a text browser would take over the terminal."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"})
