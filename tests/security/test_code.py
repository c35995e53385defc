"""No code in a file is ever run: not a pickle's, not a configuration's."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pickle
import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vidcvae
from tests.security.readers import READERS, SMALL, course_file, course_weights, unzipped, zipped
from tests.security.test_fuzz import write
from vidcvae import config as settings
from vidcvae import reading
from vidcvae.errors import DataError, UsageError, VidcvaeError
from vidcvae.storage import course_import
from vidcvae.workflow.datasets import open_dataset

pytestmark = pytest.mark.reliability
PACKAGE = Path(vidcvae.__file__).parent


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def saved(save: Callable[..., object], *arguments: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arguments, **options)
    return buffer.getvalue()


def evil_files(mark: Path) -> dict[str, bytes]:
    payload, array = Payload(mark), np.empty(1, object)
    array[0] = payload
    model = {**course_weights(), "payload": payload}
    return {
        "a bare pickle": pickle.dumps(payload),
        "a bare pickle of protocol 0": pickle.dumps(payload, 0),
        "an object array": saved(np.save, array),
        "an archive of object arrays": saved(np.savez, array),
        "a torch archive": saved(lambda file: torch.save({"state_dict": model}, file)),
        "an old torch file": saved(lambda file: torch.save(model, file, _use_new_zipfile_serialization=False)),
        "a module": saved(lambda file: torch.save(payload, file)),
    }


def test_the_payload_works(tmp_path: Path) -> None:
    for number, content in enumerate(evil_files(tmp_path / "mark").values()):
        with torch.serialization.safe_globals([]), pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.serialization, "_is_torchscript_zip", lambda *_: False)
            if number < 2:
                pickle.loads(content)
            elif number < 4:
                loaded = np.load(io.BytesIO(content), allow_pickle=True)
                _ = loaded["arr_0"] if number == 3 else loaded
            else:
                torch.load(io.BytesIO(content), weights_only=False)
        (tmp_path / "mark").rmdir()


@pytest.mark.parametrize("name", READERS)
def test_no_reader_runs_a_pickle(name: str, tmp_path: Path, count: Callable[[str, int], None]) -> None:
    """Under the name of whatever file it is that is read."""
    reader, tried = READERS[name], 0
    files = reader.files()
    target = next(file for file in files if file.endswith(reader.only))
    for content in evil_files(tmp_path / "mark").values():
        write(tmp_path / "it", files | {target: content})
        # a history may end in rubbish, and then begins there
        with pytest.raises(VidcvaeError) if name != "histories" else contextlib.suppress(VidcvaeError):
            reader.read(tmp_path / "it")
        assert not (tmp_path / "mark").exists()
        tried += 1
    count("files with code in them, refused unrun", tried)


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


# What ``weights_only`` lets through, or has let through, though no checkpoint needs it
@pytest.mark.parametrize(
    "program",
    [
        pickled(b"c__builtin__\nbytearray\n", b"M\x10\x27\x85R"),
        pickled(b"ctorch\nTensor\n", b"M\x10\x27\x85R"),
        pickled(b"ctorch.storage\nUntypedStorage\n", b"M\x10\x27\x85R"),
        pickled(b"ccollections\nCounter\n", b")R"),
        pickled(b"c_codecs\nencode\n", b"X\x01\0\0\0aX\x05\0\0\0ascii\x86R"),
        pickled(b"cos\nsystem\n", b"X\x04\0\0\0true\x85R"),
        pickled(b"cposix\nsystem\n", b"X\x04\0\0\0true\x85R"),
        pickled(b"cbuiltins\neval\n", b"X\x01\0\0\x000\x85R"),
        pickled(b"c__builtin__\ngetattr\n", b"X\x01\0\0\x000\x85R"),
        pickled(b"ctorch.jit\nload\n", b"X\x01\0\0\x000\x85R"),
        pickled(b"ctorch\nload\n", b"X\x01\0\0\x000\x85R"),
        pickled(b"(S'true'\nios\nsystem\n"),
        pickled(b"(cos\nsystem\nX\x04\0\0\0trueo"),
        pickled(b"X\x02\0\0\0osX\x06\0\0\0system\x93X\x04\0\0\0true\x85R"),
        pickled(b"\x82\x01"),
    ],
)
@pytest.mark.parametrize("form", ["archive", "old", "two names"])
def test_calls_that_no_weights_need_are_refused_before_they_are_made(
    program: bytes, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = unzipped(course_file(legacy=False))
    name = next(name for name in entries if name.endswith("data.pkl"))
    if form == "archive":
        content = zipped(entries | {name: program})
    elif form == "two names":  # one good pickle, and another beside it, for whoever takes the first or the last
        content = zipped({"x/data.pkl": program, **entries})
    else:
        content = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})) + program
    (tmp_path / "x.pth").write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(DataError, match=r"x\.pth holds more than weights .* nothing of it was run"):
        course_import.read_course_checkpoint(tmp_path / "x.pth")


def test_what_the_course_and_its_kin_save_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.pth"
    for legacy in (False, True):
        path.write_bytes(course_file(legacy))
        found = course_import.read_course_checkpoint(path)
        assert vars(found.model).items() >= SMALL.items() and found.epoch == 3
    parameters = {name: torch.nn.Parameter(t) if t.is_floating_point() else t for name, t in course_weights().items()}
    half = {name: t.half() if t.is_floating_point() else t for name, t in course_weights().items()}
    for state in (parameters, half, OrderedDict(parameters)):
        torch.save({"state_dict": state, "size": torch.Size([1, 2])}, path)
        assert course_import.read_course_checkpoint(path).weights.keys() == found.weights.keys()
    torch.save({"state_dict": course_weights(), "extra": Counter()}, path)
    with pytest.raises(DataError, match="holds more than weights"):
        course_import.read_course_checkpoint(path)


@pytest.mark.parametrize("version", ["2.5.1+cpu", "2.0.0", "1.13.1", "2.5.0a0+git1234"])
def test_an_unsafe_torch_is_not_asked(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pth").write_bytes(course_file(legacy=False))
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(DataError, match="cannot be read safely") as refused:
        course_import.read_course_checkpoint(tmp_path / "x.pth")
    assert version in refused.value.message and "2.6" in refused.value.hint


@pytest.mark.parametrize("version", ["2.6.0", "2.10.0+cu128", "3.0.0a0"])
def test_a_safe_torch_is(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pth").write_bytes(course_file(legacy=False))
    monkeypatch.setattr(torch, "__version__", version)
    assert course_import.read_course_checkpoint(tmp_path / "x.pth").epoch == 3


# --- configurations --------------------------------------------------------------------------------

TEXTS = [
    "__import__('os').mkdir('mark')", "{0.__class__.__init__.__globals__}", "%(path)s", "${HOME}", "$HOME", "~",
    "$(mkdir mark)", "`mkdir mark`", "!!python/object/apply:os.mkdir [mark]", "{{ cycler.__init__.__globals__ }}",
    "; mkdir mark", "|mkdir mark", "file:etc", "@mark", "\\N{BULLET}", "{path!r}",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_in_a_configuration_is_a_text(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = settings.resolve({"data": {"path": text}})
    Path("c.toml").write_text(settings.to_toml(config), "utf-8")
    assert settings.resolve(settings.read_toml(Path("c.toml"))).data.path == text
    assert settings.read_override(f"data.path={text}") == {"data": {"path": text}}
    with pytest.raises(DataError, match="no dataset") as refused:
        open_dataset(text, (8, 16), tmp_path / "cache")
    assert text in refused.value.message
    with pytest.raises(UsageError) as wrong:
        settings.resolve({"model": {"name": text}, "training": {"epochs": text}, text: {}})
    assert len(wrong.value.message.splitlines()) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"c.toml"}


BAD_TOML = {
    "endless number": "training.epochs = " + "9" * 5000,
    "large number": "training.epochs = 99999999999999999999",
    "number above the largest float": f"optimizer.lr = 1{'0' * 400}",
    "infinity": "optimizer.lr = inf",
    "overflow to infinity": "optimizer.lr = 1e999",
    "no number": "optimizer.lr = nan",
    "date": "training.epochs = 1979-05-27",
    "time": "data.path = 07:32:00",
    "two of one key": "[training]\nepochs = 1\nepochs = 2",
    "two of one table": "[training]\n[training]",
    "table as value": "training.epochs = {a = 1}",
    "section as value": "training = 3",
    "list of tables": "[[training]]\nepochs = 1",
    "nested lists": "training.epochs = " + "[" * 20_000 + "]" * 20_000,
    "nested tables": "x = " + "{a=" * 20_000 + "1" + "}" * 20_000,
    "long key": ".".join("a" * 100_000) + " = 1",
    "long header": "[" + ".".join("a" * 100_000) + "]",
    "no UTF-8": b"x = '\xff'",
    "NUL": "x = '\0'",
    "size": "data.size = [9223372036854775800, 8]",
    "negative size": "data.size = [-32, 64]",
    "many channels": "model.frame_channels = 1000000",
    "model as list": "model.name = []",
    "model as table": "model.name = {a = 1}",
    "long text": f"training.device = '{'x' * 900_000}'",
    "long word": f"{'x' * 900_000} = 1",
    "too long": "#" * (reading.MAX_TOML_BYTES + 1),
    "superscript digits": "data.size = '²x²'",
}


@pytest.mark.parametrize("case", BAD_TOML)
def test_bad_toml_is_refused_in_words_and_soon(case: str, tmp_path: Path, count: Callable[[str, int], None]) -> None:
    content = BAD_TOML[case]
    path = tmp_path / "c.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as refused:
        settings.resolve_with_preset(None, [settings.read_toml(path)])
    assert refused.value.exit_code == 2 and 10 < len(refused.value.message) < 2000
    count("malicious files, refused in words", 1)


# --- the package itself ----------------------------------------------------------------------------


def test_nothing_in_the_package_can_run_what_it_reads() -> None:
    """Calls that run code, or that read files around ``vidcvae.reading``, are nowhere in it."""
    never = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "np.load",
             "numpy.load", "pickle.Unpickler", "marshal.loads", "yaml.load", "os.path.expandvars", "shelve.open",
             "os.path.expanduser", "torch.hub.load"}  # fmt: skip
    loads = []
    assert (PACKAGE / "cli").is_dir(), "the whole package is read"
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in never, f"{path}:{node.lineno} calls {name}"
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                assert options.get("shell", "False") == "False", f"{path}:{node.lineno} starts a shell"
                assert options.get("allow_pickle", "False") == "False", f"{path}:{node.lineno} allows pickles"
                if name in ("torch.load", "torch.jit.load"):
                    loads.append((path.name, name, options.get("weights_only")))
    # the networks of LPIPS and FVD are programs that the user names, and is told to trust
    assert sorted(loads) == [("course_import.py", "torch.load", "True"), ("perceptual.py", "torch.jit.load", None)]


def test_files_are_read_through_reading() -> None:
    """Whoever reads a file otherwise waits for pipes: it is done for files of the package and of the system only."""
    own = {"config/presets/__init__.py", "workflow/doctor.py", "storage/durable.py"}
    own |= {"models/arithmetic.py", "training/host_memory.py", "device.py"}  # of the system: /proc, /sys
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and (name := ast.unparse(node.func))
        and (name in ("open", "json.load", "tomllib.load") or name.endswith((".read_text", ".read_bytes")))
        and name != "reading.read_bytes"
    }
    assert found <= own


def test_the_mutants_are_the_same_every_time() -> None:
    """A failure that was printed can be seen again."""
    for reader in READERS.values():
        (name, data), *_ = reader.files().items()
        first, second = (reader.harm(name, data, random.Random("7")) for _ in range(2))
        assert first == second
