"""8-bit floats (e4m3 of the OCP formats): the error follows each value's own size."""

import torch
from torch import Tensor

from rekv.store.codecs.grouped import Grouped
from rekv.store.codecs.groups import Groups

_MOST = 448.0  # the largest e4m3


class Fp8(Grouped):
    """x = code * scale, scaled so that a group's largest magnitude is 448: per (head, channel) of keys over the
    block's tokens, per (head, token) of values.

    Off by at most x / 16 or scale / 1024, whichever is more. A group with NaN in it comes back as NaN; infinities
    saturate.
    """

    name = "fp8"
    numbers = 1  # scale

    def _quantise(self, x: Tensor, groups: Groups) -> tuple[Tensor, ...]:
        largest = torch.maximum(-x.amin(groups.dim), x.amax(groups.dim))
        scale = self._scale(self._limit(largest), _MOST)
        codes = x.div(groups.spread(scale.float())).clamp_(-_MOST, _MOST)
        return codes.to(torch.float8_e4m3fn).view(torch.uint8), scale

    def _dequantise(self, codes: Tensor, *numbers: Tensor) -> Tensor:
        (scale,) = numbers
        return _e4m3(codes).mul_(scale)


def _e4m3(codes: Tensor) -> Tensor:
    """The finite values of e4m3 codes in fp32; several times faster on a CPU than torch's own conversion.

    Read as the top of a half float, sign | 0 | exponent | mantissa, a code is 2^8 too small, subnormals included.
    """
    wide = codes.view(torch.int8).to(torch.int16) << 7  # sign | sign | exponent | mantissa
    return (wide & ~0x4000).view(torch.float16).float().mul_(256)
