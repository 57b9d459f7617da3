"""The kernels agree: brute force, the dense definition, CPU and CUDA."""

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rekv.attention import cpu
from rekv.attention.kernels import Sink, dense_attention, kernel_for

SIZES = (1, 5, 49, 64, 65, 130, 784)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 6e-3, torch.bfloat16: 4e-2}


def inputs(
    n: int,
    length: int,
    *,
    heads: int = 2,
    kv_heads: int = 1,
    dim: int = 16,
    sinks: int = 0,
    counts: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Sink | None]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    query, keys, values = normal(heads, n, dim), normal(kv_heads, length, dim), normal(kv_heads, length, dim)
    if not sinks:
        return query, keys, values, None
    counts = torch.full((n,), sinks) if counts is None else counts
    return (
        query,
        keys,
        values,
        Sink(normal(heads, n, dim), normal(kv_heads, sinks, dim), normal(kv_heads, sinks, dim), counts),
    )


def moved(sink: Sink | None, device: torch.device, dtype: torch.dtype) -> Sink | None:
    """To a device; the counts stay on the CPU."""
    if sink is None:
        return None
    query, keys, values = (x.to(device, dtype) for x in (sink.query, sink.keys, sink.values))
    return Sink(query, keys, values, sink.counts)


def brute_force(query: Tensor, keys: Tensor, values: Tensor, n_local: int, scale: float, sink: Sink | None) -> Tensor:
    """One query, one key at a time, in Python floats."""
    heads, n, dim = query.shape
    group = heads // keys.shape[0]
    out = np.zeros((n, heads, dim))
    for h in range(heads):
        for i in range(n):
            at = keys.shape[1] - n + i
            seen = [
                (query[h, i], keys[h // group, j], values[h // group, j]) for j in range(at + 1) if at - j < n_local
            ]
            if sink is not None:
                far = range(int(sink.counts[i]))
                seen += [(sink.query[h, i], sink.keys[h // group, j], sink.values[h // group, j]) for j in far]
            masses = [math.exp(scale * float(q.double() @ k.double())) for q, k, _ in seen]
            for mass, (_, _, v) in zip(masses, seen, strict=True):
                out[i, h] += mass / sum(masses) * v.double().numpy()
    return torch.from_numpy(out)


@pytest.mark.parametrize("seed", range(12))
def test_dense_definition_equals_brute_force(seed: int) -> None:
    draw = random.Random(seed)
    n = draw.randrange(1, 7)
    length = n + draw.randrange(0, 9)
    sinks = draw.choice((0, 1, 4))
    counts = torch.tensor([draw.randrange(0, sinks + 1) for _ in range(n)])
    kv_heads = draw.choice((1, 2))
    group = draw.choice((1, 3))
    query, keys, values, sink = inputs(
        n, length, heads=kv_heads * group, kv_heads=kv_heads, dim=4, sinks=sinks, counts=counts, seed=seed
    )
    n_local = draw.randrange(1, length + 3)
    ours = dense_attention(query, keys, values, n_local, 0.7, sink)
    torch.testing.assert_close(ours.double(), brute_force(query, keys, values, n_local, 0.7, sink), atol=1e-5, rtol=0)


def situations(n: int) -> Iterator[dict[str, Any]]:
    """Lengths before the queries, windows around every edge, sinks of every kind; heads and sizes drawn."""
    draw = random.Random(n)
    pasts = (0, 1, 63, 200) if n < 784 else (0, 100)
    for past in pasts:
        length = n + past
        windows = {1, 7, 63, 64, 65, n, n + 1, past, length - 1, length, length + 9} - {0}
        for n_local in sorted(windows if n < 784 else {49, 500, length}):
            sinks = draw.choice((0, 1, 13))
            counts = draw.choice(
                (
                    torch.zeros(n, dtype=torch.long),
                    torch.full((n,), sinks),
                    torch.full((n,), sinks // 2),
                    (torch.arange(n) // 9).clamp(max=sinks),
                    (torch.arange(n) - n // 2).clamp(0, sinks),
                    torch.randint(0, sinks + 1, (n,), generator=torch.Generator().manual_seed(n)),
                )
            )
            group, kv_heads = draw.choice(((1, 2), (3, 1), (4, 2), (3, 2)))
            yield {
                "n": n,
                "length": length,
                "n_local": n_local,
                "sinks": sinks,
                "counts": counts,
                "heads": group * kv_heads,
                "kv_heads": kv_heads,
                "dim": draw.choice((16, 32, 64, 128) if n < 130 else (16, 64)),
            }


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_kernel_equals_the_dense_definition(n: int, dtype: torch.dtype, device: torch.device) -> None:
    """The 16-bit kernels are held against the definition in fp32 on the same rounded inputs."""
    kernel = kernel_for(device)
    for case in situations(n):
        n_local = case.pop("n_local")
        query, keys, values, sink = inputs(**case, dtype=dtype)
        scale = case["dim"] ** -0.5
        exact = dense_attention(
            query.float(), keys.float(), values.float(), n_local, scale, moved(sink, torch.device("cpu"), torch.float32)
        )
        sink = moved(sink, device, dtype)
        ours = kernel(query.to(device), keys.to(device), values.to(device), n_local, scale, sink)
        assert ours.dtype == dtype
        assert ours.shape == exact.shape
        assert ours.is_contiguous()
        error = float((ours.cpu().float() - exact).abs().max())
        assert error <= TOLERANCE[dtype], f"{error:.1e} with n_local {n_local} and {case}"


@pytest.mark.parametrize("levels", [(64, 16), (50, 9), (33, 20, 7), (1,)], ids=str)
@pytest.mark.parametrize("n", [65, 130])
def test_cpu_kernel_may_cut_anywhere(n: int, levels: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles at every level, with a rest or without."""
    monkeypatch.setattr(cpu, "LEVELS", levels)
    for case in situations(n):
        n_local = case.pop("n_local")
        given = inputs(**case)
        arguments = (*given[:3], n_local, case["dim"] ** -0.5, given[3])
        error = float((cpu.window_attention(*arguments) - dense_attention(*arguments)).abs().max())
        assert error <= TOLERANCE[torch.float32], f"{error:.1e} with n_local {n_local} and {case}"


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_kernel_takes_what_models_and_buffers_hand_it(dtype: torch.dtype, device: torch.device) -> None:
    """Queries transposed out of (tokens, heads, dim), keys cut out of a larger buffer: nothing contiguous."""
    n, length, heads, kv_heads, dim = 70, 170, 6, 2, 32
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(n, heads, dim, generator=generator).to(device, dtype).transpose(0, 1)
    keys, values = (
        torch.randn(kv_heads, length + 40, dim, generator=generator).to(device, dtype)[:, 11 : 11 + length]
        for _ in range(2)
    )
    far = torch.randn(n, heads, dim, generator=generator).to(device, dtype).transpose(0, 1)
    sink_keys, sink_values = (
        torch.randn(kv_heads, 9, dim, generator=generator).to(device, dtype)[:, 2:7] for _ in range(2)
    )
    counts = torch.arange(2 * n).clamp(max=5)[::2]
    sink = Sink(far, sink_keys, sink_values, counts)
    for n_local in (5, 66, 120, 500):
        ours = kernel_for(device)(query, keys, values, n_local, 0.2, sink)
        exact = dense_attention(query, keys, values, n_local, 0.2, sink).float()
        assert float((ours.float() - exact).abs().max()) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_large_scores_do_not_overflow(dtype: torch.dtype, device: torch.device) -> None:
    """Qwen2's keys have biases of hundreds: products beyond the range of fp16, sums that are fine once scaled."""
    query, keys, values, sink = inputs(70, 200, heads=2, kv_heads=1, dim=128, sinks=4, dtype=dtype)
    biased = keys + 300
    far = Sink(sink.query + 3, sink.keys + 300, sink.values, sink.counts) if sink is not None else None
    ours = kernel_for(device)(
        (query + 3).to(device), biased.to(device), values.to(device), 100, 128**-0.5, moved(far, device, dtype)
    )
    assert bool(ours.isfinite().all())


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Shapes and types of the tensors that operations allocate (views and in-place results are none)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[str, tuple[int, ...], torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {
            x.untyped_storage().data_ptr()
            for x in torch.utils._pytree.tree_leaves((args, kwargs or {}))
            if isinstance(x, Tensor)
        }
        for x in torch.utils._pytree.tree_leaves(result):
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in given:
                self.found.append((str(func), tuple(x.shape), x.dtype))
        return result


@pytest.mark.parametrize("past", [3136, 5000])
def test_cpu_kernel_allocates_nothing_larger_than_its_result(past: int) -> None:
    """Sixteen frames of 49 tokens, a window of 64 frames: no scores or masks over it, no keys copied."""
    n, n_local = 784, 3136
    query, keys, values, sink = inputs(n, n + past, heads=8, kv_heads=2, dim=32, sinks=14)
    kernel = kernel_for(torch.device("cpu"))
    with Allocations() as allocations:
        ours = kernel(query, keys, values, n_local, 32**-0.5, sink)
    large = [found for found in allocations.found if math.prod(found[1]) > ours.numel()]
    assert large == []
    assert sum(math.prod(shape) for _, shape, _ in allocations.found) > ours.numel()  # the record is not empty
    exact = dense_attention(query, keys, values, n_local, 32**-0.5, sink)
    torch.testing.assert_close(ours, exact, atol=1e-5, rtol=0)
