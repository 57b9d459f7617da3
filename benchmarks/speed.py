"""Encode, question, decode and memory on the CPU, each against its limit or its stock counterpart in the same run.

    python benchmarks/speed.py --json speed.json

The work is that of the published code's CPU timing (docs/benchmarks.md): 600 frames of 49 tokens through a language
model of 8 layers, hidden size 256, window 3136 tokens, 32 frames retrieved, one thread. Random weights; frame
features are drawn as they are asked for. Every figure is the median over rounds; a ratio is the median of ratios
within rounds.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, as in the published timing

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from shapes import RandomLM, Shape
from transformers import DynamicCache

from rekv.attention.cpu import FLASH
from rekv.core import Frame
from rekv.engine import Model, Session

PICTURE = np.zeros((1, 1, 3), np.uint8)
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=Shape.frames)
    parser.add_argument("--memory-frames", type=int, default=3600, help="length of the flat-memory run")
    parser.add_argument("--memory-child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape = Shape(frames=args.frames)
    if args.memory_child:
        json.dump(memory_child(shape, args.memory_child), sys.stdout)
        return
    report = measure(shape, args.rounds, args.memory_frames)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    for key, value in report.items():
        if not isinstance(value, dict | list):
            print(f"{key:28s} {value}")
    for key, value in report["bf16"].items():
        print(f"bf16 {key:23s} {value}")


def measure(shape: Shape, rounds: int, memory_frames: int) -> dict[str, Any]:
    fp32 = [one_round(Model(RandomLM(shape)), shape) for _ in range(rounds)]
    bf16 = [one_round(Model(RandomLM(shape, torch.bfloat16)), shape) for _ in range(max(1, rounds // 3))]
    short, long = (run_memory_child(n) for n in (shape.frames, memory_frames))
    return {
        **summary(fp32),
        "memory_overhead_mb": round(short["overhead_mb"], 1),
        "memory_growth_mb": round(long["growth_mb"], 1),
        "bf16": {
            **{k: v for k, v in summary(bf16).items() if "limit" not in k},
            "encode_vs_fp32": round(
                statistics.median(r["encode_cpu_s"] for r in bf16) / statistics.median(r["encode_cpu_s"] for r in fp32),
                3,
            ),
        },
        "share_of_encode_time": profile(Model(RandomLM(shape)), shape),
        "memory": {"short": short, "long": long},
        "rounds": {"fp32": fp32, "bf16": bf16},
        "shape": vars(shape),
        "machine": machine(),
    }


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    keys = [k for k in rounds[0] if not k.startswith("_")]
    return {k: round(statistics.median(r[k] for r in rounds), 3) for k in keys}


def one_round(model: Model, shape: Shape) -> dict[str, float]:
    """Rates, encoding, asking and decoding, one after the other, so that all see the same machine."""
    dtype = model.family.dtype
    products, flash = product_rate(shape, dtype), flash_rate(shape)
    encode, session = encode_seconds(model, shape)
    limit = shape.linear_flop() / products + shape.attention_flop() / flash
    asks, decodes, stock_asks, stock_decodes = [], [], [], []
    for _ in range(4):
        timings = session.ask("-").timings
        asks.append((timings.question + timings.first_token) * 1e3)
        decodes.append(timings.decode * 1e3 / (shape.new_tokens - 1))
        stock_asks.append(stock_prefill_seconds(model, shape) * 1e3)
        stock_decodes.append(stock_decode_seconds(model, shape) * 1e3)
    middle = [statistics.median(values[1:]) for values in (asks, decodes, stock_asks, stock_decodes)]
    return {
        "encode_cpu_s": encode,
        "encode_fraction_of_limit": limit / encode,
        "encode_limit_s": limit,
        "question_and_prefill_ms": middle[0],
        "ask_vs_stock": middle[0] / middle[2],
        "stock_prefill_ms": middle[2],
        "decode_ms_per_token": middle[1],
        "decode_vs_stock": middle[1] / middle[3],
        "stock_decode_ms_per_token": middle[3],
        "_products_gflops": products / 1e9,
        "_flash_gflops": flash / 1e9,
    }


def frames(first: int, last: int) -> list[Frame]:
    return [Frame(PICTURE, float(i)) for i in range(first, last)]


def encode_seconds(model: Model, shape: Shape) -> tuple[float, Session]:
    session = model.session(encoder=None)
    work = frames(0, shape.frames)
    begun = time.process_time()
    session.append(work)
    return time.process_time() - begun, session


def cpu_seconds(work: Callable[[], object], repeat: int) -> float:
    """Best of `repeat`: a limit is what the machine can do."""
    work()
    best = float("inf")
    for _ in range(repeat):
        begun = time.process_time()
        work()
        best = min(best, time.process_time() - begun)
    return best


@torch.inference_mode()
def product_rate(shape: Shape, dtype: torch.dtype, rows: int = 784) -> float:
    """FLOP/s of the model's own linear layers, at 16 frames per call."""
    flop = seconds = 0.0
    for width, out, count in shape.linear_shapes():
        x, weight = torch.randn(rows, width, dtype=dtype), torch.randn(out, width, dtype=dtype)
        flop += 2.0 * rows * width * out * count
        seconds += count * cpu_seconds(lambda x=x, w=weight: torch.nn.functional.linear(x, w), 10)  # type: ignore[misc]
    return flop / seconds


@torch.inference_mode()
def flash_rate(shape: Shape) -> float:
    """FLOP/s of torch's flash attention in fp32 over one whole window, unmasked: the faster of two shapes."""
    rates = []
    for heads, rows in ((shape.heads, shape.n_local), (shape.kv_heads, 784)):
        q = torch.randn(1, heads, rows, shape.head_dim)
        k, v = torch.randn(2, 1, heads, shape.n_local, shape.head_dim)
        seconds = cpu_seconds(lambda q=q, k=k, v=v: FLASH(q, k, v), 5)  # type: ignore[misc]
        rates.append(4.0 * heads * rows * shape.n_local * shape.head_dim / seconds)
    return max(rates)


def stock_cache(model: Model, shape: Shape) -> DynamicCache:
    cache, dtype = DynamicCache(), model.family.dtype
    for layer in range(shape.layers):
        k, v = torch.randn(2, 1, shape.kv_heads, shape.context, shape.head_dim, dtype=dtype)
        cache.update(k, v, layer)
    return cache


@torch.inference_mode()
def stock_prefill_seconds(model: Model, shape: Shape) -> float:
    """The stock model takes question and prompt in one forward pass over an equally long cache."""
    cache = stock_cache(model, shape)
    ids = torch.arange(shape.question + shape.prompt)[None]
    begun = time.perf_counter()
    model.family.hf(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return time.perf_counter() - begun


@torch.inference_mode()
def stock_decode_seconds(model: Model, shape: Shape) -> float:
    """Stock `generate()` per token after the first, on an equally long cache."""
    stamps: list[float] = []

    def stamp(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        stamps.append(time.perf_counter())
        return torch.tensor([False])

    ids = torch.arange(shape.prompt)[None]
    hf: Any = model.family.hf
    hf.generate(
        input_ids=ids,
        attention_mask=torch.ones(1, shape.context + shape.prompt, dtype=torch.long),
        past_key_values=stock_cache(model, shape),
        max_new_tokens=shape.new_tokens,
        do_sample=False,
        stopping_criteria=transformers.StoppingCriteriaList([stamp]),
    )
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1)


def profile(model: Model, shape: Shape) -> dict[str, float]:
    """Where encode time goes with a full window: share of CPU time by operator."""
    session = model.session(encoder=None)
    session.append(frames(0, shape.window_frames + 16))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        session.append(frames(shape.window_frames + 16, shape.window_frames + 80))
    events = profiler.key_averages()
    total = sum(e.self_cpu_time_total for e in events)
    top = sorted(events, key=lambda e: -e.self_cpu_time_total)[:12]
    return {e.key: round(e.self_cpu_time_total / total, 4) for e in top}


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def own() -> float:
    """Resident memory but for pages of files: those of libraries come and go as the system likes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) * 1024 / MB


def high_water() -> float:
    """Peak resident memory of this process alone: `ru_maxrss` would include its parent's."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / MB


def memory_child(shape: Shape, n: int) -> dict[str, Any]:
    """In a process of its own: what encoding n frames and one question take beyond imports, weights and blocks."""
    imports, start = resident(), own()
    model = Model(RandomLM(shape))
    weights = sum(p.numel() * p.element_size() for p in model.family.hf.parameters()) / MB
    session = model.session(encoder=None)
    curve = []
    for first in range(0, n, 100):
        session.append(frames(first, min(first + 100, n)))
        gc.collect()
        curve.append([session.memory.frames, round(own() - session.memory.bytes / MB - start - weights, 2)])
    session.ask("-")
    kv = session.memory.bytes / MB
    peak = high_water()
    settled = [mb for seen, mb in curve if seen >= 3 * shape.window_frames]
    return {
        "overhead_mb": peak - imports - kv - weights,
        "growth_mb": growth(settled),
        "peak_mb": peak,
        "imports_mb": imports,
        "weights_mb": weights,
        "kv_mb": kv,
        "curve": curve,
    }


def growth(curve: list[float]) -> float:
    """From the first quarter to the last, by medians: the heap goes up and down by tens of megabytes meanwhile."""
    quarter = len(curve) // 4
    return statistics.median(curve[-quarter:]) - statistics.median(curve[:quarter]) if quarter else 0.0


def run_memory_child(n: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--memory-child", str(n)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def machine() -> dict[str, str]:
    cpu = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "")
    return {
        "cpu": cpu.partition(":")[2].strip() or platform.processor(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


if __name__ == "__main__":
    main()
