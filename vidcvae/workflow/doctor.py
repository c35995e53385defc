"""Checks of this machine: what it has, what is broken, and the command that fixes it."""

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
from vidcvae import config as settings
from vidcvae.device import cores, memory_limits, processor
from vidcvae.errors import VidcvaeError, counted, typed

NEEDED = ("numpy", "safetensors", "PIL", "matplotlib", "imageio", "av")
EXTRAS = {"mediapipe": ("pose", "dataset import --estimate"), "tensorboard": ("tensorboard", "train --tensorboard")}
GIB = 2**30
MOST_PRECISIONS = 5  # of the measurements of --precision auto, the number that is listed
LITTLE_MEMORY, LITTLE_DISK, NO_DISK = 4 * GIB, 5 * GIB, GIB // 5


@dataclass(frozen=True)
class Finding:
    """One line of the report. state: "good", "note" (works, could be better) or "broken"; mend: a command."""

    name: str
    value: str
    state: str = "good"
    says: str = ""
    mend: str = ""


def examine() -> Iterator[Finding]:
    """Every finding; a check that fails does not prevent the others."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python, _pytorch, _gpu, _processor, _precision, _memory, _disk, _run_folder, _libraries, _data,
    ]  # fmt: skip
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            yield Finding(check.__name__.strip("_"), "unknown", "note", f"could not be checked: {error}.")


def _python() -> Iterator[Finding]:
    yield Finding("vidcvae", f"{__version__}, {Path(__file__).parents[1]}")
    system = f"{platform.system()} {platform.machine()}"
    yield Finding("python", f"{platform.python_version()}, {system}")
    if system != "Linux x86_64":
        says = "vidcvae is tested on Linux x86-64; its code for other systems has been reviewed, but never run."
        yield Finding("system", system, "note", says)


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
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11):
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
        says = f"an NVIDIA driver ({driver}) is installed, but this PyTorch is built without CUDA."
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
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


def _processor() -> Iterator[Finding]:
    torch = _torch()
    count = threads = cores()
    value = f"{count} cores"
    if torch is not None:
        threads = torch.get_num_threads()
        with contextlib.suppress(AttributeError):  # a private function, which a later PyTorch may lack
            value += f", bf16 {'yes' if torch.ops.mkldnn._is_mkldnn_bf16_supported() else 'no'}"
    yield Finding("processor", value)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    variable = os.environ.get("OMP_NUM_THREADS") or "not set"
    value = f"{counted(threads, 'thread')}, OMP_NUM_THREADS {variable}, load {load:.1f}"
    if threads > count:
        says = f"{threads} threads on {count} cores wait for each other."
        yield Finding("threads", value, "note", says, f"OMP_NUM_THREADS={count} vidcvae train ...")
    elif threads > 1 and load > 0.5 * count:
        says = "other programs are running, so one thread is faster than several. --precision auto measures this."
        yield Finding("threads", value, "note", says, "OMP_NUM_THREADS=1 vidcvae train ...")
    else:
        yield Finding("threads", value)


def _precision() -> Iterator[Finding]:
    """The measurements of ``--precision auto`` on this machine."""
    if _torch() is None:
        return
    from vidcvae.models import arithmetic

    measurements = arithmetic.remembered()
    for key, best in list(measurements.items())[-MOST_PRECISIONS:]:
        times = "; ".join(f"{way} {seconds * 1000:.3g} ms" for way, seconds in best.seconds.items())
        what = key.partition(f", {processor()}, ")[0]
        yield Finding("precision", f"auto, {what}: {best.precision}, {best.threads} threads ({times})")
    if measurements:
        yield Finding("precision", f"{counted(len(measurements), 'measurement')}, in {arithmetic.cache_file()}")
    else:
        yield Finding("precision", "auto has stored nothing yet; it stores what it measures on a quiet machine")


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    total = min(memory.total, *memory_limits())
    free = min(memory.available, total)
    value = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < LITTLE_MEMORY:
        says = "a pose-cvae of the default size takes up to 4 GiB to train."
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
        yield Finding("disk", value, "note", "a checkpoint takes 20 to 60 MB.", mend)
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
    count = len(list(Path("runs").glob("*/config.toml")))
    yield Finding("run folder", f"{Path('runs').absolute()}, {counted(count, 'run')}")


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
            says = f"needed for {use} only."
            yield Finding(name, "not installed", "note", says, f"pip install 'vidcvae[{extra}]'")


def _data() -> Iterator[Finding]:
    from vidcvae.data.dataset import layout  # which imports PyTorch

    if settings.PROJECT_FILE.exists():
        try:
            config = settings.resolve_with_preset(None, [settings.read_toml(settings.PROJECT_FILE)])
            if config.data.path and not config.data.path.startswith("synthetic:"):
                layout(Path(config.data.path))
            yield Finding("vidcvae.toml", f"good, data: {config.data.path or 'not set'}")
        except VidcvaeError as error:
            says = " ".join(error.message.split())
            yield Finding("vidcvae.toml", "unusable", "broken", says, typed("config", "check", settings.PROJECT_FILE))
    datasets = []
    for folder in sorted(path for path in Path().iterdir() if path.is_dir() and not path.name.startswith(".")):
        with contextlib.suppress(VidcvaeError):
            datasets.append(f"{folder} ({layout(folder)})")
    if datasets:
        yield Finding("data", ", ".join(datasets))
    else:
        says = "there is no dataset in this folder; without one, train uses a synthetic dance."
        yield Finding("data", "none here", "note", says, "vidcvae dataset synth dance -o my-dance")
