"""Rows of memory for the blocks of one layer: which frame lies in which row, and who leaves first."""

import math
from collections.abc import Iterator
from itertools import pairwise
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rekv.errors import MemoryFullError
from rekv.memory.pinned import Ahead, pinned

Ints = NDArray[np.int64]

_ABSENT = -1
_SLAB_BYTES = 16 << 20


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return tensor.view(torch.uint8).numpy().data.cast("B")


class Pool:
    """Holds blocks of one shape in slabs that never move, so a copy from them may go on while others are added.

    At most `limit` frames at a time. When it is full, those used longest ago make room, but never frames at or beyond
    the caller's `keep`: they are nowhere else yet.

    A row holds a frame if both maps, by frame and by row, say so: a call that is interrupted anywhere, between the
    two, has then done nothing.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, pinned: bool, limit: int | None
    ) -> None:
        self.shape, self.dtype, self.device, self.pinned = shape, dtype, device, pinned
        self.row_bytes = math.prod(shape) * dtype.itemsize
        self.limit = limit
        self.rows_per_slab = max(1, _SLAB_BYTES // self.row_bytes)
        self._slabs: list[Tensor] = []  # each (rows_per_slab, *shape)
        self._coming: Ahead[Tensor] = Ahead()
        self._row = np.full(1024, _ABSENT, np.int64)  # by frame
        self._frame = np.full(0, _ABSENT, np.int64)  # by row
        self._used = np.zeros(0, np.int64)  # by row: when, counted in calls
        self._now = 0

    @property
    def frames(self) -> int:
        """Frames held."""
        return int(self._held().sum())

    @property
    def capacity(self) -> int:
        """Frames there is room for without another slab."""
        return len(self._slabs) * self.rows_per_slab

    @property
    def bytes(self) -> int:
        """Bytes of memory that are used, or may be: rows beyond the limit are never touched."""
        rows = self.capacity if self.limit is None else min(self.capacity, self.limit)
        return rows * self.row_bytes

    def rows(self, frames: Ints) -> Ints:
        """The row of each frame, -1 where it is not held."""
        row = self._row
        rows = np.where(frames < len(row), row[np.minimum(frames, len(row) - 1)], _ABSENT)
        return np.where((rows != _ABSENT) & (self._frame_at(rows) == frames), rows, _ABSENT)

    def use(self, rows: Ints) -> None:
        """Note that rows were needed now."""
        self._now += 1
        self._used[rows] = self._now

    def place(self, frames: Ints, keep: int) -> Ints:
        """Give each frame a row, its own if it has one. Raises `MemoryFullError` if there is no room."""
        rows = self.rows(frames)
        missing = frames[rows == _ABSENT]
        if len(missing):
            self.use(rows[rows != _ABSENT])
            found = self._find(len(missing), keep, protect=self._now)
            self._know(int(missing.max()) + 1)
            self._frame[found] = missing
            self._row[missing] = found
            rows = self.rows(frames)
        self.use(rows)
        return rows

    def set_limit(self, limit: int) -> None:
        """Hold at most `limit` frames, in pieces small enough to use that up. To be called before the first frame."""
        self.limit = limit
        self.rows_per_slab = max(1, min(self.rows_per_slab, limit // 8))

    def drop(self, frames: Ints) -> None:
        """Forget frames; their rows are free again."""
        rows = self.rows(frames)
        held = rows != _ABSENT
        self._frame[rows[held]] = _ABSENT
        self._row[frames[held]] = _ABSENT

    def shrink(self, limit: int, keep: int) -> None:
        """Hold at most `limit` frames from now on; memory is given back slab by slab, as far as `keep` allows."""
        if limit > self.rows_per_slab:
            limit -= limit % self.rows_per_slab  # whole slabs, for only these are given back
        self.limit = limit
        self._coming.forget()
        while self._slabs and (len(self._slabs) - 1) * self.rows_per_slab >= limit:
            first = (len(self._slabs) - 1) * self.rows_per_slab
            if (self._frame[first:][self._held()[first:]] >= keep).any():
                return
            self._frame, self._used = self._frame[:first].copy(), self._used[:first].copy()
            del self._slabs[first // self.rows_per_slab :]
        if (surplus := self.frames - limit) > 0:
            may_leave = np.flatnonzero(self._held() & (self._frame < keep))
            self.drop(self._frame[may_leave[np.argsort(self._used[may_leave])][:surplus]])

    def row(self, row: int) -> Tensor:
        """The memory of one row."""
        slab, at = divmod(row, self.rows_per_slab)
        return self._slabs[slab][at]

    def buffers(self, rows: Ints) -> list[memoryview]:
        """The memory of each row, as bytes; on the CPU."""
        slabs = {slab: as_bytes(self._slabs[slab]) for slab in set((rows // self.rows_per_slab).tolist())}
        places = (divmod(row, self.rows_per_slab) for row in rows.tolist())
        return [slabs[slab][at * self.row_bytes : (at + 1) * self.row_bytes] for slab, at in places]

    def runs(self, rows: Ints) -> Iterator[tuple[Tensor, slice]]:
        """Split rows where they are not neighbours in one slab: (their memory, their positions in `rows`)."""
        cuts = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] % self.rows_per_slab == 0)) + 1
        bounds = [0, *cuts.tolist(), len(rows)]
        for start, end in pairwise(bounds):
            if end > start:
                slab, at = divmod(int(rows[start]), self.rows_per_slab)
                yield self._slabs[slab][at : at + end - start], slice(start, end)

    def gather(self, rows: Ints, out: Tensor) -> None:
        """Copy rows, in this order, to out (len(rows), *shape) on the CPU."""
        slabs = rows // self.rows_per_slab
        cuts = np.flatnonzero(np.diff(slabs)) + 1
        bounds = [0, *cuts.tolist(), len(rows)]
        for start, end in pairwise(bounds):
            if end > start:
                picks = torch.from_numpy(rows[start:end] % self.rows_per_slab)
                torch.index_select(self._slabs[int(slabs[start])], 0, picks, out=out[start:end])

    def check_integrity(self) -> None:
        """Raise unless frames and rows agree."""
        held = np.flatnonzero(self._held())
        frames = self._frame[held]
        if len(np.unique(frames)) != len(held) or (self.rows(frames) != held).any() or len(self._frame) > self.capacity:
            raise RuntimeError("frames and rows do not agree")
        if self.limit is not None and len(held) > self.limit:
            raise RuntimeError(f"{len(held)} frames in RAM; the limit is {self.limit}")

    def _find(self, n: int, keep: int, protect: int) -> Ints:
        """Rows for n frames: free ones, new ones, or those of frames below `keep` used before `protect`."""
        while True:
            free = np.flatnonzero(~self._held())
            if self.limit is not None:
                free = free[: max(0, self.limit - (len(self._frame) - len(free)))]
            if len(free) >= n:
                return free[:n]
            if self.limit is None or len(self._frame) < self.limit:
                self._grow()
                continue
            leaving = self._oldest(n - len(free), keep, protect)
            self.drop(self._frame[leaving])

    def _oldest(self, n: int, keep: int, protect: int) -> Ints:
        may_leave = np.flatnonzero(self._held() & (self._frame < keep) & (self._used < protect))
        if len(may_leave) < n:
            raise MemoryFullError(f"there is no room for {n} more blocks among {self.limit}")
        oldest = np.argpartition(self._used[may_leave], n - 1)[:n]
        return may_leave[oldest]

    def _grow(self) -> None:
        beyond = self.capacity + self.rows_per_slab
        more = self.pinned and (self.limit is None or beyond < self.limit)
        self._slabs.append(self._coming.take(self._new_slab, more=more))
        used, frame = np.zeros(self.capacity, np.int64), np.full(self.capacity, _ABSENT, np.int64)
        used[: len(self._used)], frame[: len(self._frame)] = self._used, self._frame
        self._used = used
        self._frame = frame

    @torch.inference_mode(False)  # a tensor made in that mode could be written to in no other
    def _new_slab(self) -> Tensor:
        shape = (self.rows_per_slab, *self.shape)
        if self.device.type != "cpu":
            return torch.empty(shape, dtype=self.dtype, device=self.device)
        # Straight from the system: resident only where written, and no holes in the heap of a long stream.
        size = math.prod(shape) * self.dtype.itemsize
        if self.pinned:
            memory = pinned(size)
        else:
            memory = torch.frombuffer(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS), dtype=torch.uint8)
        return memory.view(self.dtype).view(shape)

    def _held(self) -> NDArray[np.bool_]:
        """By row: whether it holds a frame."""
        frames, row = self._frame, self._row
        held: NDArray[np.bool_] = (frames != _ABSENT) & (
            row[np.minimum(frames, len(row) - 1)] == np.arange(len(frames))
        )
        return held

    def _frame_at(self, rows: Ints) -> Ints:
        frames = self._frame
        return frames[np.minimum(rows, len(frames) - 1)] if len(frames) else np.full_like(rows, _ABSENT)

    def _know(self, frames: int) -> None:
        """Let the map from frames to rows reach up to `frames`."""
        if frames > len(self._row):
            grown = np.full(max(frames, 2 * len(self._row)), _ABSENT, np.int64)
            grown[: len(self._row)] = self._row
            self._row = grown
