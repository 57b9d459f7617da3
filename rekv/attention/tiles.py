"""How the CPU kernels cut queries and keys.

Queries are taken in tiles. The keys of a tile fall into three parts:

    [ left edge | middle | the tile itself ]          and the sink
      leaving     seen by     causal
      the window  every query

The middle is nearly everything and needs no mask, only slicing. Grouped query heads are folded into rows, so keys
and values are never repeated.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rekv.attention.kernels import Sink

# The flash kernel is faster on multiples of this many keys; measured, 2351 take 5 % longer than 2352, 63 take 50 %
# longer than 64.
ALIGNED = 16


@dataclass(frozen=True, slots=True)
class Tiles:
    """Neighbouring tiles of equal geometry: each part of the next one is shifted by `size`."""

    row: int  # first query of the first tile
    count: int  # tiles
    size: int  # queries per tile
    left: int  # first key that the first tile's first query sees
    middle: int  # first key of the middle, which all queries of the first tile see; `own` if there is none
    own: int  # key index of the first tile's first query

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + self.count * self.size)

    @property
    def end(self) -> int:
        return self.own + self.size


def cut(n: int, length: int, n_local: int, most: int) -> Iterator[Tiles]:
    """Cut n queries, the last of `length` keys, into runs of equal tiles of at most `most` queries."""
    pending: Tiles | None = None
    for row in range(0, n, most):
        own, size = length - n + row, min(most, n - row)
        middle = own - max(0, min(own, n_local - size)) // ALIGNED * ALIGNED
        tile = Tiles(row, 1, size, max(0, own - n_local + 1), middle, own)
        if pending is not None and _continues(pending, tile):
            pending = replace(pending, count=pending.count + 1)
            continue
        if pending is not None:
            yield pending
        pending = tile
    if pending is not None:
        yield pending


def _continues(tiles: Tiles, tile: Tiles) -> bool:
    shift = tiles.count * tiles.size
    return (tile.size, tile.left, tile.middle) == (tiles.size, tiles.left + shift, tiles.middle + shift)


def fold(query: Tensor, kv_heads: int, tiles: Tiles) -> Tensor:
    """(heads, tiles * size, dim) -> (tiles, kv_heads, group * size, dim)."""
    heads, _, dim = query.shape
    split = query.reshape(kv_heads, heads // kv_heads, tiles.count, tiles.size, dim)
    return split.permute(2, 0, 1, 3, 4).reshape(tiles.count, kv_heads, -1, dim)


def split_rows(x: Tensor, tiles: Tiles) -> Tensor:
    """(tiles, kv_heads, group * size, dim) seen as (tiles, kv_heads, group, size, dim)."""
    return x.view(*x.shape[:2], -1, tiles.size, x.shape[3])


def by_tile(x: Tensor, tiles: Tiles, kv_heads: int) -> Tensor:
    """(tiles * size, heads, dim) seen as (tiles, kv_heads, group, size, dim)."""
    return x.view(tiles.count, tiles.size, kv_heads, -1, x.shape[-1]).permute(0, 2, 3, 1, 4)


def edge_bias(tiles: Tiles, start: int, end: int, n_local: int, group: int) -> Tensor:
    """0 where a tile's query sees a key of start..end, else -inf: (group * size, end - start) in fp32."""
    distance = torch.arange(tiles.own, tiles.end)[:, None] - torch.arange(start, end)
    bias = torch.zeros(distance.shape).masked_fill_((distance < 0) | (distance >= n_local), -torch.inf)
    return bias.repeat(group, 1)


@dataclass(frozen=True, slots=True)
class FoldedSink:
    """A sink as the tiles of a run see it."""

    query: Tensor  # (tiles, kv_heads, group * size, dim)
    keys: Tensor  # (kv_heads, sinks, dim)
    values: Tensor
    bias: Tensor  # (tiles, 1, group * size, sinks): 0 where seen, else -inf


def fold_sink(sink: Sink | None, tiles: Tiles) -> FoldedSink | None:
    """None if no query of the run sees a sink."""
    if sink is None or int(sink.counts[tiles.rows].max()) == 0:
        return None
    query = fold(sink.query[:, tiles.rows], sink.keys.shape[0], tiles)
    counts = sink.counts[tiles.rows].view(tiles.count, 1, tiles.size, 1)
    bias = torch.zeros(tiles.count, 1, tiles.size, sink.keys.shape[1])
    bias.masked_fill_(torch.arange(sink.keys.shape[1]) >= counts, -torch.inf)
    return FoldedSink(query, sink.keys, sink.values, bias.repeat(1, 1, query.shape[2] // tiles.size, 1))
