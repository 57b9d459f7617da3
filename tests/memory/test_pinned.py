"""Memory for copies to and from a GPU, made ahead."""

import gc
import threading

import pytest
import torch

from rekv.memory.pinned import Ahead, pinned
from rekv.memory.pool import Pool


def test_the_next_one_is_made_in_another_thread_before_it_is_asked_for() -> None:
    made: list[tuple[int, threading.Thread]] = []
    second = threading.Event()

    def make() -> int:
        made.append((len(made), threading.current_thread()))
        if len(made) == 2:
            second.set()
        return made[-1][0]

    ahead: Ahead[int] = Ahead()
    assert ahead.take(make, more=True) == 0
    assert second.wait(10)
    assert ahead.take(make, more=False) == 1
    assert [thread is threading.main_thread() for _, thread in made] == [True, False]
    assert ahead.take(make, more=False) == 2  # none was coming
    assert made[2][1] is threading.main_thread()


def test_a_failure_reaches_whoever_asks_and_the_next_one_is_tried_again() -> None:
    calls = 0

    def make() -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError("no more")
        return calls

    ahead: Ahead[int] = Ahead()
    assert ahead.take(make, more=True) == 1
    with pytest.raises(MemoryError, match="no more"):
        ahead.take(make, more=False)
    assert ahead.take(make, more=False) == 3


@pytest.mark.gpu
def test_pinned_memory_is_pinned_and_given_back() -> None:
    cuda = torch.device("cuda")
    for _ in range(3):  # the same addresses may come again
        slab = pinned((4 << 20) + 12)
        assert slab.is_pinned()
        assert not slab.is_inference()
        numbers = torch.randint(0, 256, slab.shape, dtype=torch.uint8, device=cuda)
        slab.copy_(numbers, non_blocking=True)
        torch.cuda.synchronize()
        assert torch.equal(slab.to(cuda, non_blocking=True), numbers)
        torch.cuda.synchronize()
        del slab
        gc.collect()


@pytest.mark.gpu
def test_a_pool_of_pinned_memory_has_one_slab_ahead_and_none_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.memory.pool._SLAB_BYTES", 1 << 20)
    pool = Pool((1 << 10,), torch.uint8, torch.device("cpu"), pinned=True, limit=3000)
    import numpy as np

    rows = pool.place(np.arange(2500), keep=0)
    for memory, _ in pool.runs(rows):
        assert memory.is_pinned()
    assert pool.capacity == 3072
