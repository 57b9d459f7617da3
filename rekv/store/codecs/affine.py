"""Integers between a group's smallest and largest value: int8 and int4 but for their sizes."""

from torch import Tensor

from rekv.store.codecs.grouped import Grouped
from rekv.store.codecs.groups import Groups


class Affine(Grouped):
    """x = code * scale + zero, with `zero` the group's smallest value; off by at most scale / 2, constants exact.

    A group with NaN in it comes back as NaN; infinities saturate.
    """

    numbers = 2  # scale, zero

    def _quantise(self, x: Tensor, groups: Groups) -> tuple[Tensor, ...]:
        levels = 2**self.bits - 1
        low, high = self._limit(x.amin(groups.dim)), self._limit(x.amax(groups.dim))
        scale = self._scale(high - low, levels)
        codes = (x - groups.spread(low)).div_(groups.spread(scale.float())).round_().clamp_(0, levels)
        return codes.short().byte(), scale, low.to(self.dtype)  # by way of int16: floats to bytes is slow in torch

    def _dequantise(self, codes: Tensor, *numbers: Tensor) -> Tensor:
        scale, zero = numbers
        return codes.float().mul_(scale).add_(zero)
