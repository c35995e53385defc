"""Measure the precision and the number of threads that are fastest on this machine, and remember them.

A processor with bfloat16 may be slower in it, and small convolutions stop gaining after a few threads. So "auto" times
the model's own step with each choice in turn. It compares the best times, which other programs disturbed least.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from vidcvae import reading, rng
from vidcvae.config import Config
from vidcvae.device import cores, processor
from vidcvae.errors import DataError
from vidcvae.models.interface import VideoModel
from vidcvae.models.rollout import rollout
from vidcvae.storage import durable

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}
MARGIN = 0.95  # another precision or thread count must take less than this share of the default's time
SECONDS, MOST_ROUNDS = 0.3, 12  # limits of each measurement; it has at least one round
THREADS = 8, 4, 2, 1  # tried besides PyTorch's own number
FRAMES = 16  # length of the videos whose steps are timed
MOST_REMEMBERED, MOST_BYTES = 500, 1 << 20

Step = Callable[[], object]
K = TypeVar("K")


@dataclass(frozen=True)
class Arithmetic:
    """What the networks compute in. ``seconds``: time of a step for each choice, such as "bf16, 2 threads"."""

    precision: str
    threads: int
    why: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    def description(self) -> str:
        """The line for --verbose."""
        times = "; ".join(f"{way}: {seconds * 1000:.3g} ms a step" for way, seconds in self.seconds.items())
        return f"precision: {_way(self.precision, self.threads)}, {self.why}" + (f" ({times})" if times else "")

    def saved(self) -> dict[str, Any]:
        """The entry of a checkpoint, with which training resumes exactly."""
        return {"precision": self.precision, "threads": self.threads}


def restored(saved: Any) -> Arithmetic | None:
    """The arithmetic that a checkpoint was trained in; None if it is not recorded."""
    if not isinstance(saved, dict) or saved.get("precision") not in list(PRECISIONS):
        return None
    threads = saved.get("threads")
    if not isinstance(threads, int) or isinstance(threads, bool) or not 0 < threads <= cores():
        threads = torch.get_num_threads()
    return Arithmetic(saved["precision"], torch.get_num_threads() if threads_are_set() else threads, "as before")


def by_hardware(device: str) -> Arithmetic:
    """bfloat16 if the hardware supports it: "auto" on a GPU, and in checkpoints that do not record it."""
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else has_bf16()
    return Arithmetic("bf16" if native else "float32", torch.get_num_threads(), "what the hardware has")


def chosen(wanted: str, device: str, about: Mapping[str, Any], step_in: Callable[[torch.dtype], Step]) -> Arithmetic:
    """Resolve ``wanted`` ("float32", "bf16" or "auto") on this machine.

    ``step_in`` returns a step of a given precision to be timed; ``about`` is everything that its duration depends on,
    and the key under which the result is remembered. The number of threads is chosen too, unless the user has set it
    (OMP_NUM_THREADS); while other programs run it is measured each time.
    On a GPU, auto is bfloat16 if it is native: the time of eager steps does not predict that of a CUDA graph.
    """
    most = torch.get_num_threads()
    if wanted != "auto":
        return Arithmetic(wanted, most, "as asked for")
    if device == "cuda":
        return by_hardware(device)
    free_threads = not threads_are_set()
    key = _key({**about, "threads": most, "free": free_threads})
    quiet, known = _nothing_else_runs(), remembered().get(key)
    if known and not 0 < known.threads <= most:
        known = None
    if known and (quiet or not free_threads):
        return known
    names = [known.precision] if known else ["float32", "bf16"][: 1 + has_bf16()]
    steps = {name: step_in(PRECISIONS[name]) for name in names}
    precision, number, seconds = names[0], most, known.seconds if known else {}
    with using_threads():
        if len(steps) > 1:
            # While other programs run, only the processor time of one thread is meaningful
            if not quiet:
                torch.set_num_threads(1)
            for step in steps.values():
                step()  # libraries choose their kernels
            best = timed(steps, time.perf_counter if quiet else time.process_time)
            precision = "bf16" if best["bf16"] < MARGIN * best["float32"] else "float32"
            of = "" if quiet else " of processor time"
            seconds = {_way(name, torch.get_num_threads()) + of: value for name, value in best.items()}
        if free_threads and most > 1:
            times = timed({n: _with_threads(n, steps[precision]) for n in thread_counts(most)})
            fastest = min(times, key=lambda n: times[n])
            number = fastest if times[fastest] < MARGIN * times[most] else most
            seconds = seconds | {_way(precision, n): value for n, value in times.items()}
    busy = not (quiet and _nothing_else_runs())
    result = Arithmetic(precision, number, "measured beside other programs" if busy else "measured now", seconds)
    if not busy:  # otherwise the result holds only while the other program runs
        _remember(key, result)
    return result


def free_run(wanted: str, model: VideoModel, config: Config, rows: int = 1) -> Arithmetic:
    """The arithmetic for free runs of ``rows`` videos in one batch; ``model`` is in eval mode."""
    parameter = next(model.parameters())
    rows = min(rows, 8)

    def step_in(dtype: torch.dtype) -> Step:
        shape, device = (rows, FRAMES, 3, *config.data.frame_size), parameter.device
        frames = rng.uniform((rows, config.training.past, 3, *config.data.frame_size), 0, "timing", device=device)
        kind = config.model.condition_kind
        condition = None
        if kind == "pose":
            condition = rng.uniform((1, 1, *shape[2:]), 0, "timing", device=device).expand(*shape)
        elif width := config.model.condition_size:
            condition = rng.normal((rows, FRAMES, width), 0, "timing", device=device)
        runs = (rollout(model, frames, condition, length=FRAMES, dtype=dtype) for _ in itertools.count())
        steps = itertools.chain.from_iterable(runs)
        return lambda: next(steps)

    size = list(config.data.frame_size)
    about = {"what": "free run", "rows": rows, "model": asdict(config.model), "size": size}
    return chosen(wanted, parameter.device.type, about, step_in)


# --- measuring -------------------------------------------------------------------------------------


def timed(ways: Mapping[K, Step], clock: Callable[[], float] = time.perf_counter) -> dict[K, float]:
    """The best time of each step. The steps take turns, so that other programs disturb all of them alike."""
    best = dict.fromkeys(ways, float("inf"))
    began = time.perf_counter()
    for done in range(MOST_ROUNDS):
        if done and time.perf_counter() - began > SECONDS:
            break
        for name, step in ways.items():
            start = clock()
            step()
            best[name] = min(best[name], clock() - start)
    return best


def thread_counts(most: int) -> list[int]:
    """The numbers of threads to try, PyTorch's own first."""
    return [most, *(n for n in THREADS if n < most)]


def _with_threads(n: int, step: Step) -> Step:
    def run() -> None:
        torch.set_num_threads(n)
        step()

    return run


@contextlib.contextmanager
def using_threads(number: int = 0) -> Iterator[None]:
    """Use ``number`` threads (0: as before) in this block, and restore the previous number after it."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(number or before)
        yield
    finally:
        torch.set_num_threads(before)


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16. The function is private to PyTorch; if it is gone: no."""
    with contextlib.suppress(AttributeError):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def threads_are_set() -> bool:
    """Whether the user, or torchrun, has set the number of threads."""
    return any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def _nothing_else_runs() -> bool:
    """Whether no other program is running at this moment; True if the system does not report it."""
    time.sleep(0.01)  # until our own threads have stopped spinning
    try:
        running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    except (OSError, IndexError):
        return True
    return int(running) <= 1


def _way(precision: str, threads: int) -> str:
    return f"{precision}, {threads} thread{'s'[: threads != 1]}"


# --- remembering -----------------------------------------------------------------------------------


def cache_file() -> Path | None:
    """The file with the measurements of this machine; None if there is no home folder."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    with contextlib.suppress(RuntimeError):
        return (Path(folder) if Path(folder).is_absolute() else Path.home() / ".cache") / "vidcvae" / "speed.json"
    return None


def remembered() -> dict[str, Arithmetic]:
    """All stored measurements. A file that cannot be read counts as empty."""
    path, found = cache_file(), {}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        for key, value in reading.parse_json(reading.read_bytes(path, MOST_BYTES)).items() if path else ():
            seconds = {str(way): float(s) for way, s in value["seconds"].items()}
            if value["precision"] in PRECISIONS and isinstance(value["threads"], int):
                found[key] = Arithmetic(value["precision"], value["threads"], "measured before", seconds)
    return found


def _remember(key: str, result: Arithmetic) -> None:
    path = cache_file()
    kept = {k: v for k, v in remembered().items() if k != key} | {key: result}
    newest = list(kept.items())[-MOST_REMEMBERED:]
    if path:
        with contextlib.suppress(DataError):  # a read-only folder: the next start measures again
            durable.write_json(path, {k: {**v.saved(), "seconds": v.seconds} for k, v in newest})


def _key(about: Mapping[str, Any]) -> str:
    """A readable line, with a digest of everything that the time depends on."""
    everything = {**about, "processor": processor(), "cores": cores(), "torch": torch.__version__}
    digest = hashlib.blake2b(json.dumps(everything, sort_keys=True).encode(), digest_size=8).hexdigest()
    size = "x".join(map(str, about["size"]))
    return f"{about['model']['name']} {size} {about['what']}, {processor()}, {digest}"
