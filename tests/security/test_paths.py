"""Names and paths in files lead nowhere else, wait for nothing, and command no terminal."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.security.readers import READERS, SIZE, checkpoint_file, dance, picture
from tests.security.test_fuzz import write
from vidcvae.data import packed, pose_folder, trajectories
from vidcvae.errors import DataError, VidcvaeError
from vidcvae.output import figures, plots
from vidcvae.workflow.datasets import open_dataset

pytestmark = pytest.mark.reliability


@pytest.fixture(autouse=True)
def not_for_ever() -> Iterator[None]:
    """Waiting for a pipe ends a test, not the whole session."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    packed.write(dance(), tmp_path / "pack")
    return tmp_path / "pack"


# --- what is no file -------------------------------------------------------------------------------

STAND_INS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nowhere": lambda path: path.symlink_to("no/where"),
    "a folder": Path.mkdir,
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("what", STAND_INS)
@pytest.mark.parametrize("name", [name for name in READERS if name != "--set values"])  # these are no files
def test_what_is_no_file_is_refused_at_once(
    name: str, what: str, tmp_path: Path, count: Callable[[str, int], None]
) -> None:
    reader = READERS[name]
    files = reader.files()
    write(tmp_path, files)
    # of a folder something may be missing: a clip's tables, the last pose, dataset.toml
    may_lack = what in ("nothing", "a link to nowhere", "a link to itself") and (len(files) > 1 or "toml" in name)
    for file in [file for file in files if file.endswith(reader.only)]:
        (tmp_path / file).unlink()
        STAND_INS[what](tmp_path / file)
        try:
            reader.read(tmp_path)
            assert may_lack, f"{file} was read"
        except VidcvaeError as refused:
            assert refused.exit_code in (2, 4)
            assert Path(file).name in refused.message or str(tmp_path) in refused.message
        path = tmp_path / file
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        path.write_bytes(files[file])
    count("pipes, devices, loops and holes in place of files", 1)


# --- out of the folder -----------------------------------------------------------------------------


def change(pack: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((pack / "manifest.json").read_bytes())
    alter(manifest)
    (pack / "manifest.json").write_text(json.dumps(manifest))


ODD_FILES = [
    "../data-00000.bin", "../pack/data-00000.bin", "/etc/passwd", "/dev/zero", "./data-00000.bin", "data-00000.bin/",
    "C:\\data-00000.bin", "C:data-00000.bin", "\\\\host\\share\\data-00000.bin", "..\\data-00000.bin",
    "data-00000.bin\0", "data-00000.bin\n", "data-\u0660\u0660000.bin", "data-0000O.bin", "DATA-00000.BIN",
    "manifest.json", "", ".", "..", "~", "${HOME}", "con", "x" * 5000, 0, None, [], ["data-00000.bin"],
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_FILES)
def test_a_manifest_names_nothing_outside_its_folder(name: Any, pack: Path, count: Callable[[str, int], None]) -> None:
    (pack.parent / "data-00000.bin").write_bytes((pack / "data-00000.bin").read_bytes())
    change(pack, lambda manifest: manifest["splits"]["train"][0]["frames"].update(file=name))
    with pytest.raises(
        DataError, match=r"manifest\.json is damaged: the frames of sequence 0 of train name an odd file"
    ):
        packed.open_packed(pack)
    count("malicious files, refused in words", 1)


def test_links_out_of_a_packed_dataset_are_refused(pack: Path) -> None:
    data = pack / "data-00000.bin"
    outside = data.rename(pack.parent / "secret.bin")
    for target in (outside, Path("../secret.bin")):
        data.symlink_to(target)
        with pytest.raises(DataError, match=r"data-00000\.bin: it is a link to a file outside the dataset"):
            packed.open_packed(pack)
        data.unlink()
    outside.rename(pack / "data.bin")
    data.symlink_to("data.bin")
    assert len(packed.open_packed(pack, verify=True).split("train")[0]) == 3
    (pack.parent / "link").symlink_to(pack)  # the dataset as a whole may be one
    assert len(packed.open_packed(pack.parent / "link", verify=True).split("train")[0]) == 3


ODD_NAMES = [
    ("../../evil", None), ("..", None), ("..\\..\\evil", None), ("C:evil", None), ("/etc/evil", None),
    ("a/b/c", None), ("~/evil", None), ("con", None), ("evil\0", "has no name"), ("evil\n", "has no name"),
    ("\x1b[31mevil", "has no name"), ("x" * 2000, "has no name"), ("", "has no name"), (7, "has no name"),
    ("\ud800", "has no name"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "says"), ODD_NAMES)
def test_a_sequence_s_name_leads_nowhere(
    name: Any, says: str | None, pack: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GIF of each sequence is named after it, and stays in its folder."""
    change(pack, lambda manifest: manifest["splits"]["test"][0].update(name=name))
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    (tmp_path / "x.safetensors").write_bytes(checkpoint_file())
    before = set(tmp_path.rglob("*"))
    found = cli("export", tmp_path / "x.safetensors", "--data", pack, "-o", "out/s.csv", "--gifs", "out/gifs")
    new = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
    if says:
        assert found.code == 4 and says in found.err and not new
        return
    assert found.code == 0, found.err
    assert {"a/b/out", "a/b/out/gifs", "a/b/out/s.csv"} < new and len(new) == 4
    (gif,) = (tmp_path / "a/b/out/gifs").iterdir()
    assert gif.suffix == ".gif" and not {*'\\:/~"'} & {*gif.name}


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 300, "x/" * 3000, "\x1b[2J\x1b[31m", "a\nerror: b", "", "."])
def test_odd_paths_in_a_configuration(path: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(f"data.path = {json.dumps(path)}\n", "utf-8")
    if path == "":
        return  # the built-in data
    found = cli("train", "--config", "c.toml", "--dry-run", "--plain")
    assert found.code == (2 if path == "\ud800" else 4)  # TOML has no lone surrogates
    assert "\x1b" not in found.err and "\0" not in found.err and "\nerror: b" not in found.err
    assert len([line for line in found.err.splitlines() if line.startswith("error: ")]) == 1


# --- the terminal ----------------------------------------------------------------------------------

EVIL_NAMES = [
    "\x1b]0;owned\x07.png",
    "\x1b[2J.png",
    "a\nerror: all is well.png",
    "\u202egnp.0.png",
    "a\rb.png",
    "\x9b31m.png",
]


def test_names_of_files_command_no_terminal(tmp_path: Path, cli: Cli) -> None:
    root = tmp_path / "dance"
    pose_folder.write_folder(dance(), root)
    for name in EVIL_NAMES:
        (root / "train" / "train_img" / name).write_bytes(picture(1))
    (root / "test" / "test_img" / "[red]x[bold] :bomb:").mkdir()
    found = cli("dataset", "inspect", root)
    shown = found.out + found.err
    assert found.code == 4  # the folder without poses
    assert "[red]x[bold] :bomb:" in shown  # as it is: neither markup nor emoji
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert not any(line.startswith("error: all is well") for line in shown.splitlines())
    listed = pose_folder.scan(root).notes
    assert len(listed) == len(EVIL_NAMES) and all("is ignored" in note.text for note in listed)


def test_bytes_that_are_no_text_in_a_name(tmp_path: Path, cli: Cli) -> None:
    root = tmp_path / os.fsdecode(b"dance\xff")
    pose_folder.write_folder(dance(), root)
    (root / "test" / "test_img" / os.fsdecode(b"\xfe")).mkdir()
    found = cli("dataset", "inspect", root, "--json")
    assert found.code == 0 and found.out.encode()  # can be written
    assert json.loads(found.out)["splits"]["train"]["sequences"] == 1
    assert "\\udcff" in cli("dataset", "inspect", root / "nothing").err


def test_markup_and_escapes_in_facts_and_manifests(tmp_path: Path, pack: Path, cli: Cli) -> None:
    change(pack, lambda m: m.update(name="[bold red]x[/] :bomb:", splits={"[blink]": m["splits"]["train"]}))
    found = cli("dataset", "inspect", pack)
    assert found.code == 0 and "[blink]" in found.out
    for alter in (
        lambda m: m.update(name="\x1b[2J"),
        lambda m: m.update(splits={"\x1b[2J": m["splits"]["[blink]"]}),
        lambda m: m["splits"]["[blink]"][0]["tracks"].update({"\x1b[2J": m["splits"]["[blink]"][0]["frames"]}),
        lambda m: m.update({"\x1b[2J": 1}),
        lambda m: m.update(version="\x1b[2J"),
        lambda m: m.update(kind="\x1b[2J"),
    ):
        before = (pack / "manifest.json").read_bytes()
        change(pack, alter)
        found = cli("dataset", "inspect", pack)
        assert found.code == 4 and "\x1b" not in found.out + found.err
        (pack / "manifest.json").write_bytes(before)
    root = tmp_path / "push"
    write(root, READERS["pushing folders"].files() | {"dataset.toml": b'name = "\\u001b[2J"\n'})
    found = cli("dataset", "inspect", root)
    assert found.code == 4 and "name must be a text in quotes, on one line" in found.err


def test_a_caches_folder_is_where_it_should_be(tmp_path: Path) -> None:
    """It is named after the dataset, whose name is in its dataset.toml."""
    root = tmp_path / "push"
    write(root, READERS["pushing folders"].files() | {"dataset.toml": b'name = "../../../evil"\n'})
    open_dataset(root, SIZE, tmp_path / "cache")
    assert {path.parent for path in tmp_path.rglob("manifest.json")} == {*(tmp_path / "cache").iterdir()}
    assert len([*(tmp_path / "cache").iterdir()]) == 1


@pytest.mark.parametrize("form", ["text", "table"])
def test_the_terminal_is_never_commanded(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever passes through ``ui``, on a real terminal too."""
    from vidcvae.cli import ui

    evil = "[red]x[/red] :bomb: \x1b[31m\x07\x9b2J\u202e\udc80"
    screen = io.StringIO()
    shown = ui._Console(file=screen, force_terminal=True, width=200, color_system=None)
    for stream in ("out", "err"):
        monkeypatch.setattr(ui, stream, shown)
    if form == "table":
        ui.table(evil, [evil, "b"], [[evil, 1]])
    else:
        for speak in (ui.say, ui.note, ui.warn, ui.fail):
            speak(evil)
        ui.fail("one\nerror: two\n  - three", "four\nerror: five")
        assert "\nerror: two" not in screen.getvalue() and "\nerror: five" not in screen.getvalue()
    text = screen.getvalue()
    assert text.count("[red]x[/red] :bomb: \\x1b[31m\\x07\\x9b2J\\u202e\\udc80") == (3 if form == "table" else 4)
    assert not {"\x07", "\x9b", "\u202e", "\udc80"} & {*text} and "\x1b[31m" not in text


def test_lines_of_tables_name_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "actions.csv"
    for cell in ("\x1b[2J", "=cmd|' /C calc'!A0", "x" * 100_000, "\0", "nan", "inf", "1e999", "0x10", "", "one"):
        path.write_text(f"1,2,3,{cell}\n", "utf-8")
        with pytest.raises(DataError, match="line 1") as refused:
            trajectories.read_track(path, 4)
        assert refused.value.message.isprintable() and len(refused.value.message) < 400


@pytest.mark.parametrize("name", ["$\\frac$", "$x$ and $^", "a$b", "\\$\\input{/etc/passwd}$"])
def test_a_run_s_name_is_no_formula(name: str) -> None:
    """Matplotlib reads formulas between dollars, and raises on those that are none."""
    line = plots.Line(name, [0.0, 1.0], [1.0, 2.0])
    chart = plots.Chart(name, "epoch", (plots.Panel("loss", (line, line)),))
    drawn = figures.render(chart, "svg")
    assert drawn.count(b"<!-- \\" if name.startswith("\\") else b"<!-- " + name[:1].encode()) >= 2
