"""The CUDA kernel: torch's windowed flash attention with log-sum-exp, the sink merged in."""

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rekv.attention.kernels import Sink, dense_attention


def window_attention(
    query: Tensor, keys: Tensor, values: Tensor, n_local: int, scale: float, sink: Sink | None = None
) -> Tensor:
    """See `rekv.attention.kernels`. Flash attention takes 16-bit types only; anything else runs dense."""
    if query.dtype not in (torch.float16, torch.bfloat16):
        return dense_attention(query, keys, values, n_local, scale, sink)
    out, lse = _windowed_flash(query.transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1), n_local, scale)
    if sink is None:
        return out
    far, far_lse = _far(sink, scale, out.shape)
    share = torch.sigmoid(lse - far_lse).unsqueeze(-1)  # the window's share of the softmax's mass
    return torch.lerp(far, out.float(), share).to(out.dtype)


def _windowed_flash(q: Tensor, k: Tensor, v: Tensor, n_local: int, scale: float) -> tuple[Tensor, Tensor]:
    """Bottom-right aligned causal window over (tokens, heads, dim); returns the output and lse (n, heads) in fp32."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    # Flash attention's window bounds are inclusive: a key at distance `left` is still seen.
    left = n_local - 1 if n_local < k.shape[0] else -1
    out, lse = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        _bounds(q.shape[0], q.device),
        _bounds(k.shape[0], k.device),
        q.shape[0],
        k.shape[0],
        return_aux=AuxRequest(lse=True),
        scale=scale,
        window_size=(left, 0),
        **_grouped_heads(q.shape[1] != k.shape[1]),
    )
    return out, lse.float().transpose(0, 1)  # the kernel's lse is (heads, n)


def _bounds(n: int, device: torch.device) -> Tensor:
    return torch.arange(0, n + 1, n, dtype=torch.int32, device=device)  # 0, n; copied there, it would wait for the GPU


def _grouped_heads(grouped: bool) -> dict[str, Any]:
    return {"enable_gqa": True} if grouped and _has_gqa_flag() else {}


@cache
def _has_gqa_flag() -> bool:
    """Newer torch wants grouped heads announced; older takes them as they are."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def _far(sink: Sink, scale: float, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Dense attention to the sink, a handful of keys: output (n, heads, dim) and lse (n, heads), both fp32."""
    n, heads, dim = shape
    kv_heads, sinks, _ = sink.keys.shape
    query = sink.query.reshape(kv_heads, -1, n, dim).float()
    logits = torch.einsum("kgnd,ksd->kgns", query, sink.keys.float()) * scale
    live = torch.arange(sinks, device=logits.device) < sink.counts.to(logits.device, non_blocking=True)[:, None]
    logits = logits.masked_fill(~live, -torch.inf)
    lse = logits.logsumexp(-1)
    # A query that sees no sink yet has lse -inf: its weights are 0, not NaN.
    weights = (logits - lse.clamp_min(torch.finfo(torch.float32).min).unsqueeze(-1)).exp()
    out = torch.einsum("kgns,ksd->nkgd", weights, sink.values.float()).reshape(n, heads, dim)
    # einsum may leave the order of its sum in memory: what is merged with it must be as the caller expects.
    return out.contiguous(), lse.permute(2, 0, 1).reshape(n, heads)
