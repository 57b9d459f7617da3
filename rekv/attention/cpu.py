"""The CPU kernel: flash attention over the part of the window that all queries of a tile share, by slicing.

Queries are taken in tiles (one frame of tokens, or less). The keys of a tile fall into three parts:

    [ left edge | middle | the tile itself ]          and the sink
      leaving     seen by     causal
      the window  every query

The middle is nearly everything and needs no mask: a slice goes to torch's flash kernel, which also returns the
log-sum-exp. The edges and the sink are a few keys wide: one small dense softmax, merged by log-sum-exp.
Tiles of equal geometry run as one batch over overlapping views. Grouped query heads are folded into rows, so
keys and values are never repeated.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rekv.attention.kernels import Sink

_MAX_TILE = 64


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Neighbouring tiles of equal geometry. Indices are into the queries (`row`) and the keys."""

    row: int  # first query of the first tile
    count: int  # tiles
    size: int  # queries per tile
    left: int  # first key that the first tile's first query sees
    middle: int  # first key that all queries of the first tile see
    own: int  # key index of the first tile's first query


def window_attention(
    query: Tensor, keys: Tensor, values: Tensor, n_local: int, scale: float, sink: Sink | None = None
) -> Tensor:
    """See `rekv.attention.kernels`."""
    heads, n, dim = query.shape
    kv_heads, length, _ = keys.shape
    out = torch.empty(n, heads, dim, dtype=values.dtype)
    for tiles in _tiles(n, length, n_local):
        rows = slice(tiles.row, tiles.row + tiles.count * tiles.size)
        folded = _fold(query[:, rows], kv_heads, tiles)
        result = _attend(folded, keys, values, n_local, scale, tiles, _sink_of(sink, rows, kv_heads, tiles))
        # (tiles, kv_heads, group * size, dim) -> (tiles * size, heads, dim)
        out[rows].view(tiles.count, tiles.size, kv_heads, -1, dim).copy_(
            result.view(tiles.count, kv_heads, -1, tiles.size, dim).permute(0, 3, 1, 2, 4)
        )
    return out


def _tiles(n: int, length: int, n_local: int) -> Iterator[_Tiles]:
    size = min(n, _MAX_TILE)
    pending: _Tiles | None = None
    for row in range(0, n, size):
        own = length - n + row
        width = min(size, n - row)
        tile = _Tiles(row, 1, width, max(0, own - n_local + 1), max(0, own + width - n_local), own)
        if pending is not None and _continues(pending, tile):
            pending = _Tiles(pending.row, pending.count + 1, width, pending.left, pending.middle, pending.own)
            continue
        if pending is not None:
            yield pending
        pending = tile
    if pending is not None:
        yield pending


def _continues(tiles: _Tiles, tile: _Tiles) -> bool:
    """Whether `tile` is the next of `tiles`, each of its parts shifted by one tile."""
    shift = tiles.count * tiles.size
    return (tile.size, tile.left, tile.middle) == (tiles.size, tiles.left + shift, tiles.middle + shift)


def _fold(query: Tensor, kv_heads: int, tiles: _Tiles) -> Tensor:
    """(heads, tiles * size, dim) -> (tiles, kv_heads, group * size, dim)."""
    heads, _, dim = query.shape
    split = query.reshape(kv_heads, heads // kv_heads, tiles.count, tiles.size, dim)
    return split.permute(2, 0, 1, 3, 4).reshape(tiles.count, kv_heads, -1, dim)


def _slices(x: Tensor, start: int, end: int, tiles: _Tiles) -> Tensor:
    """Keys start..end of each tile, (tiles, kv_heads, end - start, dim): an overlapping view, nothing copied."""
    if tiles.count == 1:
        return x[None, :, start:end]
    span = x[:, start : end + (tiles.count - 1) * tiles.size]
    return span.unfold(1, end - start, tiles.size).permute(1, 0, 3, 2)


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, n_local: int, scale: float, tiles: _Tiles, sink: "_FoldedSink | None"
) -> Tensor:
    end = tiles.own + tiles.size
    middle = tiles.middle if tiles.middle < tiles.own else tiles.own  # a window narrower than a tile has none
    edges = [(tiles.left, middle), (tiles.own, end)]
    edge_keys = [_slices(keys, a, b, tiles) for a, b in edges if b > a]
    edge_values = [_slices(values, a, b, tiles) for a, b in edges if b > a]
    positions = torch.cat([torch.arange(a, b) for a, b in edges])
    scores = [query @ k.mT for k in edge_keys]
    bias = _bias(tiles, positions, n_local, query)
    if sink is not None:
        scores.append(sink.query @ sink.keys.mT)
        edge_values.append(sink.values.expand(tiles.count, -1, -1, -1))
        bias = torch.cat((bias.expand(tiles.count, -1, -1, -1), sink.bias), -1)
    logits = torch.cat(scores, -1).float().mul_(scale).add_(bias)
    edge_lse = logits.logsumexp(-1, keepdim=True)
    weights = logits.sub_(edge_lse).exp_().to(values.dtype)
    edge = _weigh(weights, edge_values)
    if middle == tiles.own:
        return edge
    inner, lse = _middle(
        query, _slices(keys, middle, tiles.own, tiles), _slices(values, middle, tiles.own, tiles), scale
    )
    share = torch.sigmoid(lse - edge_lse).to(edge.dtype)  # the middle's share of the softmax's mass
    return torch.lerp(edge, inner, share)


def _weigh(weights: Tensor, parts: list[Tensor]) -> Tensor:
    at, total = 0, None
    for part in parts:
        width = part.shape[2]
        product = weights[..., at : at + width] @ part
        total = product if total is None else total.add_(product)
        at += width
    return total  # type: ignore[return-value]


def _middle(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Unmasked attention with its log-sum-exp (tiles, kv_heads, rows, 1) in fp32."""
    if query.dtype == torch.float32:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, values, scale=scale)
        return out, lse.unsqueeze(-1)
    # Measured: in 16 bits the flash kernel is slower than in fp32, while matrix products are several times faster.
    scores = torch.matmul(query, keys.mT).float().mul_(scale)
    lse = scores.logsumexp(-1, keepdim=True)
    return torch.matmul(scores.sub_(lse).exp_().to(values.dtype), values), lse


def _bias(tiles: _Tiles, positions: Tensor, n_local: int, query: Tensor) -> Tensor:
    """0 where a tile's query sees an edge key, else -inf: (1, 1, group * size, edge keys)."""
    distance = torch.arange(tiles.own, tiles.own + tiles.size)[:, None] - positions
    bias = torch.zeros(distance.shape).masked_fill_((distance < 0) | (distance >= n_local), -torch.inf)
    return bias.repeat(query.shape[2] // tiles.size, 1)[None, None]


@dataclass(frozen=True, slots=True)
class _FoldedSink:
    query: Tensor  # (tiles, kv_heads, group * size, dim)
    keys: Tensor  # (1, kv_heads, sinks, dim)
    values: Tensor
    bias: Tensor  # (tiles, 1, group * size, sinks)


def _sink_of(sink: Sink | None, rows: slice, kv_heads: int, tiles: _Tiles) -> _FoldedSink | None:
    if sink is None or int(sink.counts[rows].max()) == 0:
        return None
    query = _fold(sink.query[:, rows], kv_heads, tiles)
    counts = sink.counts[rows].view(tiles.count, 1, tiles.size, 1)
    bias = torch.zeros(tiles.count, 1, tiles.size, sink.keys.shape[1])
    bias.masked_fill_(torch.arange(sink.keys.shape[1]) >= counts, -torch.inf)
    return _FoldedSink(query, sink.keys[None], sink.values[None], bias.repeat(1, 1, query.shape[2] // tiles.size, 1))
