"""Pillow's antialiased resizing as matrix products, equal to it bit for bit.

Checkpoints are trained on pictures that Pillow resized. `torch.nn.functional.interpolate(antialias=True)`
differs from it by up to 2 of 255, and by far more for tall pictures and those one pixel wide; so the weights
are made here as Pillow makes them and applied in fp64, where sums of 8-bit values x 22-bit weights are exact: in
any order, so on a GPU too.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Filter = Literal["bilinear", "bicubic", "lanczos"]

_ONE = 1 << 22  # Pillow's weights are fixed-point numbers with 22 bits after the point
_TILE = 32  # output pixels per product: few enough to skip most zeros, enough to keep the products efficient


def resize(images: Tensor, size: tuple[int, int], kind: Filter) -> Tensor:
    """Resize uint8 images (n, channels, height, width), where they are, to `size` = (height, width).

    The aspect ratio is not kept.
    """
    (height, width), (new_height, new_width) = images.shape[-2:], size
    # Each direction rounds to 8 bits, so their order shows. Pillow 13 takes a tall picture's height first.
    if height - new_height > max(0, 2 * (width - new_width)):
        return _across(_across(images.mT, new_height, kind).mT, new_width, kind)
    return _across(_across(images, new_width, kind).mT, new_height, kind).mT


def _across(images: Tensor, width: int, kind: Filter) -> Tensor:
    """Resize the last axis."""
    if images.shape[-1] == width:
        return images
    planar = images.contiguous()
    tiles = _tiles(images.shape[-1], width, kind, images.device)
    parts = [planar[..., tile.start : tile.end].double() @ tile.weights for tile in tiles]
    return torch.cat(parts, -1).add_(0.5).clamp_(0, 255).to(torch.uint8)


class _Tile(NamedTuple):
    """Neighbouring output pixels and the input pixels start..end-1 that they are made of."""

    start: int
    end: int
    weights: Tensor  # (end - start, outputs) fp64


@lru_cache(maxsize=32)
def _tiles(length: int, new_length: int, kind: Filter, device: torch.device) -> tuple[_Tile, ...]:
    first, weights = _weights(length, new_length, kind)
    columns = first[:, None] + torch.arange(weights.shape[1])  # beyond a pixel's reach the weight is 0
    tiles = []
    for output in range(0, new_length, _TILE):
        outputs = slice(output, output + _TILE)
        start, end = int(first[outputs][0]), int(columns[outputs][-1, -1]) + 1
        dense = torch.zeros(len(first[outputs]), end - start, dtype=torch.float64)
        dense.scatter_(1, columns[outputs] - start, weights[outputs])
        end = min(end, length)
        tiles.append(_Tile(start, end, dense[:, : end - start].T.contiguous().to(device)))
    return tuple(tiles)


def _weights(length: int, new_length: int, kind: Filter) -> tuple[Tensor, Tensor]:
    """Each output pixel's first input pixel (new_length,), and weights from there on (new_length, taps)."""
    function, reach = _FILTERS[kind]
    scale = length / new_length
    stretch = max(scale, 1.0)  # antialias: the filter widens when the picture shrinks
    centre = (torch.arange(new_length, dtype=torch.float64) + 0.5) * scale
    first = (centre - reach * stretch + 0.5).long().clamp(min=0)
    last = (centre + reach * stretch + 0.5).long().clamp(max=length)
    inputs = first[:, None] + torch.arange(int((last - first).max()))
    weights = function((inputs + 0.5 - centre[:, None]) * (1 / stretch))
    weights = weights.where(inputs < last[:, None], 0.0)
    weights /= weights.sum(1, keepdim=True)
    return first, (weights * _ONE + 0.5 * weights.sign()).trunc() / _ONE


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution with a = -0.5."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _lanczos(x: Tensor) -> Tensor:
    """A sinc, windowed by another that is three times as wide."""
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)


_FILTERS: dict[Filter, tuple[Callable[[Tensor], Tensor], float]] = {
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
