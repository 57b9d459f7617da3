"""Who may use the model next: first come, first served."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turn:
    """One caller's place in the line, from when it comes until it ends; ending early, or twice, is fine."""

    def __init__(self, turns: "Turns") -> None:
        self._turns = turns
        self._ready = threading.Event()

    def wait(self) -> None:
        """Join the line and come to its front."""
        self._turns.join(self)
        self._ready.wait()

    def call(self) -> None:
        """Say that the front is reached."""
        self._ready.set()

    def end(self) -> None:
        self._turns.leave(self)


class Turns:
    """A fair lock. A plain lock would let a busy writer starve everyone else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[Turn] = deque()  # whose turn it is stands in front

    def __len__(self) -> int:
        """Callers in line, the one whose turn it is included."""
        return len(self._line)

    @contextmanager
    def take(self) -> Iterator[Turn]:
        """Wait in line; the turn ends with the block, or earlier by `Turn.end`."""
        turn = Turn(self)
        try:
            turn.wait()
            yield turn
        finally:
            turn.end()

    def join(self, turn: Turn) -> None:
        with self._lock:
            self._line.append(turn)
            self._line[0].call()

    def leave(self, turn: Turn) -> None:
        with self._lock:
            if turn in self._line:
                self._line.remove(turn)
            if self._line:
                self._line[0].call()
