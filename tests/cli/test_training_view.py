"""What a person sees of a running training: how far it is, what is left, and which columns a terminal has room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vidcvae.cli import ui
from vidcvae.cli.training_view import LiveView, Plain, tell_outcome
from vidcvae.output.training_progress import BY_IMPORTANCE, Ends, clock
from vidcvae.storage.run import RunFolder
from vidcvae.training.loop import Outcome


def start(**other: Any) -> dict[str, Any]:
    event = {"kind": "start", "run": "runs/x", "model": "pose-cvae", "parameters": 10, "device": "cpu"}
    event |= {"precision": "float32", "clips": 5, "epochs": 4, "steps": 400, "step": 0, "minutes": 0.0}
    return event | {"max_minutes": 0.0, "metric": "psnr_zero", "best": None, "error": "MSE", "kl_unit": "nats"} | other


def progress(step: int, minutes: float) -> dict[str, Any]:
    losses = {"total": 1.5, "reconstruction": 0.0123, "kl": 7.0, "beta": 1.0, "lr": 1e-3, "grad_norm": 2.0}
    counts = {"step": step, "epoch": 1, "minutes": minutes, "forced": 0.5, "clips_per_second": 3.0, "predicted": 3.0}
    return {"kind": "progress", **losses, **counts}


VALIDATION = {
    "kind": "validation",
    "epoch": 0,
    "psnr_zero": 21.5,
    "psnr_prior": 20.5,
    "baseline_copy_first_psnr": 17.5,
}


def test_the_bar_goes_by_the_minutes_where_they_end_first() -> None:
    ends = Ends(start(max_minutes=2.0))
    assert ends.share == 0.0 and ends.minutes_left == 2.0
    ends.now_at(progress(20, 0.5))  # 20 of 400 steps, a quarter of the time; the other 380 would take 9.5 minutes
    assert ends.share == 0.25 and ends.minutes_left == pytest.approx(1.5)


def test_the_bar_goes_by_the_steps_where_they_end_first() -> None:
    ends = Ends(start(max_minutes=100.0))
    ends.now_at(progress(100, 1.0))
    assert ends.share == 0.25 and ends.minutes_left == pytest.approx(3.0)


def test_a_resumed_run_counts_what_it_did_before_but_goes_by_its_speed_of_today() -> None:
    ends = Ends(start(step=200, minutes=90.0))
    assert ends.share == 0.5 and ends.minutes_left is None
    ends.now_at(progress(250, 91.0))  # 50 steps in a minute: 150 more take 3
    assert ends.minutes_left == pytest.approx(3.0)


def test_times_are_read_at_a_glance() -> None:
    assert [clock(m) for m in (0.05, 3.75, 12.0, 83.75)] == ["0:03", "3:45", "12:00", "1:23:45"]


def test_the_display_waits_for_a_start_that_takes_its_time() -> None:
    """The first refresh comes after a quarter of a second, and measuring a precision takes many: an error in it would
    end all later ones, and stand in place of what went wrong before the start."""
    view = LiveView()
    console = view.live.console = Console(width=100, height=20, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(view)
        view(start())
        console.print(view)
    assert capture.get().count("training") == 2


@pytest.mark.parametrize("width", [200, 100, 60, 30])
def test_on_a_narrow_terminal_the_scores_stay_longest(width: int) -> None:
    view = LiveView()
    view.live.console = Console(quiet=True)
    for event in (start(), progress(20, 0.5), VALIDATION):
        view(event)
    console = Console(width=width, height=20, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(view.numbers.table(width))
    head, row = capture.get().splitlines()[:2]
    assert max(map(len, (head, row))) <= width
    shown = [name for name in BY_IMPORTANCE if name in head]
    assert shown == list(BY_IMPORTANCE[: len(shown)]) and "val PSNR" in head and "21.50 dB" in row
    assert len(shown) == {200: 11, 100: 10, 60: 5, 30: 2}[width]


@pytest.mark.parametrize("width", [200, 100, 60, 30])
def test_the_columns_stay_whatever_stands_in_them(width: int) -> None:
    """From the first refresh on, with numbers of any length."""
    view = LiveView()
    view.live.console = Console(quiet=True)
    small = {"kl": 3.7e-5, "beta": 0.000123, "lr": 1.2e-5, "grad_norm": 0.000123, "clips_per_second": 0.00123}
    large = {"kl": 34567.8, "beta": 1.0, "lr": 0.1, "grad_norm": 12345.0, "clips_per_second": 1234.0, "forced": 1.0}
    shown = []
    for event in (
        *(start(steps=180_000), progress(1, 0.1), progress(20, 0.5) | small, VALIDATION),
        *(progress(180_000, 9.0) | large, progress(180_000, 9.0) | large | {"epoch": 123, "reconstruction": -16.5}),
    ):
        view(event)
        console = Console(width=width, height=20, force_terminal=True, color_system=None)
        with console.capture() as capture:
            console.print(view.numbers.table(width))
        lines = capture.get().splitlines()
        assert max(map(len, lines)) <= width and "…" not in capture.get()
        shown.append([name for name in BY_IMPORTANCE if name in lines[0]])
    assert all(names == shown[0] for names in shown)
    head = capture.get().splitlines()[0]
    view(progress(20, 0.5) | small)
    with console.capture() as capture:
        console.print(view.numbers.table(width))
    assert capture.get().splitlines()[0] == head, "and where they are"


@pytest.mark.parametrize("width", [60, 40])
def test_the_result_is_broken_between_words_on_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = (ui._Console(width=width, force_terminal=True, color_system=None, soft_wrap=True) for _ in range(2))
    monkeypatch.setattr(ui, "out", out)
    monkeypatch.setattr(ui, "err", err)
    path = "runs/a-name-that-is-longer-than-the-terminal-is-wide-and-is-pasted-001"
    scores = {"psnr_zero": 14.3, "baseline_copy_last_past_psnr": 17.1}
    with out.capture() as said, err.capture() as warned:
        tell_outcome(Outcome(RunFolder(Path(path)), 50, 1.0, scores, 0.9))
    for text, words in ((said.get(), "val PSNR"), (warned.get(), "worse than repeating the last given frame")):
        lines = text.splitlines()
        assert words in " ".join(line.strip() for line in lines)
        assert all(len(line) <= width for line in lines if path not in line)
    assert path in said.get(), "it stays whole, to be pasted"


def test_the_best_score_stands_beside_the_last() -> None:
    view = LiveView()
    view.live.console = Console(quiet=True)
    view(start(best=25.0))
    view(progress(1, 0.1))
    view(VALIDATION)
    assert (view.numbers.cells()["val PSNR"], view.numbers.cells()["best"]) == ("21.50 dB", "25.00 dB")


def test_the_best_is_that_of_the_metric_that_chooses_it() -> None:
    view = LiveView()
    view.live.console = Console(quiet=True)
    view(start(metric="ssim_zero", best=0.9312))
    assert view.numbers.cells()["best"] == "0.9312"
    view(VALIDATION | {"ssim_zero": 0.95})
    assert (view.numbers.cells()["val PSNR"], view.numbers.cells()["best"]) == ("21.50 dB", "0.9500")


def test_a_score_in_the_middle_of_an_epoch_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    plain(VALIDATION | {"step": 13, "epochs_done": 13 / 600})
    plain(VALIDATION | {"step": 600, "epochs_done": 1.0})
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("epoch 1, unfinished (step 13): val PSNR") and second.startswith("epoch 1: val PSNR")


def test_plain_lines_answer_a_signal(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    for kind in ("stopping", "leaving"):
        plain({"kind": kind, "text": f"{kind} now"})
    assert capsys.readouterr().err == "stopping now\nleaving now\n"


def test_plain_lines_speak_at_the_first_step_with_losses(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    plain(start(max_minutes=2.0))
    plain.spoken -= 5
    plain(VALIDATION)  # a score just now is no reason to keep the losses back
    plain({"kind": "progress", "step": 1, "epoch": 0, "minutes": 0.1})  # no losses yet
    plain(progress(2, 0.5))
    plain(progress(3, 0.6))  # too soon after the other
    lines = capsys.readouterr().err.splitlines()
    assert "at most 2 minutes" in lines[1]
    assert [line.split("  ")[0] for line in lines if line.startswith("step ")] == [
        "step 2 (25%, 0.5 of 2 min, 1:30 left)"
    ]


def test_screens_tell_the_losses_of_a_frame_under_their_names_as_the_plots_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    event = progress(2, 0.5) | {"total": -15.0, "reconstruction": -18.0, "kl": 9.0, "predicted": 3.0}
    plain, view = Plain(), LiveView()
    view.live.console = Console(quiet=True)
    for shown in (plain, view):
        shown(start(error="ln MSE"))
        plain.spoken -= 5
        shown(event)
    said = capsys.readouterr().err
    assert "losses are means per frame: reconstruction in ln MSE, KL in nats" in said
    assert "loss -5  reconstruction -6  KL 3  beta" in said
    assert (view.numbers.cells()["reconstruction"], view.numbers.cells()["KL"]) == ("-6.0000", "3")


def test_a_step_without_a_drawn_z_has_no_kl_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    event = progress(2, 0.5)
    del event["kl"]
    plain, view = Plain(), LiveView()
    view.live.console = Console(quiet=True)
    for shown in (plain, view):
        shown(start())
        plain.spoken -= 5
        shown(event)
    assert "KL -  beta" in capsys.readouterr().err and view.numbers.cells()["KL"] == "-"


@pytest.mark.parametrize(("score", "warned"), [(14.3, True), (17.2, True), (30.0, False)])
def test_a_result_worse_than_repeating_a_frame_is_said_in_words(
    score: float, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"psnr_zero": score, "baseline_copy_first_psnr": 17.1}
    tell_outcome(Outcome(RunFolder(Path("runs/x")), 50, 1.0, scores, 0.9))
    said = capsys.readouterr()
    assert said.out.startswith(f"trained 50 steps in 1.0 minutes, then 0.9 of validation, val PSNR {score:.2f} dB")
    how = "hardly better" if score > 17.1 else "worse"
    assert (f"{how} than repeating the first frame (17.10 dB)" in said.err.replace("\n", " ")) == warned
