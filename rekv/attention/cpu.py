"""The CPU kernels: slices of the window, so that no score or mask is built for what slicing leaves out.

In fp32 the middle of a tile goes to torch's flash kernel, which also returns the log-sum-exp; edges and sink are a
few keys wide: one small dense softmax, merged by log-sum-exp. Tiles of equal geometry run as one batch over
overlapping views.

In 16 bits that flash kernel is slower than in fp32 (measured), while matrix products are several times faster: a
tile's scores are computed whole, in one small buffer, and go through one softmax.
"""

import torch
from torch import Tensor

from rekv.attention.kernels import Sink
from rekv.attention.tiles import FoldedSink, Tiles, cut, edge_bias, fold, fold_sink, unfold

# The only CPU attention of torch that returns the log-sum-exp; it takes strided views and any batch.
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001


def window_attention(
    query: Tensor, keys: Tensor, values: Tensor, n_local: int, scale: float, sink: Sink | None = None
) -> Tensor:
    """See `rekv.attention.kernels`."""
    heads, n, dim = query.shape
    kv_heads, length, _ = keys.shape
    # Larger tiles have fewer launches and wider edges; measured, in frames of 49 tokens and a window of 3136.
    attend, most = (_by_flash, 32) if query.dtype == torch.float32 else (_by_products, 64)
    out = torch.empty(n, heads, dim, dtype=values.dtype)
    for tiles in cut(n, length, n_local, most):
        folded = fold(query[:, tiles.rows], kv_heads, tiles)
        result = attend(folded, keys, values, n_local, scale, tiles, fold_sink(sink, tiles))
        unfold(result, tiles, out[tiles.rows])
    return out


def _by_flash(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    n_local: int,
    scale: float,
    tiles: Tiles,
    sink: FoldedSink | None,
) -> Tensor:
    edge, edge_lse = _edges(query, keys, values, n_local, scale, tiles, sink)
    if tiles.middle == tiles.own:
        return edge
    middle = (_slices(x, tiles.middle, tiles.own, tiles) for x in (keys, values))
    inner, lse = FLASH(query, *middle, scale=scale)
    share = torch.sigmoid(lse.unsqueeze(-1) - edge_lse)  # the middle's share of the softmax's mass
    return torch.lerp(edge, inner, share)


def _edges(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    n_local: int,
    scale: float,
    tiles: Tiles,
    sink: FoldedSink | None,
) -> tuple[Tensor, Tensor]:
    """Attention to what is partly masked: left edge, the tile itself, sink. Returns it with its log-sum-exp."""
    group = query.shape[2] // tiles.size
    edges = [(a, b) for a, b in ((tiles.left, tiles.middle), (tiles.own, tiles.end)) if b > a]
    scores = [query @ _slices(keys, a, b, tiles).mT for a, b in edges]
    biases = [edge_bias(tiles, a, b, n_local, group).expand_as(s) for (a, b), s in zip(edges, scores, strict=True)]
    parts = [_slices(values, a, b, tiles) for a, b in edges]
    if sink is not None:
        scores.append(sink.query @ sink.keys.mT)
        biases.append(sink.bias.expand_as(scores[-1]))
        parts.append(sink.values)
    logits = torch.cat(scores, -1).mul_(scale).add_(torch.cat(biases, -1))
    lse = logits.logsumexp(-1, keepdim=True)
    weights = torch.split(logits.sub_(lse).exp_(), [s.shape[-1] for s in scores], -1)
    out = weights[0] @ parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        out += weight @ part
    return out, lse


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
