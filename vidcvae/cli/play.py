"""``vidcvae play``."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vidcvae.cli import command, trained, ui
from vidcvae.errors import DataError, typed


def play(
    run: trained.Run = None,
    data: trained.Data = None,
    poses: Annotated[
        Path | None,
        typer.Option("--poses", help="Dance: pose images to play, a folder of numbered images or a GIF."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Port of this machine; 0: any.", show_default="8317 or a next"),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only say where the page is.")] = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder that recordings go to.")] = Path("played"),
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the first checkpoint of a run in training.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Where there is no run: train the demo's, without asking.")
    ] = False,
    device: trained.Device = "auto",
    batch_stats: trained.BatchStats = False,
    weights: trained.Weights = "auto",
    precision: trained.Precision = "auto",
    json: command.Json = False,
) -> None:
    """Move a model live: a page on this machine, where it draws the next frame while you move a joint, or the robot.

    The page is for this machine only: nothing else is asked, and nobody else may ask. A run in training is shown with
    each new checkpoint. Ctrl-C ends it.

    Examples:
      vidcvae play
      vidcvae play runs/anchor-cpu-001 --no-browser --port 8000
    """
    from vidcvae.output import live
    from vidcvae.storage.run import find_run
    from vidcvae.workflow import play

    with contextlib.ExitStack() as stack:
        if wait and run is not None:
            ui.note(f"waiting for the first checkpoint of {run}")
            play.wait_for_checkpoint(run)
        if run is None or not run.is_file():
            try:
                run, given = find_run(run).path, run
            except DataError:
                if run is not None:
                    raise
                run = given = stack.enter_context(_demo(yes))
            if given is None:
                ui.note(f"no RUN given: playing the newest, {run}")
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
            ui.note("Ctrl-C ends it.")
        if not no_browser and _has_screen():
            import webbrowser

            webbrowser.open(server.address)
        with contextlib.suppress(KeyboardInterrupt), server:
            server.serve_forever()
        session.close()


def _demo(yes: bool) -> contextlib.AbstractContextManager[Path]:
    """The run of the demo: the one that is there, or one that is trained while it is played."""
    from vidcvae.storage.run import RunFolder, has_checkpoint
    from vidcvae.workflow import play

    there = play.DEMO / "run"
    if has_checkpoint(RunFolder(there)):
        ui.note(f"there is no run under runs: playing {there}")
        return contextlib.nullcontext(there)
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise DataError(
            "there is no run yet under runs.", f"Let it train the demo's, and play that: {typed('play', '--yes')}"
        )
    if not yes:
        typer.confirm("There is no run yet. Train the demo's, two minutes, and play it meanwhile?", True, abort=True)
    ui.note(f"training the demo in {play.DEMO}; the page opens at its first checkpoint")
    return play.demo_training()


def _has_screen() -> bool:
    """Whether a browser of this machine can be seen; without a screen, a text browser would take the terminal."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"})
