"""Record the picture of the live page in a real browser, or measure the speed of the page.

To record, with chromium and chromedriver installed, in the repository's folder:
    vidcvae dataset synth dance -o my-dance
    vidcvae train my-dance --preset anchor-cpu --max-minutes 10 --run dancer
    vidcvae play dancer --no-browser --port 8400 --json
    python -m docs.play ADDRESS docs/images/play.gif

To measure, with 20 seconds of dragging at 60 moves a second:
    python -m docs.play ADDRESS
"""

import base64
import io
import math
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.output.browser import Browser, chromium
from vidcvae.output import video
from vidcvae.own_clips.skeleton import JOINTS

FPS, ROW, WIDTH = 15, 112, 640
WRISTS, HIP, HEAD = (
    [JOINTS.index(f"{side}_wrist") for side in ("right", "left")],
    JOINTS.index("mid_hip"),
    JOINTS.index("nose"),
)


def mouse(window: Browser, kind: str, x: float, y: float) -> None:
    window.devtools("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left",
                    buttons=int(kind != "Released"), clickCount=1)  # fmt: skip


def place(window: Browser, joint: int) -> tuple[float, float, float]:
    """Return x and y of a joint on the screen, and the size of a frame's pixel there, all in screen pixels."""
    return tuple(window.script(
        "const b = document.getElementById('figure').getBoundingClientRect(), s = b.width / width;"
        "const [x, y] = state.joints[arguments[0]]; return [b.x + x * s, b.y + y * s, s]", joint))  # fmt: skip


def paths() -> list[tuple[int, list[tuple[float, float]]]]:
    """Return each joint to drag with its path: (dx, dy) from its start, in pixels of the frame."""
    wave = [(-5 * math.sin(t / 20 * math.pi / 2), -11 * (1 - math.cos(t / 20 * math.pi / 2))) for t in range(21)]
    wave += [(-5 - 2 * math.sin(t / 3), -11 - 0.7 * math.cos(t / 3)) for t in range(16)]
    other = [(6 * math.sin(t / 16 * math.pi / 2), -8 * (1 - math.cos(t / 16 * math.pi / 2))) for t in range(17)]
    walk = [(0.45 * t, 0.0) for t in range(64)]
    return [
        (WRISTS[0], wave),
        (WRISTS[1], other),
        (HIP, walk),
        (HIP, [(0, 3 * math.sin(t / 16 * math.pi)) for t in range(17)]),
    ]


def record(window: Browser, target: Path) -> None:
    window.script(
        "const s = document.getElementById('scrub'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))", ROW
    )
    time.sleep(1)
    window.click("#here")
    time.sleep(1)
    box = window.script(
        "const a = document.getElementById('stage').getBoundingClientRect(); return [a.x, a.y, a.width, a.height]"
    )
    clip = {**dict(zip(("x", "y", "width", "height"), box, strict=True)), "scale": WIDTH / box[2]}
    frames: list[np.ndarray] = []
    for joint, path in paths():
        x, y, pixel = place(window, joint)
        mouse(window, "Pressed", x, y)
        for dx, dy in path:
            made = "return Number(document.getElementById('model').dataset.frame)"
            before = window.script(made)
            mouse(window, "Moved", x + dx * pixel, y + dy * pixel)
            while window.script(made) < before + 2:  # every other frame of 30 a second
                time.sleep(0.01)
            shot = base64.b64decode(window.devtools("Page.captureScreenshot", format="png", clip=clip)["data"])
            frames.append(np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).transpose(2, 0, 1))
        mouse(window, "Released", x, y)
    video.save(target, frames, FPS)


def measure(window: Browser, seconds: float = 20) -> str:
    x, y, pixel = place(window, WRISTS[0])
    mouse(window, "Pressed", x, y)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        mouse(window, "Moved", x + 5 * pixel * math.sin(4 * passed), y - 5 * pixel * (1 - math.cos(3 * passed)))
        time.sleep(1 / 60)
    told: str = window.script("return document.getElementById('speed').textContent")
    mouse(window, "Released", x, y)
    return told


def main(address: str, target: str = "") -> None:
    with chromium() as window:
        window.resize(1100, 700)
        window.open(address)
        while not window.script("return document.body.dataset.ready === ''"):
            time.sleep(0.1)
        if target:
            record(window, Path(target))
        else:
            print(measure(window))


if __name__ == "__main__":
    main(*sys.argv[1:])
