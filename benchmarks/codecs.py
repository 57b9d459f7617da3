"""What each codec costs: bytes per hour, time to pack and unpack, error of attention outputs, right answers.

    python benchmarks/codecs.py --needle-questions 2000 --json codecs.json

Errors are relative: |output - exact output| / |exact output| of attention over 64 retrieved blocks, in fp32. `raw` is
not exact where blocks are bf16: its error is the yardstick of the others.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from codec_error import OUTLIER_MEAN, OUTLIER_NOISE, OUTLIERS, block_error, errors, synthetic
from codec_needle import needle

import rekv
from rekv.store.codecs import CODECS, codec

MODELS = {  # published shapes: layers, kv_heads, head_dim; 196 tokens, 16 bits, 0.5 frames a second
    "llava_ov_0.5b": (24, 2, 64),
    "llava_ov_7b": (28, 4, 128),
    "llava_ov_72b": (80, 8, 128),
}
TOKENS = 196
FRAMES_PER_HOUR = 1800
SHARPNESS = (1.0, 2.0, 3.0)  # standard deviation of attention scores: from diffuse to a few tokens


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    model = rekv.load()
    report: dict[str, Any] = {
        "bytes": {name: sizes(*shape) for name, shape in MODELS.items()},
        "speed": {name: speed(name, args.blocks) for name in CODECS},
        "synthetic": {
            str(sharpness): errors([synthetic(seed, sharpness) for seed in range(args.seeds)])
            for sharpness in SHARPNESS
        },
        "builtin": block_error(model),
        "settings": {
            "threads": args.threads,
            "blocks_per_call": args.blocks,
            "synthetic_layers": args.seeds,
            "outlier_channels_per_head": OUTLIERS,
            "outlier_mean": OUTLIER_MEAN,
            "outlier_noise": OUTLIER_NOISE,
            "torch": torch.__version__,
        },
    }
    if args.needle_questions:
        lossy = [name for name in CODECS if name != "raw"]
        report["needle"] = needle(model, lossy, args.needle_questions, args.frames, args.seed)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--seeds", type=int, default=4, help="synthetic layers to average over (default: 4)")
    parser.add_argument("--blocks", type=int, default=16, help="blocks per call when timing (default: 16)")
    parser.add_argument("--needle-questions", type=int, default=0, help="ask at least so many (default: none)")
    parser.add_argument("--frames", type=int, default=600, help="length of each needle stream (default: 600)")
    parser.add_argument("--seed", type=int, default=1, help="of the needle streams")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def sizes(layers: int, heads: int, dim: int) -> dict[str, dict[str, float]]:
    """Bytes per frame and GiB per hour by codec; `with_index` adds the fp32 representative keys."""
    index = 4 * layers * heads * dim
    found = {}
    for name in CODECS:
        frame = layers * codec(name, (heads, TOKENS, dim), torch.bfloat16).nbytes
        hour, whole = (FRAMES_PER_HOUR * n / 2**30 for n in (frame, frame + index))
        found[name] = {"bytes_per_frame": frame, "gib_per_hour": round(hour, 2), "with_index": round(whole, 2)}
    return found


def speed(name: str, n: int) -> dict[str, float]:
    """GB/s of 16-bit blocks, packed from memory and unpacked into a buffer, at the shape of 7B."""
    made = codec(name, (4, TOKENS, 128), torch.bfloat16)
    blocks = torch.randn(n, 2, 4, TOKENS, 128).to(torch.bfloat16)
    out = torch.empty_like(blocks)
    packed = made.pack(blocks)
    seconds = {"pack": best_of(lambda: made.pack(blocks)), "unpack": best_of(lambda: made.unpack(packed, out))}
    if packed.data_ptr() == blocks.data_ptr():  # a view of the blocks: nothing to time
        del seconds["pack"]
    return {f"{verb}_gb_per_s": round(blocks.nbytes / s / 1e9, 2) for verb, s in seconds.items()}


def best_of(call: Callable[[], object], rounds: int = 9) -> float:
    """Seconds of the fastest call."""
    times = []
    for _ in range(rounds):
        begun = perf_counter()
        call()
        times.append(perf_counter() - begun)
    return min(times)


def table(report: dict[str, Any]) -> str:
    lines = ["GiB per hour with index   " + "".join(f"{name:>16}" for name in MODELS)]
    for name in CODECS:
        hours = (report["bytes"][model][name]["with_index"] for model in MODELS)
        lines.append(f"  {name:24}" + "".join(f"{hour:16.2f}" for hour in hours))
    cases = {f"7B shape, deviation {key}": found for key, found in report["synthetic"].items()}
    cases["built-in model"] = report["builtin"]
    for title, found in cases.items():
        lines.append(f"error of attention, {title}")
        lines += [f"  {name:5} " + ", ".join(f"{k} {v:.5f}" for k, v in e.items()) for name, e in found.items()]
    lines.append("GB/s of 16-bit blocks")
    lines += [f"  {name:5} " + ", ".join(f"{k} {v}" for k, v in s.items()) for name, s in report["speed"].items()]
    for name, found in report.get("needle", {}).items():
        lines.append(f"needle, {name}: " + ", ".join(f"{k} {v}" for k, v in found.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except rekv.RekvError as error:
        sys.exit(f"codecs: {error}")
