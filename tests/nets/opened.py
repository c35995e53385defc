"""Open what a command has written as the program it is meant for would: decode every frame, parse every row."""

from __future__ import annotations

import csv
import json
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import av
from PIL import Image
from safetensors import safe_open


def opened(path: Path) -> dict[str, Any]:
    """What there is in a file or folder: "frames" and "size" (width, height) of pictures, "rows" of tables.

    Raises, with whatever error, for one that cannot be read to its end.
    """
    if path.is_dir():
        found = [opened(file) for file in sorted(path.iterdir())]
        return {"files": len(found), "frames": len(found), "size": found[0].get("size")}
    assert path.stat().st_size > 0, f"{path} is empty"
    return _READERS[path.suffix](path)


def _picture(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        frames = getattr(image, "n_frames", 1)
        for index in range(frames):
            image.seek(index)
            image.load()
        return {"frames": frames, "size": image.size}


def _video(path: Path) -> dict[str, Any]:
    with av.open(path) as file:
        frames = [(frame.width, frame.height) for frame in file.decode(video=0)]
    return {"frames": len(frames), "size": frames[0]}


def _csv(path: Path) -> dict[str, Any]:
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert {len(row) for row in rows} == {len(head)}, f"{path} has rows of unequal length"
    return {"rows": len(rows), "columns": len(head)}


def strict_json(text: str) -> Any:
    """One JSON document and nothing else; NaN and Infinity, which JSON has not, are refused."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _json(path: Path) -> dict[str, Any]:
    return {"value": strict_json(path.read_text("utf-8"))}


def _toml(path: Path) -> dict[str, Any]:
    return {"value": tomllib.loads(path.read_text("utf-8"))}


def _svg(path: Path) -> dict[str, Any]:
    root = ElementTree.parse(path).getroot()
    assert root.tag.endswith("svg") and len(root), f"{path} is no drawing"
    return {"size": (root.get("width"), root.get("height"))}


def _pdf(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF"), f"{path} is no whole PDF"
    return {"frames": content.count(b"/Type /Page ")}


class _Page(HTMLParser):
    VOID = frozenset({"meta", "link", "img", "br", "hr", "input", "source", "col", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.remote: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.remote += [value for name, value in attributes if name == "src" and value and value.startswith("http")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def _html(path: Path) -> dict[str, Any]:
    page = _Page()
    page.feed(path.read_text("utf-8"))
    page.close()
    assert not page.open and {"title", "table"} <= {*page.seen}, f"{path} is no whole page: {page.open}"
    assert not page.remote, f"{path} asks the network for {page.remote}"
    return {"tags": page.seen}


def _markdown(path: Path) -> dict[str, Any]:
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1, f"{path} has rows of unequal length"
    return {"rows": len(lines) - 2}


def _safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, "numpy") as file:
        return {"rows": sum(file.get_tensor(name).size > 0 for name in file.keys())}  # noqa: SIM118 - no mapping


_READERS = {
    ".png": _picture,
    ".gif": _picture,
    ".mp4": _video,
    ".csv": _csv,
    ".json": _json,
    ".toml": _toml,
    ".svg": _svg,
    ".pdf": _pdf,
    ".html": _html,
    ".md": _markdown,
    ".safetensors": _safetensors,
}
