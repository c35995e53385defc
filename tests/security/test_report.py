"""The report page from a run folder that somebody else made: what stands in its files is text on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.security.readers import small_config
from vidcvae import config as settings

pytestmark = pytest.mark.reliability
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onload=alert(3) javascript:alert(4)&lt;/style><b>"


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def write_run(folder: Path, evil: str) -> Path:
    folder.mkdir()
    config = settings.with_values(small_config(), {"data": {"path": evil}})
    (folder / "config.toml").write_text(settings.to_toml(config), "utf-8")
    line = {"step": 1, "epoch": 0, "total": 1.0, "reconstruction": 0.5, "kl": 0.5, "beta": 0.5, "teacher_forcing": 0.0,
            "forced": 0.0, "lr": 1e-3, "predicted": 15.0, "grad_norm": 1.0, "note": evil}  # fmt: skip
    lines = [{"kind": kind, **line} for kind in ("step", "epoch")]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    info = {"command": ["vidcvae", evil], "versions": {evil: evil}, "dataset": evil, "vidcvae": evil, "torch": evil}
    (folder / "run.json").write_text(json.dumps(info | {"python": evil, "host": evil, "started": evil}))
    return folder


def test_nothing_in_a_run_s_files_becomes_part_of_the_page(
    tmp_path: Path, cli: Cli, count: Callable[[str, int], None]
) -> None:
    plain = write_run(tmp_path / "plain", "plain")
    evil = write_run(tmp_path / EVIL.replace("/", "|"), EVIL)
    pages = []
    for run in (plain, evil):
        found = cli("report", run, "--no-videos", "-o", tmp_path / "r.html")
        assert found.code == 0, found.err
        pages.append((tmp_path / "r.html").read_text("utf-8"))
    assert "alert(1)" in pages[1] and EVIL not in pages[1]
    shapes = [[(tag, sorted(attributes)) for tag, attributes in Elements(page).found] for page in pages]
    assert shapes[0] == shapes[1]  # the same elements with the same attributes, whatever the words
    assert sum(tag == "script" for tag, _ in shapes[1]) == 1
    assert not any(name.startswith("on") for _, names in shapes[1] for name in names)
    addresses = [v for _, a in Elements(pages[1]).found for k, v in a.items() if k in ("href", "src")]
    assert all(address and address.startswith(("#", "data:")) for address in addresses)
    count("reports of malicious runs, escaped", 1)
