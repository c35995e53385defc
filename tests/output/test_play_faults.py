"""The live page in a real browser when something is refused: nothing is lost, and the page says why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.live_runs import make_dance, serving
from tests.output import browser
from tests.output.test_play_page import again, frame, joints, stopped, wait, window
from vidcvae.output import recording
from vidcvae.output.live import MOST_PICTURE, Server
from vidcvae.own_clips import recovery
from vidcvae.workflow.play import open_session

__all__ = ["window"]
ALERT = "const a = document.getElementById('alert'); return !a.hidden && a.textContent"
READY = "return document.body.dataset.ready === ''"
RECORD = "return document.getElementById('record').textContent"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("place")
    session = open_session(make_dance(place).path, place / "played", precision="float32")
    session.data = replace(session.data, fps=200.0)  # too fast for a GIF
    with serving(session) as server:
        yield server


@pytest.fixture
def dance(server: Server, window: browser.Browser) -> browser.Browser:
    window.open(server.address)
    wait(window, READY)
    return window


def steps(window: browser.Browser, count: int) -> None:
    for _ in range(count):
        before = frame(window)
        window.click("#next")
        wait(window, f"return document.getElementById('model').dataset.frame === '{before + 1}' && !state.busy")


def drop(window: browser.Browser, size: int) -> None:
    window.script(
        "const data = new DataTransfer(); data.items.add(new File([new Uint8Array(arguments[0])], 'mine.png'));"
        "document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))",
        size,
    )


def test_a_recording_that_cannot_be_saved_stays_on_its_button(dance: browser.Browser, server: Server) -> None:
    dance.click("#record")
    wait(dance, "return document.getElementById('record').getAttribute('aria-pressed') === 'true'")
    steps(dance, 3)
    dance.click("#record")
    assert "a GIF cannot show 200 frames a second" in wait(dance, ALERT)
    wait(dance, "return document.getElementById('record').textContent === 'Save again'")
    steps(dance, 1)
    assert "a GIF cannot show" in (dance.script(ALERT) or ""), "the next frame does not wipe it away"
    again(dance)
    assert dance.script(RECORD) == "Save again", "nor is it lost by another start"
    dance.open(server.address)
    wait(dance, READY)
    assert dance.script(RECORD) == "Save again", "nor by a reload"
    dance.script("document.getElementById('kind').value = 'mp4'")
    dance.click("#record")
    assert " 4 frames, from the start" in wait(dance, "return document.querySelector('#kept li')?.textContent")
    assert dance.script(RECORD) == "Record"


def test_an_empty_recording_ends_with_a_sentence(dance: browser.Browser) -> None:
    steps(dance, 1)
    dance.click("#record")
    wait(dance, "return document.getElementById('record').textContent === 'Stop (0)'")
    dance.click("#record")
    assert "this recording is empty" in wait(dance, ALERT)
    wait(dance, "return document.getElementById('record').textContent === 'Record'")


def test_no_control_and_no_reload_discards_a_running_recording(dance: browser.Browser, server: Server) -> None:
    dance.click("#record")
    wait(dance, "return document.getElementById('record').textContent === 'Stop (1)'")
    steps(dance, 2)
    for start in (
        "document.getElementById('again').click()",
        "const s = document.getElementById('sequence'); s.value = 1; s.dispatchEvent(new Event('change'))",
    ):
        dance.script(start)
        assert wait(dance, ALERT) == "a recording is running. Stop it first."
        dance.script("say('')")
    wait(dance, "return document.getElementById('sequence').value === '0'")
    drop(dance, 10)
    assert wait(dance, ALERT) == "a recording is running. Stop it first."
    assert frame(dance) == 2 and dance.script(RECORD) == "Stop (3)"
    dance.open(server.address)
    wait(dance, READY)
    assert dance.script(RECORD) == "Stop (3)" and "a recording is running" in dance.script(ALERT)
    dance.script("document.getElementById('kind').value = 'mp4'")
    dance.click("#record")
    assert " 3 frames, from the start" in wait(dance, "return document.querySelector('#kept li')?.textContent")
    wait(dance, "return document.getElementById('model').dataset.frame === '0' && !state.busy")
    steps(dance, 1)


def test_a_full_recording_is_said(dance: browser.Browser, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_FRAMES", 3)
    dance.open(server.address)
    wait(dance, READY)
    shown = "const e = document.getElementById('full'); return e.offsetParent ? e.textContent : ''"
    dance.click("#record")
    wait(dance, "return document.getElementById('record').textContent === 'Stop (1)'")
    steps(dance, 1)
    assert dance.script(shown) == ""
    steps(dance, 2)
    assert dance.script(shown).startswith("The recording is full, with 3 frames. Stop it")
    dance.script("document.getElementById('kind').value = 'mp4'")
    dance.click("#record")
    wait(dance, "return document.getElementById('record').textContent === 'Record'")
    assert dance.script(shown) == ""


def test_a_picture_that_is_too_large_is_refused_by_the_page(dance: browser.Browser) -> None:
    drop(dance, MOST_PICTURE + 1)
    assert wait(dance, ALERT) == "mine.png has 33,554,433 bytes; a picture may have at most 33,554,432."
    assert not dance.script("return state.gone")
    drop(dance, MOST_PICTURE)  # this one reaches the server
    wait(dance, "return document.getElementById('alert').textContent.includes('the picture is damaged')")
    steps(dance, 1)


def test_the_slider_skips_the_rows_that_it_passes(dance: browser.Browser, server: Server) -> None:
    again(dance)
    dance.script(
        "const s = document.getElementById('scrub');"
        "for (let row = 1; row <= 20; row += 1) { s.value = row; s.dispatchEvent(new Event('input')); }"
    )
    wait(dance, "return !state.busy && document.getElementById('row').textContent.startsWith('20 ')")
    stopped(dance)
    assert frame(dance) <= 2, "the first row and the last, not all twenty"
    pose = server.session.sequences[0][1].tracks["pose"][20]
    found = recovery.joints_of(pose)
    assert found is not None and np.allclose(joints(dance), found, atol=0.01, equal_nan=True)
    dance.script(
        "const s = document.getElementById('scrub'); s.value = 5; s.dispatchEvent(new Event('input'));"
        "document.getElementById('next').click(); s.value = 9; s.dispatchEvent(new Event('input'))"
    )
    wait(dance, "return !state.busy && document.getElementById('row').textContent.startsWith('9 ')")
    found = recovery.joints_of(server.session.sequences[0][1].tracks["pose"][9])
    stopped(dance)
    assert found is not None and np.allclose(joints(dance), found, atol=0.01, equal_nan=True)
