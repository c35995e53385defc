"""The number of threads while a run with auto trains: when it is tried again, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from vidcvae import config as settings
from vidcvae.config import Config
from vidcvae.training import threads
from vidcvae.training.threads import EVERY, TRIAL, Threads, may_change


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def run(
    watched: Threads, first: int, last: int, seconds: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Steps ``first`` to ``last``, which take so many seconds by a clock of our own; the threads of each."""
    clock, used = [0.0], []
    monkeypatch.setattr(threads, "time", type("Clock", (), {"perf_counter": staticmethod(lambda: clock[0])}))
    for step in range(first, last):
        with watched.step(step):
            used.append(torch.get_num_threads())
            clock[0] += seconds[used[-1]]
    return used


@pytest.mark.usefixtures("four_threads")
def test_fewer_threads_are_taken_when_another_program_comes_and_more_when_it_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Threads(2, free=True)
    alone, beside = {4: 0.95, 2: 1.0, 1: 1.8}, {4: 9.0, 2: 4.0, 1: 2.0}
    assert run(watched, 0, EVERY, alone, monkeypatch) == [2] * EVERY  # all were timed just before
    turns = run(watched, EVERY, 2 * EVERY, alone, monkeypatch)
    assert turns == [2, 4, 2, 4, 2, 4] + [2] * (EVERY - TRIAL)  # 4 is not faster by a tenth
    assert run(watched, 2 * EVERY, 2 * EVERY + TRIAL, beside, monkeypatch) == [2, 1, 2, 1, 2, 1]
    assert (watched.number, torch.get_num_threads()) == (1, 1)
    assert watched.change == "threads: 1 from now on: 2 s a step, 4 with 2"
    assert run(watched, 3 * EVERY - 1, 3 * EVERY + TRIAL, alone, monkeypatch) == [1, 1, 2, 1, 2, 1, 2]
    assert watched.number == 2


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("at", range(1, TRIAL))
def test_a_run_that_is_resumed_within_a_trial_goes_on_with_it(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """It decides like the uninterrupted run if it has timed both numbers twice: the first time of each is ignored."""
    whole = [2, 1, 2, 1, 2, 1]
    watched = Threads(2, free=True)
    assert run(watched, 2 * EVERY + at, 3 * EVERY, {2: 1.0, 1: 1.0}, monkeypatch)[: TRIAL - at] == whole[at:]
    assert watched.number == 2
    watched = Threads(2, free=True)
    assert run(watched, 2 * EVERY + at, 2 * EVERY + TRIAL, {2: 1.0, 1: 0.1}, monkeypatch) == whole[at:]
    assert watched.number == (1 if at <= 2 else 2)


def test_nothing_is_tried_unless_threads_may_change() -> None:
    assert Threads(2, free=False)._neighbour(2) == 0


def test_only_auto_without_a_word_of_the_user_may_change_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = settings.with_values(Config(), {"training": {"precision": "auto"}})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert may_change(auto, "cpu", 1)
    assert not may_change(auto, "cuda", 1) and not may_change(auto, "cpu", 2)
    assert not may_change(Config(), "cpu", 1)
    assert not may_change(settings.with_values(auto, {"training": {"deterministic": True}}), "cpu", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert not may_change(auto, "cpu", 1)
