"""``auto``: which precision and how many threads are taken, when that is remembered, and that nothing else changes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vidcvae.models import arithmetic, build_model
from vidcvae.models.arithmetic import Arithmetic, chosen, restored

ABOUT: dict[str, Any] = {"what": "test", "model": {"name": "anchor-cvae"}, "size": [32, 64]}
Steps = Callable[[torch.dtype], Callable[[], None]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's cache of a quiet machine that has bfloat16 and one thread."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(arithmetic, "_nothing_else_runs", lambda: True)
    monkeypatch.setattr(arithmetic, "has_bf16", lambda: True)
    with arithmetic.using_threads(1):
        yield tmp_path / "vidcvae" / "speed.json"


def sleeping(float32: float, bf16: float, made: list[torch.dtype] | None = None) -> Steps:
    """Steps that take so many milliseconds."""

    def step_in(dtype: torch.dtype) -> Callable[[], None]:
        if made is not None:
            made.append(dtype)
        return lambda: time.sleep((bf16 if dtype == torch.bfloat16 else float32) / 1000)

    return step_in


@pytest.mark.parametrize(("float32", "bf16", "want"), [(8, 4, "bf16"), (4, 8, "float32"), (8, 7.9, "float32")])
def test_auto_takes_the_faster_and_float32_where_they_are_alike(
    cache: Path, float32: float, bf16: float, want: str
) -> None:
    found = chosen("auto", "cpu", ABOUT, sleeping(float32, bf16))
    assert found.precision == want
    assert f"precision: {want}, 1 thread, measured now (float32, 1 thread: " in found.description()
    assert found.seconds["float32, 1 thread"] == pytest.approx(float32 / 1000, rel=0.5)


def test_what_was_measured_is_kept_for_the_machine_and_the_model(cache: Path) -> None:
    made: list[torch.dtype] = []
    chosen("auto", "cpu", ABOUT, sleeping(8, 4, made))
    assert len(made) == 2 and "anchor-cvae 32x64 test" in next(iter(json.loads(cache.read_text())))
    again = chosen("auto", "cpu", ABOUT, sleeping(4, 8, made))
    assert (again.precision, again.why, len(made)) == ("bf16", "measured before", 2)
    assert chosen("auto", "cpu", {**ABOUT, "size": [64, 64]}, sleeping(4, 8, made)).precision == "float32"
    assert len(json.loads(cache.read_text())) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"precision": "int8", "threads": 1}}'])
def test_a_damaged_cache_is_measured_anew(cache: Path, text: str) -> None:
    cache.parent.mkdir()
    cache.write_text(text)
    assert chosen("auto", "cpu", ABOUT, sleeping(8, 4)).why == "measured now"
    assert arithmetic.remembered()


def test_a_home_that_may_not_be_written_is_no_failure(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert chosen("auto", "cpu", ABOUT, sleeping(8, 4)).precision == "bf16"


def test_beside_other_programs_processor_time_decides_and_nothing_is_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "_nothing_else_runs", lambda: False)

    def step_in(dtype: torch.dtype) -> Callable[[], None]:
        def step() -> None:  # bfloat16 works less, but waits for others
            began, work = time.process_time(), 0.001 if dtype == torch.bfloat16 else 0.004
            while time.process_time() - began < work:
                pass
            time.sleep(0.006 if dtype == torch.bfloat16 else 0)

        return step

    found = chosen("auto", "cpu", ABOUT, step_in)
    assert (found.precision, found.why) == ("bf16", "measured beside other programs")
    assert not cache.exists()


def test_threads_are_tried_where_the_user_has_not_said_how_many(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        times = {4: 0.008, 2: 0.004, 1: 0.008}
        found = chosen("auto", "cpu", ABOUT, lambda dtype: lambda: time.sleep(times[torch.get_num_threads()]))
        assert (found.precision, found.threads, torch.get_num_threads()) == ("float32", 2, 4)
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        found = chosen("auto", "cpu", ABOUT, lambda dtype: lambda: time.sleep(times[torch.get_num_threads()]))
        assert found.threads == 4
    finally:
        torch.set_num_threads(before)


def test_what_is_kept_says_the_precision_beside_other_programs_but_not_the_threads(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads of a quiet machine would be several times slower than one beside another program."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with arithmetic.using_threads(2):
        times = {2: 0.002, 1: 0.004}
        bf16_faster: Steps = lambda dtype: (  # noqa: E731
            lambda: time.sleep(times[torch.get_num_threads()] * (1 if dtype == torch.bfloat16 else 2))
        )
        assert chosen("auto", "cpu", ABOUT, bf16_faster).saved() == {"precision": "bf16", "threads": 2}
        kept = cache.read_bytes()
        monkeypatch.setattr(arithmetic, "_nothing_else_runs", lambda: False)
        times |= {2: 0.008}
        made: list[torch.dtype] = []
        beside = chosen("auto", "cpu", ABOUT, lambda dtype: (made.append(dtype), bf16_faster(dtype))[1])
        assert beside.saved() == {"precision": "bf16", "threads": 1}
        assert (made, beside.why) == ([torch.bfloat16], "measured beside other programs")
        assert cache.read_bytes() == kept
        monkeypatch.setattr(arithmetic, "_nothing_else_runs", lambda: True)
        assert chosen("auto", "cpu", ABOUT, bf16_faster).threads == 2


@pytest.mark.parametrize("saved", [None, "bf16", {}, {"precision": "int8"}, {"precision": ["bf16"]}])
def test_a_checkpoint_that_does_not_say_restores_nothing(saved: Any) -> None:
    assert restored(saved) is None


@pytest.mark.parametrize("threads", [0, -1, 10**9, "2", None, True, 1.5])
def test_threads_from_a_file_are_bounded(threads: Any) -> None:
    found = restored({"precision": "bf16", "threads": threads})
    assert found == Arithmetic("bf16", torch.get_num_threads(), "as before")
    assert replace(found, threads=3).saved() == {"precision": "bf16", "threads": 3}


@pytest.mark.parametrize("name", ["pose-cvae", "svg-lp"])
def test_timing_leaves_no_trace(cache: Path, name: str) -> None:
    """Weights, gradients, BatchNorm's statistics, mode and random state are as before."""
    from tests.training.conftest import small_config
    from vidcvae import config as settings
    from vidcvae.training.timing import training_arithmetic

    config = settings.with_values(small_config("pose-cvae"), {"training": {"precision": "auto"}})
    if name == "svg-lp":
        config = settings.with_values(small_config("svg-lp"), {"training": {"precision": "auto"}})
    model = build_model(config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    assert training_arithmetic(model, config, "cpu").why == "measured now"
    model.eval()
    assert arithmetic.free_run("auto", model, config, rows=2).why == "measured now"
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
