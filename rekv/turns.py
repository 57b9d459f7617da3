"""Who may use the model next: first come, first served."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turn:
    """One holder's turn; `end` may be called early, and more than once."""

    def __init__(self, turns: "Turns") -> None:
        self._turns = turns
        self._over = False

    def end(self) -> None:
        if not self._over:
            self._over = True
            self._turns.pass_on()


class Turns:
    """A fair lock. A plain lock would let a busy writer starve everyone else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    @contextmanager
    def take(self) -> Iterator[Turn]:
        """Wait in line; the turn ends with the block, or earlier by `Turn.end`."""
        with self._lock:
            mine = threading.Event()
            if self._taken or self._waiting:
                self._waiting.append(mine)
            else:
                self._taken = True
                mine.set()
        try:
            mine.wait()
        except BaseException:
            self._leave(mine)
            raise
        turn = Turn(self)
        try:
            yield turn
        finally:
            turn.end()

    def pass_on(self) -> None:
        """End the current turn; the next in line has it at once."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False

    def _leave(self, mine: threading.Event) -> None:
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return
        self.pass_on()
