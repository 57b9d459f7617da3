"""A stream that is handed on up to a moment, and not a frame further: what makes streaming mode causal.

What is later than the moment is not given to the session, so nothing that a question reads can depend on it.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from time import perf_counter

from rekv.core import Frame
from rekv.evaluation.cell import Cell
from rekv.evaluation.schema import Question


class Feed:
    """Hands out the frames of a stream in portions. `seconds` is how long it waited for the source."""

    def __init__(self, frames: Iterator[Frame], group: int = 1) -> None:
        """`group`: pictures that a model takes together; a portion but the last is made of whole groups."""
        self._frames = frames
        self._group = group
        self._held: list[Frame] = []  # read, and not handed out: the start of a group, and one frame that is too late
        self._ended = False
        self.given = 0  # frames
        self.seconds = 0.0

    def until(self, time: float) -> Iterator[Frame]:
        """The frames up to and including this time, in seconds; `math.inf`: all that is left."""
        while True:
            if portion := self._due(time):
                self.given += len(portion)
                yield from portion
            elif self._ended or (self._held and self._held[-1].time > time):
                return
            else:
                self._read()

    def upto(self, frames: int) -> Iterator[Frame]:
        """The frames until so many were handed out in all: how the published harness counts."""
        while self.given < frames and not (self._ended and not self._held):
            if self._held:
                self.given += 1
                yield self._held.pop(0)
            else:
                self._read()

    def _due(self, time: float) -> list[Frame]:
        """The next group, if all of it can be handed out; of a stream that has ended, what is left of one."""
        n = min(self._group, len(self._held)) if self._ended else self._group
        portion = self._held[:n]
        if len(portion) < n or not portion or portion[-1].time > time:
            return []
        del self._held[:n]
        return portion

    def _read(self) -> None:
        begun = perf_counter()
        frame = next(self._frames, None)
        self.seconds += perf_counter() - begun
        if frame is None:
            self._ended = True
        else:
            self._held.append(frame)


def asked_at(question: Question, cell: Cell) -> float | None:
    """When a question is asked, in seconds of the video; None: at its end."""
    return question.end if cell.mode == "streaming" else None


def schedule(questions: Sequence[Question], cell: Cell) -> list[tuple[float | None, list[int]]]:
    """When to ask which questions: ascending times, None (the end) last.

    The published harness keeps the order of the file: a question that comes after a later one sees more than it should.
    """
    times = [(asked_at(question, cell), i) for i, question in enumerate(questions)]
    if not cell.paper:
        times.sort(key=lambda pair: (math.inf if pair[0] is None else pair[0], pair[1]))
    return [(time, [i for _, i in group]) for time, group in groupby(times, key=lambda pair: pair[0])]
