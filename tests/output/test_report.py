"""The report page: complete in itself, escaped, allowed by its own policy, and alive in a real browser."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidcvae import config as settings
from vidcvae.evaluation.drift import AgeTest, Drift
from vidcvae.output import player, plots, report

from . import browser

BAD = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&"
H, W, FRAMES = 16, 32, 40


def video(seed: int) -> np.ndarray:
    """Frames that all differ, so that a picture tells which one it is."""
    frames = np.random.default_rng(seed).integers(0, 256, (FRAMES, 3, H, W), np.uint8)
    frames[:, :, :8, :8] = (np.arange(FRAMES) * 6)[:, None, None, None]
    return frames


def entry(number: int, name: str) -> report.Entry:
    config = settings.resolve_saved({"kl": {"type": ("cyclical", "none")[number % 2]}, "data": {"path": BAD}})
    history: list[dict[str, Any]] = []
    for step in range(1, 31):
        terms = {"total": 30 / step, "reconstruction": 1 / step, "kl": 9 / step, "beta": 0.5, "teacher_forcing": 0.1}
        line = {
            "step": step,
            "epoch": (step - 1) // 10,
            "forced": 0.1,
            "lr": 1e-3,
            "predicted": 15.0,
            "minutes": step / 12,
            **terms,
        }
        history += [{"kind": "step", **line}, *([{"kind": "epoch", **line}] if step % 10 == 0 else [])]
    curve = [20.0 + number + t / 100 for t in range(1, FRAMES)]
    record = {
        "psnr_mean": float(np.mean(curve)), "psnr_per_frame": curve, "ssim_mean": 0.8, "kl": 3.0, "active_units": 7,
        "baseline_copy_first_psnr": 16.0, "model": {"minutes": 2.5, "parameters": 1234567},
        "protocol": {"dataset": BAD, "split": "val", "past": 1, "future": FRAMES - 1, "step": 30, "latent": "zero"},
    }  # fmt: skip
    info = {
        "command": ["/usr/bin/vidcvae", "train", BAD],
        "vidcvae": "0.1.0",
        "torch": "2",
        "python": "3",
        "processor": "Abacus 2",
    }
    times = list(range(1, FRAMES))
    drift = Drift(times, curve, [None, *curve[1:]], 5, AgeTest((30, 39), 20, 20.0, 21.5))
    return report.Entry(plots.Run(name, config, history), info, record, drift, notes=(BAD,))


@pytest.fixture(scope="module")
def made() -> report.Report:
    entries = (entry(0, BAD), entry(1, "run-002"))
    videos = (
        player.Video("truth", video(0)),
        player.Video(BAD, video(1), entries[0].record["psnr_per_frame"] if entries[0].record else ()),
        player.Video("run-002", video(2), entries[1].record["psnr_per_frame"] if entries[1].record else ()),
    )
    scenes = (player.Scene(BAD, 25.0, 1, videos),)
    return report.Report(entries, scenes, {"system": BAD}, f"vidcvae report {BAD}", "2026-01-31")


@pytest.fixture(scope="module")
def page(made: report.Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report.render(made), "utf-8")
    return path


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.raw[self.cdata_elem][-1] += data


def test_nothing_from_outside_becomes_markup_and_nothing_is_fetched(page: Path) -> None:
    elements = Elements(page.read_text("utf-8"))
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert scripts == [{"type": "application/json"}, {}], "the player's plan and the page's own script"
    assert json.loads(elements.raw["script"][0])["videos"][1]["name"] == BAD
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href", "data", "action"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), (tag, address)
    assert "http:" not in page.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")


def test_the_policy_allows_this_script_and_style_alone(page: Path) -> None:
    elements = Elements(page.read_text("utf-8"))
    policy = next(a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    for text in (elements.raw["script"][1], elements.raw["style"][0]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy) and "unsafe" not in str(policy)


def test_headings_images_and_ids_are_in_order(page: Path) -> None:
    elements = Elements(page.read_text("utf-8")).found
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), levels
    assert all(attributes.get("alt") for tag, attributes in elements if tag == "img")
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(a["href"])[1:] for tag, a in elements if tag == "a"]
    assert set(links) <= set(ids)


def test_the_numbers_are_those_of_the_records(page: Path, made: report.Report) -> None:
    text = page.read_text("utf-8")
    for each in made.entries:
        assert each.record
        assert f"<td>{each.record['psnr_mean']:.2f}</td>" in text
    assert "reaches 21.20 dB over 39 frames made from one given frame" in text
    assert "Repeating the first frame scores 16.00 dB: kl.type = none wins by 5.20 dB. Higher is better." in text
    assert "<td>1,234,567</td><td>30 of 700</td><td>3 of 70</td><td>2.5</td><td>Abacus 2</td>" in text, "what was done"
    assert 'id="rate-0' in text and 'id="plan' not in text, "the learning rate that was, not the plan"
    assert "<td>cyclical</td><td>none</td>" in text, "what differs"
    assert "Age test: frames 30 to 39, compared with a run restarted at frame 20" in text and "<td>1.50</td>" in text


@pytest.mark.parametrize(
    ("baseline", "says"),
    [
        (21.2, "Repeating the first frame scores 21.20 dB: the two are equal"),
        (24.0, "Repeating the first frame scores 24.00 dB: a still picture wins by 3.80 dB"),
        (16.0, "the model wins by 4.20 dB"),
    ],
)
def test_it_says_in_words_which_number_wins(baseline: float, says: str) -> None:
    alone = entry(0, "run-001")
    assert alone.record
    alone.record["baseline_copy_first_psnr"] = baseline if baseline != 21.2 else alone.record["psnr_mean"]
    text = report.render(report.Report((alone,), (), {}, "vidcvae report", "2026-01-31"))
    assert says.replace("21.20", "20.20") in text


def test_the_training_frame_of_the_nearest_pose_stands_beside_the_copy(made: report.Report) -> None:
    """In the table, in words for the best run, and as a note of those that only remember."""
    entries = (entry(0, "run-001"), entry(1, "run-002"))
    for each in entries:
        assert each.record
        each.record["baseline_nearest_pose_psnr"] = 20.7  # between 20.2 and 21.2
    text = report.render(report.Report(entries, (), {}, "vidcvae report", "2026-01-31"))
    assert "wins by 5.20 dB. kl.type = none beats the nearest training frame by 0.50 dB. Higher is better." in text
    assert '<th scope="row">training frame of the nearest pose</th><td>20.70</td>' in text
    note = "kl.type = cyclical does not beat repeating the training frame of the nearest pose: "
    assert f"{note}it does no better than memorising would." in text
    assert "nearest" not in report.render(made), "records of an older version do not tell"


def test_a_run_that_has_nothing_yet_is_still_told(made: report.Report) -> None:
    bare = report.Entry(plots.Run("new", settings.resolve_saved({}), []), {}, notes=("no checkpoint yet",))
    text = report.render(report.Report((bare,), (), {}, "vidcvae report new", "2026-01-31"))
    assert "The run new" in text and "no checkpoint yet" in text and "<canvas" not in text


def frames_of(html: str, scene: player.Scene) -> list[np.ndarray]:
    """The frames that stand in the first image of a player, cut out again."""
    elements = Elements(html)
    plan = json.loads(elements.raw["script"][0])
    source = next(str(a["src"]) for tag, a in elements.found if tag == "img")
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))
    _, _, height, width = scene.videos[0].frames.shape
    found = []
    for i in range(len(plan["frames"])):
        row, column = divmod(i, plan["columns"])
        part = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        found.append(part.transpose(2, 0, 1))
    return found


def test_frames_are_carried_without_loss() -> None:
    scene = player.Scene("s", 25, 1, (player.Video("truth", video(5)),))
    assert np.array_equal(np.stack(frames_of(player.player(scene), scene)), video(5))


def test_videos_that_would_be_too_large_are_thinned_and_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "MOST_PIXELS", 10 * H * W)
    monkeypatch.setattr(player, "LOSSLESS_PIXELS", 5 * H * W)
    scene = player.Scene("s", 25, 1, (player.Video("truth", video(5), [20.0 + t for t in range(1, FRAMES)]),))
    html = player.player(scene)
    assert "Every 4th frame" in html and "a little loss" in html
    plan = json.loads(Elements(html).raw["script"][0])
    assert plan["frames"] == list(range(0, FRAMES, 4)) and plan["fps"] == 25 / 4
    assert plan["videos"][0]["psnr"] == [None, *(20.0 + t for t in range(4, FRAMES, 4))]
    marks = [frame[:, :8, :8].mean() for frame in frames_of(html, scene)]
    assert marks == pytest.approx([t * 6 for t in range(0, FRAMES, 4)], abs=12), "the right frames, nearly"


# --- in a real browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def window(page: Path) -> Iterator[browser.Browser]:
    if lacking := browser.missing():
        pytest.skip(f"{lacking} not installed (Debian: apt-get install chromium chromium-driver)")
    with browser.chromium() as found:
        found.resize(1100, 900)
        found.open(page)
        wait(found, "return document.querySelector('.player').dataset.ready === ''")
        yield found


def wait(window: browser.Browser, condition: str) -> None:
    deadline = time.monotonic() + 30
    while not window.script(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


MARK = """return [...document.querySelectorAll('canvas')].map((c) =>
  [...c.getContext('2d').getImageData(3, 3, 1, 1).data.slice(0, 3)])"""


def shown(window: browser.Browser) -> int:
    """The frame that all canvases show, by their pixels."""
    marks = window.script(MARK)
    assert len(marks) == 3 and len({tuple(m) for m in marks}) == 1 and len(set(marks[0])) == 1, marks
    return int(marks[0][0]) // 6


def test_it_opens_without_a_word_in_the_console(window: browser.Browser) -> None:
    assert window.console() == []
    assert window.script("return document.title").startswith("2 runs that differ in kl.type")
    assert shown(window) == 20, "mid-way, where a model no longer shows what it was given"


def test_slider_keys_and_button_move_all_videos(window: browser.Browser) -> None:
    window.script("const s = document.querySelector('.player input'); s.value = 7; s.dispatchEvent(new Event('input'))")
    assert shown(window) == 7
    label = "return document.querySelectorAll('canvas')[2].getAttribute('aria-label')"
    assert window.script(label) == "run-002, frame 7, 21.07 dB"
    assert window.script("return document.querySelectorAll('.screen output')[2].textContent") == "21.07 dB"
    assert (
        window.script("return document.querySelector('.player input').getAttribute('aria-valuetext')")
        == "frame 7 of 39"
    )
    window.press(".player input", "ArrowRight", "ArrowRight", "ArrowLeft")
    assert shown(window) == 8
    window.press(".player input", "End")
    assert shown(window) == 39
    cursor = "return document.querySelector('[data-cursor] .cursor').getAttribute('d')"
    assert window.script(cursor).startswith("M628.0 "), "the plot's cursor stands at the last frame"
    window.press(".player input", "Home")
    window.click(".player button")
    assert window.script("return document.querySelector('.player button').textContent") == "Pause"
    wait(window, "return Number(document.querySelector('.player input').value) > 3")
    window.press(".player input", "k")
    still = shown(window)
    assert still > 3 and window.script("return document.querySelector('.player button').textContent") == "Play"
    time.sleep(0.2)
    assert shown(window) == still
    # the browser advises us, who read its pixels, and not the page
    assert [line for line in window.console() if "willReadFrequently" not in line] == []


# What lies beyond the edge of the box that shows it, so that one would have to know that it can be moved
CUT_OFF = """return [...document.querySelectorAll('main .scroll, main pre, main td, main th')].filter((e) =>
  e.offsetParent && !e.closest('details:not([open])') && e.scrollWidth > e.clientWidth + 1)
  .map((e) => e.textContent.slice(0, 60))"""


def test_it_fits_a_phone_and_follows_the_dark(window: browser.Browser, tmp_path: Path) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert window.script(paper) == "rgb(255, 255, 255)"
    for width in (320, 375, 390, 1100):
        window.resize(width, 800)
        assert window.script("return document.documentElement.scrollWidth") == width
        if width < 400:
            assert window.script(CUT_OFF) == []
    assert window.script("return getComputedStyle(document.querySelector('.wide tr')).display") == "table-row"
    window.emulate(prefers_color_scheme="dark")
    red, green, blue = map(int, re.findall(r"\d+", window.script(paper)))
    assert max(red, green, blue) < 40
    ink = window.script("return getComputedStyle(document.body).color")
    assert min(map(int, re.findall(r"\d+", ink))) > 200
    window.screenshot(tmp_path / "dark.png")
    assert np.asarray(Image.open(tmp_path / "dark.png").convert("L")).mean() < 60
    window.emulate("print")
    visible = "return ['.player', '.stills', 'nav'].map((s) => document.querySelector(s).offsetParent !== null)"
    assert window.script(visible) == [False, True, False], "paper shows stills in place of the player"
    window.emulate()


def test_curves_are_seen_in_the_colours_of_the_mode(window: browser.Browser, tmp_path: Path) -> None:
    def blue(scheme: str, colour: tuple[int, int, int], display: str) -> int:
        """How many pixels have the first run's colour where the losses are."""
        window.emulate(prefers_color_scheme=scheme)
        window.script(f"for (const c of document.querySelectorAll('#loss polyline')) c.style.display = '{display}'")
        window.script("document.getElementById('loss').scrollIntoView({behavior: 'instant'})")
        window.screenshot(tmp_path / "curves.png")
        pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"), dtype=int)
        return int((np.abs(pixels - colour).max(axis=-1) < 40).sum())

    window.resize(1100, 900)
    for scheme, colour in (("light", (0, 114, 178)), ("dark", (88, 176, 234))):
        assert blue(scheme, colour, "inline") > 2 * blue(scheme, colour, "none"), "more than the legend and links"
    window.emulate()


def test_images_and_controls_have_names(window: browser.Browser) -> None:
    nameless = """return [...document.querySelectorAll('img, canvas, input, select, button, svg')].filter((e) =>
      !(e.alt || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.closest('label')
        || e.textContent.trim() || e.getAttribute('aria-hidden'))).map((e) => e.outerHTML.slice(0, 80))"""
    assert window.script(nameless) == []
    tree = window.devtools("Accessibility.getFullAXTree")["nodes"]
    named = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in tree if not n["ignored"] and "role" in n]
    assert ("slider", "Frame") in named and ("button", "Play") in named
    pictures = [name for role, name in named if role in ("image", "img")]
    assert len(pictures) >= 9 and all(pictures)
