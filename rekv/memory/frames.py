"""Which frames a session has: their times, and those that are no longer there."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class FrameTable:
    """Frame ids count from 0 and never change; some frames may be gone.

    The index has one row per frame that was there when the session was opened, and one for each since.
    """

    def __init__(self) -> None:
        self.times: array[float] = array("d")  # by frame: seconds
        self.until: dict[int, float] = {}  # the last near-duplicate that a frame stands for, if any: seconds
        self.damage: dict[int, str] = {}  # frames that are gone because they could not be read, and why
        self.oldest = 0  # frames before this one are gone
        self._gone = np.zeros(0, np.bool_)  # by frame: whether it is, of those after
        self._holes = 0  # how many are
        self._loaded: NDArray[np.int64] | None = None  # frames with the first rows
        self._first_new = 0

    def load(self, frames: int, ids: Sequence[int], times: Sequence[float]) -> None:
        """Begin with those of `frames` frames that are still there; `ids` ascend."""
        self._loaded = np.asarray(ids, np.int64)
        self._first_new = frames
        self.times = array("d", _filled(range(frames), ids, times))
        self.oldest = ids[0] if len(ids) else frames
        self._gone, self._holes = np.zeros(0, np.bool_), 0
        if len(ids) < frames - self.oldest:
            self.leave_out(np.setdiff1d(np.arange(self.oldest, frames), self._loaded).tolist())

    def add(self, first: int, times: Iterable[float]) -> None:
        """Frames first, first + 1, ... have these times; what was there is replaced."""
        del self.times[first:]
        self.times.extend(times)

    def add_some(self, first: int, frames: int, ids: Sequence[int], times: Sequence[float]) -> list[int]:
        """Of the frames first..frames-1 only `ids` (ascending) are still there; return those that are gone."""
        self.add(first, _filled(range(first, frames), ids, times))
        gone: list[int] = np.setdiff1d(np.arange(first, frames), np.asarray(ids, np.int64)).tolist()
        self.leave_out(gone)
        return gone

    @property
    def gone(self) -> set[int]:
        """Frames from `oldest` on that are gone."""
        return set(np.flatnonzero(self._gone[self.oldest :]) + self.oldest) if self._holes else set()

    def leave_out(self, frames: Iterable[int]) -> None:
        """These frames are gone."""
        leaving = np.array([frame for frame in frames if frame >= self.oldest], np.int64)
        if not len(leaving):
            return
        if len(self._gone) <= (last := int(leaving.max())):
            grown = np.zeros(max(1024, 2 * last), np.bool_)
            grown[: len(self._gone)] = self._gone
            self._gone = grown
        self._gone[leaving] = True
        while self.oldest < len(self._gone) and self._gone[self.oldest]:
            self.oldest += 1
        self._holes = int(self._gone[self.oldest :].sum())

    def there(self, frames: range) -> Sequence[int]:
        """Those of `frames` that are not gone; a range if it is all, but for some at the beginning."""
        frames = range(max(frames.start, self.oldest), max(frames.stop, frames.start, self.oldest))
        gone = self._gone[frames.start : frames.stop]
        if not self._holes or not gone.any():
            return frames
        known = np.flatnonzero(~gone) + frames.start
        return (*known.tolist(), *range(frames.start + len(gone), frames.stop))

    def is_there(self, frame: int) -> bool:
        return frame >= self.oldest and not (frame < len(self._gone) and self._gone[frame])

    def row(self, frame: int) -> int:
        """The index row of a frame."""
        if self._loaded is None:
            return frame
        if frame >= self._first_new:
            return len(self._loaded) + frame - self._first_new
        return int(np.searchsorted(self._loaded, frame))

    def frames_of(self, rows: range) -> NDArray[np.int64]:
        """The frames of index rows."""
        loaded = np.zeros(0, np.int64) if self._loaded is None else self._loaded
        new = np.arange(max(rows.start, len(loaded)), max(rows.stop, len(loaded))) - len(loaded) + self._first_new
        return np.concatenate((loaded[rows.start : rows.stop], new))

    def are_there(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which frames are not gone."""
        known = frames < len(self._gone)
        gone = np.zeros(len(frames), np.bool_)
        gone[known] = self._gone[frames[known]]
        return ~gone & (frames >= self.oldest)

    def rows(self, frames: Sequence[int]) -> tuple[range, Tensor | None]:
        """Index rows that hold `frames` (ascending), and which of them to keep; None = all."""
        if not frames:
            return range(0), None
        rows = range(self.row(frames[0]), self.row(frames[-1]) + 1)
        if len(rows) == len(frames):
            return rows, None
        return rows, torch.tensor([self.row(frame) - rows.start for frame in frames])

    def end(self, frame: int, frames: int, period: float, at: float | None = None) -> float:
        """When a frame ends, in seconds, as the first `frames` frames tell, and as was known at time `at`.

        With the next one; the newest, and one whose next is gone, `period` after it was last seen.
        """
        if frame + 1 < frames and self.is_there(frame + 1):
            return self.times[frame + 1]
        start = self.times[frame]
        seen = self.until.get(frame, start)
        if at is not None:  # the near-duplicates after it were not known yet
            seen = min(seen, start + (max(at, start) - start) // period * period)
        return seen + period

    def latest(self, frames: int) -> float:
        """When anything was seen last, of the first `frames` frames and their near-duplicates, in seconds."""
        return max(self.times[frames - 1], self.until.get(frames - 1, 0.0)) if frames else 0.0


def _filled(frames: range, ids: Sequence[int], times: Sequence[float]) -> list[float]:
    """Times of all `frames`: one that is gone takes that of the next one, so that times never go backwards."""
    if not len(ids):
        return [0.0] * len(frames)
    at = np.minimum(np.searchsorted(np.asarray(ids, np.int64), np.arange(frames.start, frames.stop)), len(ids) - 1)
    filled: list[float] = np.asarray(times, np.float64)[at].tolist()
    return filled
