"""The live page in a real browser: hands, keys and touch, recordings, phones and the dark, and a server that dies."""

from __future__ import annotations

import base64
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Cli
from tests.live_runs import make_dance, make_push, playing
from tests.output import browser
from tests.output.test_session import made_by
from vidcvae.data import images
from vidcvae.output import pictures
from vidcvae.own_clips import recovery, skeleton

CUT_OFF = """return [...document.querySelectorAll('button, select, label')].filter((e) =>
  e.offsetParent && e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)"""
WRIST = skeleton.JOINTS.index("right_wrist")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    make_dance(place)
    make_push(place, conditions="actions")
    return place


@pytest.fixture(scope="module")
def window() -> Iterator[browser.Browser]:
    if lacking := browser.missing():
        pytest.skip(f"{lacking} not installed (Debian: apt-get install chromium chromium-driver)")
    with browser.chromium() as found:
        found.resize(1280, 900)
        yield found


@pytest.fixture(scope="module")
def dance(place: Path, window: browser.Browser) -> Iterator[browser.Browser]:
    with playing(place, "runs/dance-001", "--port", 0, "--precision", "float32") as (address, _):
        window.open(address)
        wait(window, "return document.body.dataset.ready === ''")
        yield window


def wait(window: browser.Browser, condition: str, seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := window.script(condition)):
        assert time.monotonic() < deadline, (condition, window.script("return document.body.innerText"))
        time.sleep(0.05)
    return found


def canvas(window: browser.Browser, selector: str = "#model") -> np.ndarray:
    """What a canvas shows, uint8 (3, H, W)."""
    numbers = window.script(
        f'const c = document.querySelector("{selector}"); return [c.width, c.height, '
        "...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    return np.array(numbers[2:], np.uint8).reshape(numbers[1], numbers[0], 4)[..., :3].transpose(2, 0, 1)


def again(window: browser.Browser) -> None:
    """From the beginning of the first sequence, by hand."""
    window.script("document.getElementById('again').click()")
    wait(window, "return Number(document.getElementById('model').dataset.frame) === about.past - 1 && !state.busy")


def frame(window: browser.Browser) -> int:
    return int(window.script("return document.getElementById('model').dataset.frame"))


def point(window: browser.Browser, joint: int, dx: float = 0, dy: float = 0) -> tuple[float, float]:
    """Where a joint is on the screen, or so many pixels of the frame from there."""
    x, y, wide, (jx, jy) = window.script(
        "const b = document.getElementById('figure').getBoundingClientRect();"
        "return [b.x, b.y, b.width, state.joints[arguments[0]]]",
        joint,
    )
    return x + (jx + dx) * wide / 64, y + (jy + dy) * wide / 64


def mouse(window: browser.Browser, kind: str, at: tuple[float, float], shift: bool = False) -> None:
    window.devtools("Input.dispatchMouseEvent", type=f"mouse{kind}", x=at[0], y=at[1], button="left",
                    buttons=int(kind != "Released"), clickCount=1, modifiers=8 * shift)  # fmt: skip


def pull(window: browser.Browser, joint: int, dx: float, dy: float, steps: int = 12, shift: bool = False) -> None:
    begin = point(window, joint)
    wide = window.script("return document.getElementById('figure').getBoundingClientRect().width") / 64
    mouse(window, "Pressed", begin, shift)
    for k in range(1, steps + 1):
        mouse(window, "Moved", (begin[0] + dx * wide * k / steps, begin[1] + dy * wide * k / steps), shift)
        time.sleep(0.03)
    before = frame(window)
    wait(window, f"return Number(document.getElementById('model').dataset.frame) > {before} + 2")
    mouse(window, "Released", begin, shift)


def joints(window: browser.Browser) -> np.ndarray:
    found = window.script("return state.joints")
    return np.array([p or (np.nan, np.nan) for p in found], float)


def stopped(window: browser.Browser) -> None:
    window.script("stop()")
    wait(window, "return !state.busy")


def pressed(window: browser.Browser, key: str, condition: str) -> None:
    """A key of the page, and what comes of it."""
    window.press("body", key)
    wait(window, condition)


# --- dance -----------------------------------------------------------------------------------------


def test_it_loads_without_a_word_in_the_console_and_fetches_from_its_server_only(dance: browser.Browser) -> None:
    assert [line for line in dance.console() if "willReadFrequently" not in line] == []
    assert dance.script("return document.title") == "dance-001, live"
    host = dance.script("return location.origin")
    found = dance.script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert found and all(name.startswith(host) for name in found)
    assert len(np.unique(canvas(dance))) > 20, "a picture is there"


def test_a_dragged_wrist_is_followed_and_recorded_and_generate_makes_it_again(
    dance: browser.Browser, place: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    again(dance)
    first, before = canvas(dance), joints(dance)
    dance.click("#record")
    wait(dance, "return state.recorded !== null")
    pull(dance, WRIST, -6, -9)
    stopped(dance)
    after, last, count = joints(dance), canvas(dance), frame(dance) + 1
    limb = [skeleton.JOINTS.index(f"right_{part}") for part in ("shoulder", "elbow", "wrist")]
    for joint in set(range(25)) - {*limb[1:]}:
        assert np.allclose(before[joint], after[joint], equal_nan=True), "only the arm moves"
    for a, b in ((limb[0], limb[1]), (limb[1], limb[2])):
        long = [np.linalg.norm(found[a] - found[b]) for found in (before, after)]
        assert long[0] == pytest.approx(long[1], abs=0.02), "limbs keep their lengths"
    assert np.linalg.norm(after[WRIST] - before[WRIST]) > 4
    dance.click("#record")
    told = wait(dance, "return document.querySelector('#kept pre')?.textContent")
    monkeypatch.chdir(place)
    frames = made_by(cli, told, tmp_path / "again")
    assert len(frames) == count and np.array_equal(frames[0], first) and np.array_equal(frames[-1], last)
    poses = sorted((place / "played/001/poses").iterdir())
    found = recovery.joints_of(images.read_image(poses[-1], (32, 64)))
    assert found is not None and np.abs(found[WRIST] - after[WRIST]).max() < 2, "the wrist is drawn where it was led"
    with Image.open(place / "played/001/recording.gif") as gif:
        assert gif.n_frames == count  # type: ignore[attr-defined]
        shown = np.asarray(gif.convert("RGB")).transpose(2, 0, 1)
        assert np.abs(shown.astype(int) - pictures.enlarge(first, 4)).mean() < 6
    content = dance.script(
        "const r = new XMLHttpRequest(); r.open('GET', document.querySelector('#kept a').href, false); r.send();"
        "return r.status"
    )
    assert content == 200


def test_shift_stretches_a_limb_and_the_hip_moves_the_figure(dance: browser.Browser) -> None:
    again(dance)
    before = joints(dance)
    pull(dance, WRIST, -4, 0, shift=True)
    stopped(dance)
    moved = np.linalg.norm(joints(dance) - before, axis=1) > 0.01
    assert moved[WRIST] and moved.sum() == 1
    again(dance)
    pull(dance, skeleton.JOINTS.index("mid_hip"), 9, 0, steps=30)
    time.sleep(1)
    stopped(dance)
    after = joints(dance)
    shift = after[:, 0] - before[:, 0]
    head = [skeleton.JOINTS.index(name) for name in ("neck", "mid_hip", "nose", "right_wrist")]
    assert np.allclose(shift[head], 9, atol=0.3) and np.allclose(after[head, 1], before[head, 1], atol=0.3)
    feet = [skeleton.JOINTS.index(f"{side}_ankle") for side in ("left", "right")]
    assert (shift[feet] > 2).all(), "both feet have stepped after it"
    for side in ("left", "right"):
        a, b, c = (skeleton.JOINTS.index(f"{side}_{part}") for part in ("hip", "knee", "ankle"))
        for one, other in ((a, b), (b, c)):
            lengths = [np.linalg.norm(found[one] - found[other]) for found in (before, after)]
            assert lengths[0] == pytest.approx(lengths[1], abs=0.05)


def test_play_pause_step_scrub_and_take_over(dance: browser.Browser, place: Path) -> None:
    again(dance)
    dance.click("#show-truth")
    dance.click("#play")
    wait(dance, "return state.row > 4")
    assert dance.script("return document.getElementById('play').textContent") == "Pause"
    dance.click("#play")
    wait(dance, "return !state.running && !state.busy")
    row, made = dance.script("return state.row"), frame(dance)
    assert row == made, "no frame is made twice, and none is left out"
    assert "PSNR" in dance.script("return document.getElementById('told').textContent")
    truth = images.read_image(place / f"data/val/val_img/{row}.png", (32, 64))
    assert np.array_equal(canvas(dance, "[data-name='truth'] canvas"), truth)
    dance.click("#next")
    wait(dance, f"return state.row === {row + 1} && document.getElementById('model').dataset.frame === '{made + 1}'")
    dance.script("const s = document.getElementById('scrub'); s.value = 20; s.dispatchEvent(new Event('input'))")
    wait(dance, f"return document.getElementById('model').dataset.frame === '{made + 2}' && !state.busy")
    pose = images.read_image(place / "data/val/val_label/20.png", (32, 64))
    found = recovery.joints_of(pose)
    assert found is not None and np.allclose(joints(dance), found, atol=0.01, equal_nan=True), (
        "the figure is that of row 20"
    )
    dance.click("#play")
    wait(dance, "return state.row > 21")
    pull(dance, WRIST, 3, -3)
    assert dance.script("return state.byHand && state.row < 39"), "a hand takes over while it plays"
    stopped(dance)
    dance.click("#show-truth")


def test_it_plays_to_the_end_and_then_pauses(dance: browser.Browser) -> None:
    again(dance)
    dance.script("const s = document.getElementById('scrub'); s.value = 34; s.dispatchEvent(new Event('input'))")
    wait(dance, "return !state.busy && state.row === 34")
    dance.click("#play")
    wait(dance, "return state.row === 39 && !state.running")
    assert dance.script("return document.getElementById('play').textContent") == "Play"


def test_z_is_drawn_and_shown_beside_zero(dance: browser.Browser) -> None:
    again(dance)
    dance.click("#show-zero")
    dance.click("#sample")
    wait(dance, "return document.getElementById('model').dataset.frame === '1' && !state.busy")
    one = canvas(dance)
    assert dance.script("return document.querySelector(\"[name='latent']:checked\").value") == "prior"
    zero = canvas(dance, "[data-name='zero'] canvas")
    assert not np.array_equal(one, zero)
    again(dance)
    dance.script("document.getElementById('scale').value = 0; document.getElementById('next').click()")
    wait(dance, "return document.getElementById('model').dataset.frame === '1' && !state.busy")
    assert np.array_equal(canvas(dance), canvas(dance, "[data-name='zero'] canvas")), "nothing of z is left"
    dance.script(
        "document.getElementById('scale').value = 1; document.querySelector(\"[value='zero']\").checked = true"
    )
    dance.click("#show-zero")
    dance.click("#show-nearest")
    dance.click("#next")
    wait(dance, "return document.querySelector(\"[data-name='nearest'] output\").textContent.includes('frame')")
    dance.click("#show-nearest")


def test_the_keyboard_alone_does_it(dance: browser.Browser) -> None:
    again(dance)
    before = joints(dance)
    dance.script("state.chosen = 3; document.getElementById('stage').focus()")
    dance.press("#stage", "]")
    assert dance.script("return document.getElementById('told').textContent").startswith("right wrist, x ")
    dance.press("#stage", *["ArrowLeft"] * 3)
    wait(dance, "return Number(document.getElementById('model').dataset.frame) >= 2")
    assert joints(dance)[WRIST][0] < before[WRIST][0] - 1
    stopped(dance)
    pressed(dance, "r", "return document.getElementById('model').dataset.frame === '0' && !state.busy")
    pressed(dance, ".", "return document.getElementById('model').dataset.frame === '1' && state.row === 1")
    pressed(dance, " ", "return state.running && state.row > 2")
    pressed(dance, " ", "return !state.running")
    pressed(dance, "c", "return document.getElementById('record').getAttribute('aria-pressed') === 'true'")
    pressed(dance, ".", "return document.getElementById('record').textContent === 'Stop (1)'")
    kept = dance.script("return document.querySelectorAll('#kept li').length")
    pressed(dance, "c", f"return document.querySelectorAll('#kept li').length === {kept + 1}")


def test_a_finger_moves_a_joint_on_a_phone(dance: browser.Browser) -> None:
    dance.devtools("Emulation.setTouchEmulationEnabled", enabled=True)
    dance.resize(390, 844)
    again(dance)
    before, at = joints(dance), point(dance, WRIST)
    dance.script("window.scrollTo(0, 0)")
    at = point(dance, WRIST)
    dance.devtools("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": at[0], "y": at[1]}])
    for k in range(1, 8):
        dance.devtools(
            "Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": at[0] - 4 * k, "y": at[1] - 4 * k}]
        )
        time.sleep(0.03)
    dance.devtools("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    wait(dance, "return Number(document.getElementById('model').dataset.frame) > 1")
    stopped(dance)
    assert np.linalg.norm(joints(dance)[WRIST] - before[WRIST]) > 2
    assert dance.script("return window.scrollY") == 0, "the page does not scroll away under the finger"
    dance.devtools("Emulation.setTouchEmulationEnabled", enabled=False)
    dance.resize(1280, 900)


def test_a_picture_is_where_a_run_begins(dance: browser.Browser, place: Path, tmp_path: Path) -> None:
    frame = images.read_image(place / "data/train/train_img/7.png", (32, 64))
    content = base64.b64encode(images.encode_png(frame)).decode()
    dance.script(
        "const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));"
        "const data = new DataTransfer(); data.items.add(new File([bytes], 'mine.png', { type: 'image/png' }));"
        "document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))",
        content,
    )
    wait(dance, "return document.getElementById('model').dataset.frame === '0' && !state.busy")
    assert np.array_equal(canvas(dance), frame)
    dance.script(
        "const data = new DataTransfer(); data.items.add(new File(['no'], 'x.png'));"
        "document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))"
    )
    assert "the picture" in wait(dance, "const a = document.getElementById('alert'); return !a.hidden && a.textContent")
    assert all("400" in line for line in dance.console() if "willReadFrequently" not in line)
    again(dance)
    assert dance.script("return document.getElementById('alert').hidden")


def test_it_fits_a_phone_and_follows_the_dark(dance: browser.Browser, tmp_path: Path) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert dance.script(paper) == "rgb(255, 255, 255)"
    for width in (320, 390, 1280):
        dance.resize(width, 844)
        assert dance.script("return document.documentElement.scrollWidth") == width
        assert dance.script(CUT_OFF) == []
    dance.emulate(prefers_color_scheme="dark")
    assert max(map(int, re.findall(r"\d+", dance.script(paper)))) < 40
    assert min(map(int, re.findall(r"\d+", dance.script("return getComputedStyle(document.body).color")))) > 200
    dance.emulate()


def test_controls_and_pictures_have_names(dance: browser.Browser) -> None:
    tree = dance.devtools("Accessibility.getFullAXTree")["nodes"]
    named = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in tree if not n["ignored"] and "role" in n]
    wanted = {"button", "slider", "checkbox", "radio", "combobox", "image", "img", "application"}
    assert [(role, name) for role, name in named if role in wanted and not name] == []
    for one in (("button", "Record"), ("checkbox", "same with z = 0"), ("slider", "Frame of the sequence")):
        assert one in named
    assert any(role in ("image", "img") and "frame" in name for role, name in named)


# --- robot pushing, and the server's end -----------------------------------------------------------


def test_arrow_keys_and_the_pad_push(place: Path, window: browser.Browser) -> None:
    with playing(place, "runs/push-svg-fp", "--port", 0) as (address, _):
        window.open(address)
        wait(window, "return document.body.dataset.ready === ''")
        assert window.console() == []
        seen = {}
        for key in ("ArrowRight", "ArrowUp"):
            again(window)
            for kind in ("keyDown", "keyUp"):
                window.devtools("Input.dispatchKeyEvent", type=kind, key=key, code=key)
                if kind == "keyDown":
                    wait(window, "return Number(document.getElementById('model').dataset.frame) >= 4")
            wait(window, "return !state.running && !state.busy")
            stood = frame(window)
            time.sleep(0.4)
            assert frame(window) == stood, "nobody steers: nothing is dreamt"
            again(window)
            window.script(
                "state.keys.add(arguments[0]); state.byHand = true; document.getElementById('next').click()", key
            )
            wait(window, "return document.getElementById('model').dataset.frame === '2' && !state.busy")
            seen[key] = canvas(window)
            window.script("state.keys.clear()")
        assert not np.array_equal(seen["ArrowRight"], seen["ArrowUp"]), "the action matters"
        again(window)
        x, y, wide = window.script(
            "const b = document.getElementById('pad').getBoundingClientRect(); return [b.x, b.y, b.width]"
        )
        mouse(window, "Pressed", (x + 0.9 * wide, y + 0.5 * wide))
        wait(window, "return Number(document.getElementById('model').dataset.frame) >= 3")
        asked = window.script("return action()")
        assert asked[0] > 0 and asked[1] == pytest.approx(0, abs=0.05)
        mouse(window, "Released", (x, y))
        wait(window, "return !state.running")


def test_the_page_says_that_the_server_is_gone_and_goes_on_when_it_is_back(
    place: Path, window: browser.Browser
) -> None:
    with playing(place, "runs/dance-001", "--port", 8399) as (address, process):
        window.open(address)
        wait(window, "return document.body.dataset.ready === ''")
        window.click("#play")
        wait(window, "return state.row > 2")
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait(window, "return document.body.classList.contains('gone') && !document.getElementById('alert').hidden")
        assert "has ended" in window.script("return document.getElementById('alert').textContent")
    with playing(place, "runs/dance-001", "--port", 8399) as (again_address, _):
        assert again_address == address, "the secret is kept for this user's run"
        wait(window, "return document.body.dataset.ready === '' && !document.body.classList.contains('gone')")
        window.click("#play")
        wait(window, "return state.row > 2")
