"""What fp8, int8 and int4 share: codes of a few bits, and per group of values the numbers that scale them back."""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from rekv.store.codecs.base import Codec, as_bytes, from_bytes
from rekv.store.codecs.groups import CHANNELS, TOKENS, Groups


class Grouped(Codec):
    """A row is: codes | numbers of key groups | numbers of value groups.

    A key group is a run of tokens in one channel, a value group a run of channels in one token. The numbers (`scale`,
    or `scale` and `zero`) are in the blocks' own dtype: a group's smallest value is stored exactly, and no range that
    the model could compute in overflows them.
    """

    numbers: ClassVar[int]  # of a group
    bits: ClassVar[int] = 8  # of a code
    key_tokens: ClassVar[int | None] = None  # most tokens in a key group; None = all
    value_channels: ClassVar[int | None] = None  # most channels in a value group; None = all

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        super().__init__(shape, dtype)
        _, tokens, dim = shape
        self.groups = (Groups.of(TOKENS, tokens, self.key_tokens), Groups.of(CHANNELS, dim, self.value_channels))
        codes = 2 * math.prod(shape) * self.bits // 8
        sizes = [math.prod(groups.scales(shape)) * dtype.itemsize for groups in self.groups]
        self._parts = [codes, *(size for size in sizes for _ in range(self.numbers))]  # bytes
        self.nbytes = sum(self._parts)

    def _pack(self, blocks: Tensor) -> Tensor:
        codes, numbers = [], []
        for groups, x in zip(self.groups, blocks.unbind(1), strict=True):
            of_group, *scaling = self._quantise(groups.split(x.float()), groups)
            codes.append(groups.join(of_group))
            numbers += scaling
        return torch.cat([self._merge(*codes), *map(as_bytes, numbers)], 1)

    def _unpack(self, packed: Tensor, out: Tensor | None) -> Tensor:
        if out is None:
            out = torch.empty(len(packed), 2, *self.shape, dtype=self.dtype, device=packed.device)
        first, *rest = torch.split(packed, self._parts, 1)
        for i, (groups, codes) in enumerate(zip(self.groups, self._separate(first), strict=True)):
            parts = rest[i * self.numbers : (i + 1) * self.numbers]
            scaling = (groups.spread(from_bytes(part, self.dtype, groups.scales(self.shape)).float()) for part in parts)
            out[:, i] = groups.join(self._dequantise(groups.split(codes), *scaling))
        return out

    @abstractmethod
    def _quantise(self, x: Tensor, groups: Groups) -> tuple[Tensor, ...]:
        """Map fp32 in groups to their codes in uint8 and their numbers in `dtype`, one of each per group."""

    @abstractmethod
    def _dequantise(self, codes: Tensor, *numbers: Tensor) -> Tensor:
        """Map codes in groups and their numbers (fp32, to be broadcast) back to fp32."""

    def _merge(self, keys: Tensor, values: Tensor) -> Tensor:
        """Put two codes of `bits` bits, each in a byte, into as few bytes as they need: (n, bytes)."""
        return torch.stack((keys, values), 1).flatten(1)

    def _separate(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `_merge`: key codes and value codes, each (n, *shape)."""
        keys, values = merged.view(-1, 2, *self.shape).unbind(1)
        return keys, values

    def _limit(self, ends: Tensor) -> Tensor:
        """Saturate at magnitudes from which scaling up and back would overflow. NaN stays."""
        limit = 61440.0 if self.dtype == torch.float16 else 2.0**126
        return ends.clamp(-limit, limit)

    def _scale(self, reach: Tensor, codes: float) -> Tensor:
        """The scale in `dtype` that maps 0..`codes` to 0..`reach`; rounded up: the end has a code. 1 if reach is 0."""
        scale = (reach / codes).to(self.dtype)
        bits = scale.view(torch.int16 if self.dtype.itemsize == 2 else torch.int32)
        bits += scale.float() * codes < reach  # the next number up
        return scale.masked_fill_(scale == 0, 1)
