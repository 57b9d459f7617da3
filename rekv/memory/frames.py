"""Which frames a session has: their times, and those that are no longer there."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from rekv.core import AskConfig


class FrameTable:
    """Frame ids count from 0 and never change; some frames may be gone.

    The index has one row per frame that was there when the session was opened, and one for each since.
    """

    def __init__(self) -> None:
        self.times: "array[float]" = array("d")  # by frame: seconds
        self.until: dict[int, float] = {}  # the last near-duplicate that a frame stands for, if any: seconds
        self.oldest = 0  # frames before this one are gone
        self.gone: set[int] = set()  # and these
        self._loaded: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None  # frames with the first rows
        self._first_new = 0

    def load(self, frames: int, ids: Sequence[int], times: Sequence[float]) -> None:
        """Begin with those of `frames` frames that are still there; `ids` ascend."""
        self._loaded = np.asarray(ids, np.int64)
        self._first_new = frames
        # A frame that is gone takes the next one's time: times still never go backwards.
        at = np.minimum(np.searchsorted(self._loaded, np.arange(frames)), max(len(ids) - 1, 0))
        self.times = array("d", np.asarray(times, np.float64)[at].tobytes() if len(ids) else bytes(8 * frames))
        self.oldest = ids[0] if len(ids) else frames
        self.gone = set(range(self.oldest, frames)) - set(ids) if len(ids) < frames - self.oldest else set()

    def add(self, first: int, times: Iterable[float]) -> None:
        """Frames first, first + 1, ... have these times; what was there is replaced."""
        del self.times[first:]
        self.times.extend(times)

    def leave_out(self, frames: Iterable[int]) -> None:
        """These frames are gone."""
        self.gone.update(frame for frame in frames if frame >= self.oldest)
        while self.oldest in self.gone:
            self.gone.remove(self.oldest)
            self.oldest += 1

    def in_scope(self, frames: int, ask: AskConfig) -> Sequence[int]:
        """Those of the first `frames` frames with start <= time < end and time <= at; a range if none is missing.

        Times never go backwards, so but for missing ones these are neighbours.
        """
        first = 0 if ask.start is None else bisect_left(self.times, ask.start, 0, frames)
        last = frames if ask.end is None else bisect_left(self.times, ask.end, 0, frames)
        if ask.at is not None:
            last = min(last, bisect_right(self.times, ask.at, 0, frames))
        return self.there(range(max(first, self.oldest), last))

    def there(self, frames: range) -> Sequence[int]:
        """Those of `frames` that are not gone; a range if it is all."""
        frames = range(max(frames.start, self.oldest), max(frames.stop, frames.start, self.oldest))
        gone = self.gone
        if not gone or all(frame not in frames for frame in gone):
            return frames
        return tuple(frame for frame in frames if frame not in gone)

    def row(self, frame: int) -> int:
        """The index row of a frame."""
        if self._loaded is None:
            return frame
        if frame >= self._first_new:
            return len(self._loaded) + frame - self._first_new
        return int(np.searchsorted(self._loaded, frame))

    def frames_of(self, rows: range) -> list[int]:
        """The frames of index rows."""
        loaded = 0 if self._loaded is None else len(self._loaded)
        old = [] if self._loaded is None else self._loaded[rows.start : rows.stop].tolist()
        new = range(max(rows.start, loaded) - loaded, max(rows.stop, loaded) - loaded)
        return old + [self._first_new + i for i in new]

    def rows(self, frames: Sequence[int]) -> tuple[range, Tensor | None]:
        """Index rows that hold `frames` (ascending), and which of them to keep; None = all."""
        if not frames:
            return range(0), None
        rows = range(self.row(frames[0]), self.row(frames[-1]) + 1)
        if len(rows) == len(frames):
            return rows, None
        return rows, torch.tensor([self.row(frame) - rows.start for frame in frames])

    def end(self, frame: int, frames: int, period: float) -> float:
        """When a frame ends, in seconds: with the next one; the newest of `frames`, `period` after it was last seen."""
        if frame + 1 < frames:
            return self.times[frame + 1]
        return self.until.get(frame, self.times[frame]) + period
