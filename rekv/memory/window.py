"""The window of one layer: the last tokens' rotated keys and values, in one buffer that slides."""

import torch
from torch import Tensor


class Window:
    """Tokens 0..length-1 of the buffer are the newest `length` of the stream; slot i is rotated to angle i.

    Only relative angles matter, so keys are rotated once, when they are written. When the buffer is full, its
    owner rebuilds it from the blocks with the window at the front: angles stay small however long the stream,
    and the blocks are the only truth.
    """

    def __init__(self, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.length = 0
        self._keys = torch.empty(kv_heads, 0, head_dim, dtype=dtype, device=device)
        self._values = torch.empty_like(self._keys)

    @property
    def capacity(self) -> int:
        return self._keys.shape[1]

    def reserve(self, tokens: int, limit: int) -> bool:
        """Make room for `tokens` more by growing up to `limit`; False if only sliding can."""
        needed = self.length + tokens
        if needed <= self.capacity:
            return True
        if needed > limit:
            return False
        size = min(limit, max(needed, 2 * self.capacity))
        grown = [x.new_empty(x.shape[0], size, x.shape[2]) for x in (self._keys, self._values)]
        for new, old in zip(grown, (self._keys, self._values), strict=True):
            new[:, : self.length] = old[:, : self.length]
        self._keys, self._values = grown
        return True

    def slots(self, start: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values of slots start.., each (kv_heads, tokens, head_dim), to be written in place."""
        return self._keys[:, start : start + tokens], self._values[:, start : start + tokens]

    def upto(self, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of slots 0..end-1, committed or not."""
        return self._keys[:, :end], self._values[:, :end]
