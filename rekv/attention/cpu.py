"""The CPU kernels: slices of the window, so that no score or mask is built for what slicing leaves out.

In fp32 the middle of a tile goes to torch's flash kernel, which also returns the log-sum-exp. What is left are the
tile's edges. Put side by side they are the same problem again, of few keys and a window shorter by the middle:

    [ left edge | middle | the tile itself ]  ->  [ left edge | the tile itself ]

Large tiles are the faster ones, small ones mask less. So large tiles come first, and their edges are cut into small
ones, whose edges are masked. The parts are merged by log-sum-exp, the sink last.

In 16 bits that flash kernel is slower than in fp32 (measured), while matrix products are several times faster: a
tile's scores are computed whole, in one small buffer, and go through one softmax.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from rekv.attention.kernels import Sink
from rekv.attention.tiles import ALIGNED, FoldedSink, Tiles, by_tile, cut, edge_bias, fold, fold_sink, split_rows

# The only CPU attention of torch that returns the log-sum-exp; it takes strided views and any batch.
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
# Queries per tile, measured in frames of 49 tokens and a window of 3136.
LEVELS = (1024, 48)  # of the flash kernel, in turn
UNCUT = 64  # so few queries go without the second level
PRODUCTS = 64


def window_attention(
    query: Tensor, keys: Tensor, values: Tensor, n_local: int, scale: float, sink: Sink | None = None
) -> Tensor:
    """See `rekv.attention.kernels`."""
    if query.dtype == torch.float32:
        levels = LEVELS if query.shape[1] > UNCUT else LEVELS[:1]
        out, lse = _by_flash(query, keys, values, n_local, scale, levels)
        if sink is not None:
            _add_sink(out, lse, sink, scale)
        return out
    heads, n, dim = query.shape
    out = torch.empty(n, heads, dim, dtype=values.dtype)
    for tiles in cut(n, keys.shape[1], n_local, PRODUCTS):
        folded = fold(query[:, tiles.rows], len(keys), tiles)
        result = _by_products(folded, keys, values, n_local, scale, tiles, fold_sink(sink, tiles))
        by_tile(out[tiles.rows], tiles, len(keys)).copy_(split_rows(result, tiles))
    return out


def _by_flash(
    query: Tensor, keys: Tensor, values: Tensor, n_local: int, scale: float, levels: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Attention to the window, (n, heads, dim), and its log-sum-exp, (n, heads, 1)."""
    heads, n, dim = query.shape
    kv_heads, length, _ = keys.shape
    out, lse = query.new_empty(n, heads, dim), query.new_empty(n, heads, 1)
    for tiles in cut(n, length, n_local, levels[0]):
        folded = fold(query[:, tiles.rows], kv_heads, tiles)
        edge_keys, edge_values = (_edges(x, n_local, tiles) for x in (keys, values))
        between = tiles.own - tiles.middle
        if len(levels) > 1:  # each tile's heads become heads of one problem
            rows = folded.reshape(-1, tiles.size, dim)
            pair = edge_keys.flatten(0, 1), edge_values.flatten(0, 1)
            inner = _by_flash(rows, *pair, n_local - between, scale, levels[1:])
            part = [x.view(tiles.size, tiles.count, kv_heads, -1, x.shape[2]).permute(1, 2, 3, 0, 4) for x in inner]
        else:
            start = tiles.end - edge_keys.shape[2]
            bias = edge_bias(tiles, start, tiles.end, n_local - between, heads // kv_heads)
            part = _flash(folded, edge_keys, edge_values, scale, tiles, bias)
        here = [by_tile(x[tiles.rows], tiles, kv_heads) for x in (out, lse)]
        for x, computed in zip(here, part, strict=True):
            x.copy_(computed)
        if between:
            middle_keys, middle_values = (_slices(x, tiles.middle, tiles.own, tiles) for x in (keys, values))
            _merge(here, _flash(folded, middle_keys, middle_values, scale, tiles))
    return out, lse


def _flash(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, tiles: Tiles, bias: Tensor | None = None
) -> list[Tensor]:
    """Output and log-sum-exp, each (tiles, kv_heads, group, size, dim or 1)."""
    out, lse = FLASH(query, keys, values, attn_mask=bias, scale=scale)
    return [split_rows(x, tiles) for x in (out, lse.unsqueeze(-1))]


def _merge(into: list[Tensor], other: list[Tensor]) -> None:
    """Join attention to other keys, as output and log-sum-exp."""
    (out, lse), (other_out, other_lse) = into, other
    out.lerp_(other_out, torch.sigmoid(other_lse - lse))  # the other keys' share of the softmax's mass
    torch.logaddexp(lse, other_lse, out=lse)


def _edges(x: Tensor, n_local: int, tiles: Tiles) -> Tensor:
    """Left edge and own keys of each tile, side by side, padded if possible: (tiles, kv_heads, keys, dim)."""
    parts = [_slices(x, tiles.left, tiles.middle, tiles), _slices(x, tiles.own, tiles.end, tiles)]
    # Where the window ends the left edge, it hides whatever is put further left.
    if tiles.own - tiles.left == n_local - 1:
        missing = -sum(part.shape[2] for part in parts) % ALIGNED
        parts.insert(0, x.new_zeros(()).expand(tiles.count, len(x), missing, x.shape[2]))
    return torch.cat(parts, 2)


def _add_sink(out: Tensor, lse: Tensor, sink: Sink, scale: float) -> None:
    """Merge attention to the sink into attention to the window, as `_by_flash` returns it."""
    n, heads, dim = out.shape
    kv_heads, sinks, _ = sink.keys.shape
    keys, values = (pad(x, (0, 0, 0, -sinks % ALIGNED)) for x in (sink.keys, sink.values))
    hidden = torch.arange(keys.shape[1]) >= sink.counts[:, None]
    bias = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
    pair = (x[:, None].expand(-1, heads // kv_heads, -1, -1) for x in (keys, values))
    far, far_lse = FLASH(sink.query.view(kv_heads, -1, n, dim), *pair, attn_mask=bias, scale=scale)
    far_lse = far_lse.masked_fill(sink.counts == 0, -torch.inf)  # the kernel makes it 0 where no key is seen
    here = [x.view(n, kv_heads, -1, x.shape[2]).permute(1, 2, 0, 3) for x in (out, lse)]
    _merge(here, [far, far_lse.unsqueeze(-1)])


def _slices(x: Tensor, start: int, end: int, tiles: Tiles) -> Tensor:
    """Keys start..end of each tile, (tiles, kv_heads, end - start, dim): an overlapping view, nothing copied."""
    if tiles.count == 1:
        return x[None, :, start:end]
    span = x[:, start : end + (tiles.count - 1) * tiles.size]
    return span.unfold(1, end - start, tiles.size).permute(1, 0, 3, 2)


def _by_products(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    n_local: int,
    scale: float,
    tiles: Tiles,
    sink: FoldedSink | None,
) -> Tensor:
    count, kv_heads, rows, _ = query.shape
    group = rows // tiles.size
    sinks = 0 if sink is None else sink.keys.shape[1]
    left = edge_bias(tiles, tiles.left, tiles.middle, n_local, group).to(query.dtype)
    own = edge_bias(tiles, tiles.own, tiles.end, n_local, group).to(query.dtype)
    scores = query.new_empty(rows, sinks + tiles.end - tiles.left)
    far, window = scores[:, :sinks], scores[:, sinks:]
    out = torch.empty_like(query)
    for i in range(count):
        shown = slice(tiles.left + i * tiles.size, tiles.end + i * tiles.size)
        for head in range(kv_heads):  # one at a time: a batch over strided heads would copy keys and values
            torch.addmm(window, query[i, head], keys[head, shown].mT, beta=0, alpha=scale, out=window)
            window[:, : left.shape[1]] += left
            window[:, window.shape[1] - tiles.size :] += own
            if sink is not None:
                torch.addmm(far, sink.query[i, head], sink.keys[head].mT, beta=0, alpha=scale, out=far)
                far += sink.bias[i, 0].to(far.dtype)
            weights = scores.softmax(-1)
            torch.mm(weights[:, sinks:], values[head, shown], out=out[i, head])
            if sink is not None:
                out[i, head].addmm_(weights[:, :sinks], sink.values[head])
    return out
