"""Groups of values that share a scale: runs of tokens of one key channel, or runs of channels of one value token."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

TOKENS, CHANNELS = -2, -1


@dataclass(frozen=True, slots=True)
class Groups:
    """Splits one dimension of (..., tokens, head_dim) into runs of `size`; the last one may be shorter."""

    dim: int  # TOKENS or CHANNELS
    length: int
    size: int

    @classmethod
    def of(cls, dim: int, length: int, most: int | None) -> "Groups":
        """As few groups as hold at most `most` each (None: one group), of sizes as equal as can be."""
        return cls(dim, length, ceil(length / ceil(length / (most or length))))

    @property
    def count(self) -> int:
        return ceil(self.length / self.size)

    def scales(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of one number per group, for (kv_heads, tokens, head_dim)."""
        heads, tokens, dim = shape
        return (heads, self.count, dim) if self.dim == TOKENS else (heads, tokens, self.count)

    def split(self, x: Tensor) -> Tensor:
        """(..., length, ...) to (..., count, size, ...), so that `dim` is now within a group.

        A view where groups are full; else a copy, whose last group is filled up with its own last entry.
        """
        if missing := self.count * self.size - self.length:
            last = x.narrow(self.dim, self.length - 1, 1)
            x = torch.cat([x, *[last] * missing], self.dim)
        at = x.ndim + self.dim
        return x.view(*x.shape[:at], self.count, self.size, *x.shape[at + 1 :])

    def join(self, x: Tensor) -> Tensor:
        """Undo `split`."""
        return x.flatten(self.dim - 1, self.dim).narrow(self.dim, 0, self.length)

    def spread(self, scales: Tensor) -> Tensor:
        """Numbers per group (n, *self.scales(...)), to be broadcast over what `split` makes."""
        return scales.unsqueeze(self.dim)
