"""The window of one layer: the last tokens' rotated keys and values, in one buffer that slides."""

import torch
from torch import Tensor


class Window:
    """Slot i of the buffer is token `first + i` of the stream, rotated to angle i.

    Only relative angles matter, so keys are rotated once, when they are written. When the buffer is full, its owner
    makes another from the blocks, with the window at the front: angles stay small however long the stream, and the
    blocks are the only truth. How many slots count is for the owner to know; what lies beyond may be overwritten.
    """

    def __init__(
        self, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device, *, first: int = 0, slots: int = 0
    ) -> None:
        self.first = first
        self._buffer = torch.empty(2, kv_heads, slots, head_dim, dtype=dtype, device=device)

    @property
    def capacity(self) -> int:
        return self._buffer.shape[2]

    def reserve(self, slots: int, limit: int, keep: int) -> bool:
        """Make room for `slots` in all by growing up to `limit`, keeping the first `keep`; False if that is too few."""
        if slots <= self.capacity:
            return True
        if slots > limit:
            return False
        two, kv_heads, _, dim = self._buffer.shape
        grown = self._buffer.new_empty(two, kv_heads, min(limit, max(slots, 2 * self.capacity)), dim)
        grown[:, :, :keep] = self._buffer[:, :, :keep]
        self._buffer = grown
        return True

    def slots(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of slots start..end-1, each (kv_heads, end - start, head_dim); to be read or written."""
        return self._buffer[0, :, start:end], self._buffer[1, :, start:end]
