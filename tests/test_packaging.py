"""What is shipped: the wheel installs clean and works on its own; the source archive builds and can be tested."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import vidcvae

ROOT = Path(__file__).parents[1]
pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source archive, built as pip would build them, without asking the network."""
    out = tmp_path_factory.mktemp("dist")
    build = (
        "import sys; from hatchling import build; out = sys.argv[1]\n"
        "print(build.build_wheel(out)); print(build.build_sdist(out))"
    )
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


def test_the_wheel_holds_the_package_its_presets_and_its_types(shipped: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(shipped[0]).namelist())
    sources = {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / "vidcvae").rglob("*")
        if p.suffix in (".py", ".toml", ".j2", ".css", ".js")
    }
    assert sources | {"vidcvae/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/")) or "__pycache__" in name]


def test_the_source_archive_builds_and_tests(shipped: tuple[Path, Path]) -> None:
    with tarfile.open(shipped[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        *("pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "CONTRIBUTING.md", "constraints.txt"),
        *("docs/maths.md", "docs/images/hero.gif", "completions/vidcvae.bash", "tests/conftest.py"),
        *("vidcvae/config/presets/course.toml", "vidcvae/py.typed"),
    ):
        assert name in names, name
    assert not [name for name in names if name.startswith(("runs/", ".venv", "demo/")) or "__pycache__" in name]


@pytest.fixture(scope="module")
def program(shipped: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``vidcvae`` in an environment that sees this one's libraries, so that nothing is fetched, but not this code."""
    place = tmp_path_factory.mktemp("clean")
    venv.create(place / "env", with_pip=False)
    python = place / "env/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([*pip, str(shipped[0])], check=True, timeout=120)
    libraries = place / "libraries"
    libraries.mkdir()
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for item in Path(folder).iterdir():
            if "vidcvae" not in item.name and item.suffix != ".pth" and not (libraries / item.name).exists():
                (libraries / item.name).symlink_to(item)
    (site,) = (place / "env").glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries}\n")
    return place / "env/bin/vidcvae"


def ran(program: Path, *arguments: str, folder: Path) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, cwd=folder, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_installs_and_runs_in_an_environment_of_its_own(program: Path, tmp_path: Path) -> None:
    assert ran(program, "--version", folder=tmp_path) == f"vidcvae {vidcvae.__version__}\n"
    assert ran(program, "config", "show", "--preset", "course", folder=tmp_path).startswith("[model]")
    report = json.loads(ran(program, "doctor", "--json", folder=tmp_path))
    assert report["ok"] and str(program.parents[1]) in report["checks"][0]["value"]


@pytest.mark.slow
def test_the_installed_program_runs_the_demo(program: Path, tmp_path: Path) -> None:
    ran(program, "demo", "d", "--max-minutes", "0.01", "--device", "cpu", "--plain", folder=tmp_path)
    assert (tmp_path / "d/dance.gif").stat().st_size > 10_000


def test_citation_and_version_agree() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {vidcvae.__version__}\n" in text and re.match(r"cff-version: \d", text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"license: {project['license']}" in text
