"""Window + sink attention: one interface, three kernels that agree.

For a query at index i of the context, one softmax over the union of (paper, section 3.2; semantics of the
published implementation)

1. the window: keys j with 0 <= i - j < n_local, all rotated;
2. the sink: the first `counts[i]` keys of the init prompt, seen at the fixed distance n_local - 1.

A key in both sets counts twice, as in the published implementation. The sets overlap only in the frames
during which a stream first outgrows its window.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sink:
    """The init prompt as every later token sees it.

    Rotating a query by an angle and leaving the key alone is the same as leaving the query alone and rotating
    the key back, so the keys are rotated once per session and the un-rotated query is used as it comes.
    """

    query: Tensor  # (heads, n, head_dim), un-rotated
    keys: Tensor  # (kv_heads, sinks, head_dim), rotated back by n_local - 1
    values: Tensor  # (kv_heads, sinks, head_dim)
    counts: Tensor  # (n,) on the CPU: how many sinks each query sees


Kernel = Callable[[Tensor, Tensor, Tensor, int, float, Sink | None], Tensor]


def window_attention(
    query: Tensor, keys: Tensor, values: Tensor, n_local: int, scale: float, sink: Sink | None = None
) -> Tensor:
    """Attend with the fastest kernel for the device.

    `query` is (heads, n, head_dim); `keys` and `values` are (kv_heads, length, head_dim), the queries being the
    last n of them; all rotated. Returns (n, heads, head_dim).
    """
    return kernel_for(query.device)(query, keys, values, n_local, scale, sink)


def kernel_for(device: torch.device) -> Kernel:
    """The kernel used on a device."""
    if device.type == "cpu":
        from rekv.attention import cpu

        return cpu.window_attention
    if device.type == "cuda":
        from rekv.attention import cuda

        return cuda.window_attention
    return dense_attention


def dense_attention(
    query: Tensor, keys: Tensor, values: Tensor, n_local: int, scale: float, sink: Sink | None = None
) -> Tensor:
    """The definition, in plain torch and fp32, on any device: what the other kernels are tested against."""
    heads, n, _ = query.shape
    length = keys.shape[1]
    group = heads // keys.shape[0]
    scores = query.float() @ keys.float().repeat_interleave(group, 0).mT
    scores = scores.masked_fill(~_in_window(n, length, n_local, query.device), -torch.inf)
    seen = values.float()
    if sink is not None:
        far = sink.query.float() @ sink.keys.float().repeat_interleave(group, 0).mT
        live = torch.arange(far.shape[-1]) < sink.counts[:, None]
        scores = torch.cat((scores, far.masked_fill(~live.to(far.device), -torch.inf)), -1)
        seen = torch.cat((seen, sink.values.float()), 1)
    weights = torch.softmax(scores * scale, -1)
    return (weights @ seen.repeat_interleave(group, 0)).to(values.dtype).transpose(0, 1).contiguous()


def _in_window(n: int, length: int, n_local: int, device: torch.device) -> Tensor:
    at = torch.arange(length - n, length, device=device)[:, None]
    distance = at - torch.arange(length, device=device)
    return (distance >= 0) & (distance < n_local)
