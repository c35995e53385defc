"""What this machine has, what is broken, and the command that mends it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidcvae import __version__
from vidcvae.device import cores, processor
from vidcvae.errors import typed

NEEDED = ("numpy", "safetensors", "PIL", "matplotlib", "imageio", "av")
EXTRAS = {
    "mediapipe": ("pose", "dataset import --estimate"),
    "tensorboard": ("tensorboard", "train --tensorboard"),
}
GIB = 2**30
MOST_PRECISIONS = 5  # of what --precision auto has measured, that are listed
LITTLE_MEMORY, LITTLE_DISK, NO_DISK = 4 * GIB, 5 * GIB, GIB // 5


@dataclass(frozen=True)
class Finding:
    """One line of the report. state: "good", "note" (works, could be better) or "broken"; mend: the command."""

    name: str
    value: str
    state: str = "good"
    says: str = ""
    mend: str = ""


def examine() -> Iterator[Finding]:
    """Every finding, each on its own: what breaks one look does not hide the others."""
    looks: list[Callable[[], Iterator[Finding]]] = [
        _python, _pytorch, _gpu, _processor, _precision, _memory, _disk, _run_folder, _libraries, _data,
    ]  # fmt: skip
    for look in looks:
        try:
            yield from look()
        except Exception as error:
            yield Finding(look.__name__.strip("_"), "unknown", "note", f"could not be looked at: {error}.")


def _python() -> Iterator[Finding]:
    yield Finding("vidcvae", f"{__version__}, {Path(__file__).parents[1]}")
    place = f"{platform.system()} {platform.machine()}"
    yield Finding("python", f"{platform.python_version()}, {place}")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        says = "vidcvae is tested on Linux x86-64; what it does on other systems was mended by reading, never run."
        yield Finding("system", place, "note", says)


def _torch() -> Any | None:
    with contextlib.suppress(Exception):
        return importlib.import_module("torch")
    return None


def _pytorch() -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:
        yield Finding("torch", "missing", "broken", f"PyTorch cannot be imported: {error}.", "pip install torch")
        return
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) < (2, 11):
        says = "PyTorch 2.11 or newer is needed."
        yield Finding("torch", torch.__version__, "broken", says, "pip install --upgrade torch")
    else:
        yield Finding("torch", torch.__version__)


def _gpu() -> Iterator[Finding]:
    torch, driver = _torch(), _driver()
    if torch is None:
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = f"{torch.cuda.get_device_name(index)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
            little = free < total / 2
            says = "another program uses much of this GPU's memory." if little else ""
            yield Finding(f"gpu {index}", name, "note" if little else "good", says, "nvidia-smi" if little else "")
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        yield Finding("cuda", f"{torch.version.cuda}, driver {driver or 'unknown'}, bf16 {'yes' if bf16 else 'no'}")
    elif driver and torch.version.cuda is None:
        says = f"there is an NVIDIA driver ({driver}), but this PyTorch is built without CUDA."
        yield Finding("cuda", "unused", "note", says, "pip install --force-reinstall torch")
    elif driver:
        says = f"driver {driver} and this PyTorch's CUDA {torch.version.cuda} do not work together."
        yield Finding("cuda", "unusable", "note", says, "nvidia-smi")
    else:
        yield Finding("cuda", "no NVIDIA GPU; training runs on the CPU")


def _driver() -> str:
    """The NVIDIA driver's version, or the empty string."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def _processor() -> Iterator[Finding]:
    torch = _torch()
    count = threads = cores()
    value = f"{count} cores"
    if torch is not None:
        threads = torch.get_num_threads()
        with contextlib.suppress(AttributeError):  # a private question; without an answer bf16 is simply not named
            value += f", bf16 {'yes' if torch.ops.mkldnn._is_mkldnn_bf16_supported() else 'no'}"
    yield Finding("processor", value)
    asked = os.environ.get("OMP_NUM_THREADS")
    told = f"{threads} thread{'s'[: threads != 1]}, OMP_NUM_THREADS {asked or 'not set'}"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    told += f", load {load:.1f}"
    if threads > count:
        says = f"more threads ({threads}) than cores ({count}) wait for each other."
        yield Finding("threads", told, "note", says, f"OMP_NUM_THREADS={count} vidcvae train ...")
    elif threads > 1 and load > 0.5 * count:
        says = (
            "other programs are running; one thread is then faster than several. --precision auto measures it itself."
        )
        yield Finding("threads", told, "note", says, "OMP_NUM_THREADS=1 vidcvae train ...")
    else:
        yield Finding("threads", told)


def _precision() -> Iterator[Finding]:
    """What ``--precision auto`` has measured on this machine."""
    if _torch() is None:
        return
    from vidcvae.models import arithmetic

    known = arithmetic.remembered()
    for key, found in list(known.items())[-MOST_PRECISIONS:]:
        times = "; ".join(f"{way} {seconds * 1000:.3g} ms" for way, seconds in found.seconds.items())
        what = key.partition(f", {processor()}, ")[0]
        yield Finding("precision", f"auto, {what}: {found.precision}, {found.threads} threads ({times})")
    if known:
        yield Finding("precision", f"{len(known)} measurements, in {arithmetic.cache_file()}")
    else:
        yield Finding("precision", "auto has measured nothing yet that it keeps; it does so on a quiet machine")


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    free, total = memory.available, memory.total
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.exists() and limit.read_text().strip().isdigit():
            total = min(total, int(limit.read_text()))
            free = min(free, total)
    value = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < LITTLE_MEMORY:
        says = "a pose-cvae at its usual size takes up to 4 GiB to train."
        mend = "vidcvae train --batch-size 1 --set training.checkpoint_activations=true"
        yield Finding("memory", value, "note", says, mend)
    else:
        yield Finding("memory", value)


def _disk() -> Iterator[Finding]:
    usage = shutil.disk_usage(Path.cwd())
    value = f"{usage.free / GIB:.1f} GiB free in {Path.cwd()}"
    mend = "vidcvae runs prune"
    if usage.free < NO_DISK:
        yield Finding("disk", value, "broken", "there is no room for checkpoints.", mend)
    elif usage.free < LITTLE_DISK:
        yield Finding("disk", value, "note", "checkpoints take some 20 to 60 MB each.", mend)
    else:
        yield Finding("disk", value)


def _run_folder() -> Iterator[Finding]:
    folder = Path("runs") if Path("runs").exists() else Path()
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        says = f"runs cannot be written to {folder.absolute()}: {error.strerror}."
        yield Finding("run folder", str(folder), "broken", says, "vidcvae train --run SOME/OTHER/FOLDER")
        return
    count = len(list(folder.glob("*/config.toml"))) if folder.name == "runs" else 0
    yield Finding("run folder", f"{(Path('runs')).absolute()}, {count} run{'s' if count != 1 else ''}")


def _libraries() -> Iterator[Finding]:
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except Exception as error:
            yield Finding(name, "missing", "broken", f"{name} cannot be imported: {error}.", "pip install vidcvae")
    for name, (extra, use) in EXTRAS.items():
        try:
            yield Finding(name, f"{importlib.metadata.version(name)} ({use})")
        except importlib.metadata.PackageNotFoundError:
            says = f"only needed for {use}."
            yield Finding(name, "not installed", "good", says, f"pip install 'vidcvae[{extra}]'")


def _data() -> Iterator[Finding]:
    from vidcvae import config as settings
    from vidcvae.data.dataset import layout
    from vidcvae.errors import VidcvaeError

    if settings.PROJECT_FILE.exists():
        try:
            config = settings.resolve_with_preset(None, [settings.read_toml(settings.PROJECT_FILE)])
            if config.data.path and not config.data.path.startswith("synthetic:"):
                layout(Path(config.data.path))
            yield Finding("vidcvae.toml", f"good, data: {config.data.path or 'not named'}")
        except VidcvaeError as error:
            says = " ".join(error.message.split())
            yield Finding("vidcvae.toml", "unusable", "broken", says, typed("config", "check", settings.PROJECT_FILE))
    found = []
    for folder in sorted(path for path in Path().iterdir() if path.is_dir() and not path.name.startswith(".")):
        with contextlib.suppress(VidcvaeError):
            found.append(f"{folder} ({layout(folder)})")
    if found:
        yield Finding("data", ", ".join(found))
    else:
        says = "no dataset lies in this folder; without one, train takes a synthetic dance."
        yield Finding("data", "none here", "good", says, "vidcvae dataset synth dance -o my-dance")
