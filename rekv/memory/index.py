"""The index of one layer: one representative vector per frame, scored against a question's mean query."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

_SLAB_FRAMES = 4096

Load = Callable[[], Tensor]


@dataclass(slots=True)
class _Part:
    """Neighbouring rows."""

    start: int
    rows: int
    memory: Tensor | Load  # (rows, width), or what reads it from disk

    def loaded(self) -> Tensor:
        return self.memory if isinstance(self.memory, Tensor) else self.memory()


class Index:
    """Representative keys (rows, kv_heads * head_dim) in fp32, one row per frame; on the layer's device, or on disk.

    A frame's score is the dot product of the question's mean un-rotated query with the frame's mean un-rotated
    key (paper, equation 3), summed over query heads. Heads of a group share their key, so their queries are summed
    first and one vector per KV head is kept: the same score from `heads / kv_heads` times less memory.
    """

    def __init__(self, kv_heads: int, head_dim: int, device: torch.device) -> None:
        self._width = kv_heads * head_dim
        self._device = device
        self._parts: list[_Part] = []
        self._slab = _SLAB_FRAMES

    def limit(self, rows: int) -> None:
        """Grow by at most `rows` rows at a time: a small budget in small pieces."""
        self._slab = max(16, min(self._slab, rows))

    @property
    def capacity(self) -> int:
        """Rows there is room for."""
        return self._parts[-1].start + self._parts[-1].rows if self._parts else 0

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return sum(part.memory.nbytes for part in self._parts if isinstance(part.memory, Tensor))

    @property
    def slab_bytes(self) -> int:
        """Bytes that it grows by."""
        return self._slab * self.row_bytes

    @property
    def row_bytes(self) -> int:
        return self._width * 4

    def write(self, first: int, keys: Tensor, tokens: int) -> None:
        """Store rows first, first + 1, ... from un-rotated keys (kv_heads, frames * tokens, head_dim)."""
        kv_heads, _, dim = keys.shape
        self.put(first, keys.view(kv_heads, -1, tokens, dim).float().mean(2).transpose(0, 1).reshape(-1, self._width))

    def put(self, first: int, means: Tensor) -> None:
        """Store representative keys (n, kv_heads * head_dim) as rows first, first + 1, ..."""
        done = 0
        while done < len(means):
            if first + done == self.capacity:
                memory = torch.empty(self._slab, self._width, device=self._device)
                self._parts.append(_Part(self.capacity, self._slab, memory))
            part = self._find(first + done)
            row = first + done - part.start
            n = min(len(means) - done, part.rows - row)
            part.loaded()[row : row + n] = means[done : done + n]
            done += n

    def put_on_disk(self, rows: int, load: Load) -> None:
        """Append `rows` rows that `load` reads whenever they are needed."""
        self._parts.append(_Part(self.capacity, rows, load))

    def move_to_disk(self, load: Callable[[range], Tensor], before: int) -> bool:
        """Let the oldest part in memory whose rows are below `before` be read by `load`; False if there is none."""
        for part in self._parts:
            rows = range(part.start, part.start + part.rows)
            if isinstance(part.memory, Tensor) and rows.stop <= before:
                part.memory = partial(load, rows)
                return True
        return False

    def forget(self, before: int) -> None:
        """Give back the memory of parts whose rows are all below `before`; they are not asked for again."""
        for part in self._parts:
            if isinstance(part.memory, Tensor) and part.start + part.rows <= before:
                part.memory = part.memory.new_empty(0, self._width)

    def rows(self, rows: range) -> Tensor:
        """A copy of these rows, on the CPU."""
        return torch.cat([memory.cpu() for memory in self._slices(rows)]) if rows else torch.empty(0, self._width)

    def scores(self, query: Tensor, rows: range) -> Tensor:
        """Score each of `rows` (a step of 1) against a query (heads, n, head_dim): fp32, (len(rows),)."""
        return self.scores_of([query], rows)[0]

    def scores_of(self, queries: Sequence[Tensor], rows: range) -> list[Tensor]:
        """Score `rows` against several queries in one go."""
        means = [self._mean(query) for query in queries]
        found: list[list[Tensor]] = [[mean.new_empty(0)] for mean in means]
        for memory in self._slices(rows):  # each is read once, from wherever it is
            for mean, scores in zip(means, found, strict=True):
                scores.append((memory @ mean.to(memory.device)).to(self._device))
        return [torch.cat(scores) for scores in found]

    def _mean(self, query: Tensor) -> Tensor:
        dim = query.shape[-1]
        return query.float().mean(1).view(self._width // dim, -1, dim).sum(1).view(-1)

    def _slices(self, rows: range) -> Iterator[Tensor]:
        row = rows.start
        while row < rows.stop:
            part = self._find(row)
            end = min(rows.stop, part.start + part.rows)
            yield part.loaded()[row - part.start : end - part.start]
            row = end

    def _find(self, row: int) -> _Part:
        """The part that holds a row."""
        return self._parts[bisect_right(self._parts, row, key=lambda part: part.start) - 1]
