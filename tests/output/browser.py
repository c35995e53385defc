"""A headless Chromium, driven over the WebDriver protocol with nothing but the standard library."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    "--force-prefers-reduced-motion",  # or a click could come while the page still scrolls smoothly
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element in WebDriver's answers
KEYS = {"ArrowRight": "\ue014", "ArrowLeft": "\ue012", "End": "\ue010", "Home": "\ue011"}


def missing() -> str:
    """What is not installed, or ""."""
    programs = {"chromium": shutil.which("chromium") or shutil.which("google-chrome"), "chromedriver": _driver()}
    return " and ".join(name for name, path in programs.items() if not path)


def _driver() -> str | None:
    return shutil.which("chromedriver")


class Browser:
    """One window. Errors of WebDriver are raised with what the browser said."""

    def __init__(self, port: int, profile: str) -> None:
        self._base = f"http://127.0.0.1:{port}"
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {
                "args": [*FLAGS, f"--user-data-dir={profile}"],
                "binary": shutil.which("chromium") or shutil.which("google-chrome"),
            },
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/session/{answer['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, page: Path | str) -> None:
        """A file, or an address."""
        self._call("POST", "/url", {"url": page if isinstance(page, str) else page.resolve().as_uri()})

    def script(self, code: str, *arguments: Any) -> Any:
        """The value that a function body returns."""
        return self._call("POST", "/execute/sync", {"script": code, "args": arguments})

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def find(self, selector: str) -> dict[str, str]:
        found: dict[str, str] = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return found

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self.find(selector)[ELEMENT]}/click", {})

    def press(self, selector: str, *keys: str) -> None:
        """Real key events on an element."""
        text = "".join(KEYS.get(key, key) for key in keys)
        self._call("POST", f"/element/{self.find(selector)[ELEMENT]}/value", {"text": text})

    def console(self) -> list[str]:
        """What was logged since the last look."""
        return [f"{e['level']}: {e['message']}" for e in self._call("POST", "/se/log", {"type": "browser"})]

    def resize(self, width: int, height: int) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def emulate(self, media: str = "", **features: str) -> None:
        """``emulate("print")``, or media features with _ for -, such as prefers_color_scheme="dark"."""
        found = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", media=media, features=found)

    def screenshot(self, target: Path, whole: bool = False) -> None:
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        target.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with an empty profile, which is gone with all it wrote when the block ends."""
    with (
        tempfile.TemporaryDirectory() as profile,
        subprocess.Popen(
            [_driver() or "", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as driver,
    ):
        try:
            assert driver.stdout
            port = next(
                int(m[1]) for line in driver.stdout if (m := re.search(r"started successfully on port (\d+)", line))
            )
            browser = Browser(port, profile)
            try:
                yield browser
            finally:
                browser._call("DELETE", "")
        finally:
            driver.terminate()
