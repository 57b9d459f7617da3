"""The index of one layer: one representative vector per frame, scored against a question's mean query."""

import torch
from torch import Tensor

_SLAB_FRAMES = 4096


class Index:
    """Representative keys (frames, kv_heads * head_dim) in fp32 on the layer's device.

    A frame's score is the dot product of the question's mean un-rotated query with the frame's mean un-rotated
    key (paper, equation 3), summed over query heads. Heads of a group share their key, so their queries are summed
    first and one vector per KV head is kept: the same score from `heads / kv_heads` times less memory.
    """

    def __init__(self, kv_heads: int, head_dim: int, device: torch.device) -> None:
        self._width = kv_heads * head_dim
        self._device = device
        self._slabs: list[Tensor] = []

    @property
    def capacity(self) -> int:
        return len(self._slabs) * _SLAB_FRAMES

    @property
    def bytes(self) -> int:
        return self.capacity * self._width * 4

    def write(self, first: int, keys: Tensor, tokens: int) -> None:
        """Store frames first, first + 1, ... from un-rotated keys (kv_heads, frames * tokens, head_dim)."""
        kv_heads, _, dim = keys.shape
        means = keys.view(kv_heads, -1, tokens, dim).float().mean(2).transpose(0, 1).reshape(-1, self._width)
        done = 0
        while done < len(means):
            slab, row = divmod(first + done, _SLAB_FRAMES)
            if slab == len(self._slabs):
                self._slabs.append(torch.empty(_SLAB_FRAMES, self._width, device=self._device))
            n = min(len(means) - done, _SLAB_FRAMES - row)
            self._slabs[slab][row : row + n] = means[done : done + n]
            done += n

    def scores(self, query: Tensor, frames: range) -> Tensor:
        """Score each of `frames` (a step of 1) against a query (heads, n, head_dim): fp32, (len(frames),)."""
        dim = query.shape[-1]
        mean = query.float().mean(1).view(self._width // dim, -1, dim).sum(1).view(-1)
        parts = []
        for slab, rows in enumerate(self._slabs):
            start, end = (min(max(f - slab * _SLAB_FRAMES, 0), _SLAB_FRAMES) for f in (frames.start, frames.stop))
            if start < end:
                parts.append(rows[start:end] @ mean)
        return torch.cat(parts) if parts else mean.new_empty(0)
