"""Turns: first come, first served; never two at once; never lost."""

import queue
import random
import threading
import time
from collections.abc import Callable

import pytest

from rekv.turns import Turns

PATIENCE = 20.0  # seconds until a test says "deadlock"


def start(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def finish(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "deadlock"


def waiting(turns: Turns, n: int) -> None:
    """Until n threads stand in line."""
    deadline = time.monotonic() + PATIENCE
    while len(turns) <= n:  # one of them has the turn
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_first_come_first_served() -> None:
    turns, order = Turns(), queue.Queue[int]()

    def work(i: int) -> None:
        with turns.take():
            order.put(i)

    with turns.take():
        threads = []
        for i in range(8):
            threads.append(start(lambda i=i: work(i)))  # type: ignore[misc]
            waiting(turns, i + 1)
    finish(*threads)
    assert [order.get() for _ in range(8)] == list(range(8))


def test_busy_holder_that_comes_back_goes_to_the_end_of_the_line() -> None:
    turns, order = Turns(), queue.Queue[str]()

    def ask() -> None:
        with turns.take():
            order.put("ask")

    with turns.take():
        thread = start(ask)
        waiting(turns, 1)
    with turns.take():
        order.put("encode")
    finish(thread)
    assert [order.get(), order.get()] == ["ask", "encode"]


def test_never_two_at_once() -> None:
    turns, inside = Turns(), []
    most = 0

    def work(seed: int) -> None:
        nonlocal most
        draw = random.Random(seed)
        for _ in range(150):
            with turns.take() as turn:
                inside.append(seed)
                most = max(most, len(inside))
                if draw.random() < 0.2:
                    time.sleep(0)
                inside.remove(seed)
                if draw.random() < 0.5:
                    turn.end()

    finish(*(start(lambda i=i: work(i)) for i in range(5)))  # type: ignore[misc]
    assert most == 1


def test_turn_may_end_early_and_more_than_once() -> None:
    turns = Turns()
    with turns.take() as first:
        first.end()
        with turns.take() as second:  # would wait for ever if the first had not ended
            first.end()  # must not end the second
            held = threading.Event()

            def work() -> None:
                with turns.take():
                    held.set()

            thread = start(work)
            waiting(turns, 1)
            assert not held.is_set()
            second.end()
            assert held.wait(PATIENCE)
            finish(thread)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failing_holder_passes_the_turn_on(error: type[BaseException]) -> None:
    turns = Turns()
    with pytest.raises(error), turns.take():
        raise error
    with pytest.raises(error), turns.take() as turn:
        turn.end()
        raise error
    done = threading.Event()

    def work() -> None:
        with turns.take():
            done.set()

    finish(start(work))
    assert done.is_set()


def test_one_who_leaves_the_line_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt reaches a thread that waits in line; those behind it go on."""
    turns = Turns()
    stock = threading.Event.wait
    gone = threading.Event()

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread().name == "impatient":
            raise KeyboardInterrupt
        return stock(self, timeout)

    def leave() -> None:
        threading.current_thread().name = "impatient"
        with pytest.raises(KeyboardInterrupt), turns.take():
            pass
        threading.current_thread().name = "patient"
        gone.set()

    with turns.take():
        monkeypatch.setattr(threading.Event, "wait", wait)
        thread = start(leave)
        assert stock(gone, PATIENCE)
        monkeypatch.undo()
    finish(thread)
    with turns.take():
        pass
