"""What a codec is: a fixed number of bytes per block, there and back."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from rekv.errors import ConfigError

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class Codec(ABC):
    """Packs blocks of one shape and dtype into rows of bytes. Depends on nothing else, holds no state.

    Every block is packed by itself: a row means the same wherever it is stored. Tensors may be on any device, and
    stay there.
    """

    name: ClassVar[str]
    nbytes: int  # of one packed block

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """For blocks (2, *shape), shape = (kv_heads, tokens, head_dim), computed in `dtype`."""
        if dtype not in _DTYPES:
            known = ", ".join(str(one).removeprefix("torch.") for one in _DTYPES)
            raise ConfigError(f"blocks are of {known}, not {dtype}: load the model with one of these")
        if len(shape) != 3 or min(shape) < 1:
            raise ConfigError(f"a block's shape is (kv_heads, tokens, head_dim), each at least 1, not {shape}")
        self.shape = shape
        self.dtype = dtype

    def pack(self, blocks: Tensor) -> Tensor:
        """Map blocks (n, 2, kv_heads, tokens, head_dim) to uint8 (n, nbytes), contiguous.

        May share memory with `blocks`. Raises `ConfigError` if they are of another shape or dtype.
        """
        if blocks.shape[1:] != (2, *self.shape) or blocks.dtype != self.dtype:
            raise ConfigError(
                f"this codec packs blocks (n, 2, {', '.join(map(str, self.shape))}) of {self.dtype}, "
                f"not {tuple(blocks.shape)} of {blocks.dtype}"
            )
        return self._pack(blocks)

    def unpack(self, packed: Tensor, out: Tensor | None = None) -> Tensor:
        """Map uint8 (n, nbytes) back to blocks (n, 2, kv_heads, tokens, head_dim), in `out` if it is given.

        `packed` may have any strides and alignment, `out` any strides and dtype. The result may share memory with
        `packed`. Raises `ConfigError` if either is of another shape.
        """
        if packed.shape[1:] != (self.nbytes,) or packed.dtype != torch.uint8:
            raise ConfigError(
                f"this codec unpacks uint8 (n, {self.nbytes}), not {packed.dtype} of {tuple(packed.shape)}: "
                f"these blocks were packed by another codec or for another shape"
            )
        shape = (len(packed), 2, *self.shape)
        if out is not None and out.shape != shape:
            raise ConfigError(f"out is of shape {tuple(out.shape)}; these blocks are {shape}")
        return self._unpack(packed, out)

    @abstractmethod
    def _pack(self, blocks: Tensor) -> Tensor: ...

    @abstractmethod
    def _unpack(self, packed: Tensor, out: Tensor | None) -> Tensor: ...


def as_bytes(x: Tensor) -> Tensor:
    """The bytes of x (n, ...), little-endian, as (n, bytes). A view if x is contiguous."""
    return x.contiguous().view(len(x), math.prod(x.shape[1:])).view(torch.uint8)


def from_bytes(rows: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `as_bytes`: (n, bytes) to (n, *shape). A copy only where the bytes are not aligned."""
    size = dtype.itemsize
    if rows.stride(1) != 1 or rows.data_ptr() % size or rows.stride(0) % size or rows.storage_offset() % size:
        rows = rows.clone(memory_format=torch.contiguous_format)
    return rows.view(dtype).view(-1, *shape)
