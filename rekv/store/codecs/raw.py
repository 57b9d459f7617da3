"""As computed: the default, bit-exact."""

import math

import torch
from torch import Tensor

from rekv.store.codecs.base import Codec, as_bytes, from_bytes


class Raw(Codec):
    """The block's own bytes: keys, then values, each (kv_heads, tokens, head_dim)."""

    name = "raw"

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        super().__init__(shape, dtype)
        self.nbytes = 2 * math.prod(shape) * dtype.itemsize

    def _pack(self, blocks: Tensor) -> Tensor:
        return as_bytes(blocks)

    def _unpack(self, packed: Tensor, out: Tensor | None) -> Tensor:
        blocks = from_bytes(packed, self.dtype, (2, *self.shape))
        return blocks if out is None else out.copy_(blocks)
