"""Encode, first token, decode and loading at the sizes of LLaVA-OneVision, each beside its limit or its target.

    python benchmarks/gpu.py --shape 7b --json gpu-7b.json

Random weights in bf16, made on the device; everything else is the real path: pictures are resized, go through vision
tower and language model, blocks go to host memory and come back. One hour of video at 0.5 frames/s is encoded, then
asked. Only frames behind a full window are timed. The limit is what the device itself reaches, measured in the same
run: every matrix product of the model at the sizes of an encode call, and flash attention of one call to a whole
window. Rates and times are medians; the clock is read when the device is idle.

An hour's blocks take about 26 GiB of (pinned) host memory for 7b, 6 for 0.5b; --frames takes less.
`--shape tiny --device cpu` shows that the program works, and no more.
"""

import argparse
import json
import platform
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import transformers
from device_limits import copy_rate, device_rates, frames_per_s, seconds
from onevision import SIZES, LanguageAlone, RandomOnevision, Sizes, build

import rekv
from rekv.core import Frame
from rekv.engine import Model, Session

QUESTION = "-"
ASKS = 5
CHUNKS = 9  # timed stretches of encoding
LANGUAGE_CHUNKS = 3
TARGETS = {
    "7b": {"encode_frames_per_s": 60, "first_token_ms": 150, "decode_ms_per_token": 6},
    "0.5b": {"encode_frames_per_s": 240, "first_token_ms": 150, "decode_ms_per_token": 6},
    "tiny": {},
}


def main() -> None:
    args = arguments()
    report = measure(SIZES[args.shape], args.device, args.frames) | {
        "targets": TARGETS[args.shape],
        "shape": args.shape,
        "sizes": asdict(SIZES[args.shape]),
        "machine": machine(args.device),
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SIZES, default="7b")
    parser.add_argument(
        "--device", type=device, default=device(None), help="cpu, cuda or cuda:N (default: CUDA, if any)"
    )
    parser.add_argument("--hours", type=float, default=1.0, help="length of the video (default: 1)")
    parser.add_argument("--frames", type=int, help="its length in frames instead")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    sizes = SIZES[args.shape]
    if args.frames is None:
        args.frames = round(args.hours * 3600 * rekv.EncodeConfig().sample_fps)
    least = warm_frames(sizes) + CHUNKS * per_call()
    if args.frames < least:
        parser.error(f"{args.frames} frames are too few: the window has to fill first, {least} is the least")
    return args


def device(name: str | None) -> torch.device:
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise argparse.ArgumentTypeError(f"no device {name!r}; it is cpu, cuda or cuda:N")
    if name == "cpu":
        return torch.device(name)
    number = int(match[1] or 0)
    if number >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"torch sees no {name} here")
    return torch.device("cuda", number)


def per_call() -> int:
    """Frames of one encode call."""
    return rekv.EncodeConfig().frames_per_call


def warm_frames(sizes: Sizes) -> int:
    """Frames until the window is full and its buffer has slid once, in whole encode calls."""
    return ceil(1.5 * sizes.n_local / sizes.tokens_per_frame / per_call()) * per_call()


# -- measuring -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def measure(sizes: Sizes, device: torch.device, n_frames: int) -> dict[str, Any]:
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the one that a timer waits for
    hf = build(sizes, device)
    rates = device_rates(sizes, per_call(), device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    model = Model(RandomOnevision(sizes, hf))
    session, encoded = encode(model, sizes, n_frames, CHUNKS)
    asked = ask(session, sizes)
    used = memory(session)  # before another session adds to it
    alone = Model(LanguageAlone(sizes, hf))
    few = warm_frames(sizes) + LANGUAGE_CHUNKS * encoded["chunk"]
    _, language = encode(alone, sizes, few, LANGUAGE_CHUNKS)
    language_limit = frames_per_s(sizes, rates, vision=False)
    whole_limit = frames_per_s(sizes, rates, vision=True)
    return {
        "frames": n_frames,
        "encode_frames_per_s": encoded["rate"],
        "encode_fraction_of_limit": encoded["rate"] / whole_limit,
        "encode_limit_frames_per_s": whole_limit,
        "language_frames_per_s": language["rate"],
        "language_fraction_of_limit": language["rate"] / language_limit,
        "language_limit_frames_per_s": language_limit,
        **stages(model, sizes),
        **asked,
        **used,
        "device_rates": rates,
        "rounds": {"encode_frames_per_s": encoded["rates"], "language_frames_per_s": language["rates"]},
    }


def frames(sizes: Sizes) -> Iterator[Frame]:
    """An endless video of noise, drawn beforehand."""
    generator = np.random.default_rng(0)
    bank = generator.integers(0, 256, (32, *sizes.picture, 3), np.uint8)
    fps = rekv.EncodeConfig().sample_fps
    number = 0
    while True:
        yield Frame(bank[number % len(bank)], number / fps)
        number += 1


def encode(model: Model, sizes: Sizes, n_frames: int, chunks: int) -> tuple[Session, dict[str, Any]]:
    """Fill a session's window, then time equal chunks of the rest, in frames/s."""
    session = model.session(encoder=None)
    video = frames(sizes)
    session.append(islice(video, warm_frames(sizes)))
    calls = (n_frames - warm_frames(sizes)) // per_call()
    chunk = calls // chunks * per_call()
    rates = []
    for _ in range(chunks):
        work = list(islice(video, chunk))
        rates.append(chunk / elapsed(partial(session.append, work), model.family.device))
    session.append(islice(video, n_frames - session.memory.frames))
    return session, {"rate": statistics.median(rates), "rates": rates, "chunk": chunk}


def stages(model: Model, sizes: Sizes) -> dict[str, float]:
    """The two steps before the language model, each alone: pictures made pixels on the CPU, pixels made features."""
    images = [frame.image for frame in islice(frames(sizes), per_call())]
    pixels = model.family.pixels(images)
    return {
        "pixels_ms_per_frame": seconds(partial(model.family.pixels, images)) / per_call() * 1e3,
        "vision_frames_per_s": per_call() / seconds(partial(model.family.frame_features, pixels)),
    }


def ask(session: Session, sizes: Sizes) -> dict[str, float]:
    """Time to first token, decoding, and loading what the question read."""
    device = session.model.family.device
    answers = []
    for _ in range(ASKS + 1):  # the first warms up
        synchronize(device)
        answers.append(session.ask(QUESTION))
    times = [answer.timings for answer in answers[1:]]
    first = statistics.median(t.wait + t.question + t.first_token for t in times)
    picks = answers[-1].retrieval.frames
    layers = [session.memory.layers[i].blocks for i in range(sizes.layers)]

    def load() -> None:
        for blocks, picked in zip(layers, picks, strict=True):
            blocks.read(picked)

    loading = seconds(load)
    loaded = sum(blocks.bytes_per_frame * len(picked) for blocks, picked in zip(layers, picks, strict=True))
    return {
        "first_token_ms": first * 1e3,
        "question_ms": statistics.median(t.question for t in times) * 1e3,
        "decode_ms_per_token": statistics.median(t.decode for t in times) * 1e3 / (sizes.new_tokens - 1),
        "load_ms": loading * 1e3,
        "load_gb": loaded / 1e9,
        "load_gb_per_s": loaded / loading / 1e9,
        "copy_gb_per_s": copy_rate(device) / 1e9,
    }


def memory(session: Session) -> dict[str, float]:
    """Peaks so far, in GB (1e9 bytes)."""
    device = session.model.family.device
    on_gpu = device.type == "cuda"
    hf = session.model.family.hf
    return {
        "gpu_peak_gb": torch.cuda.max_memory_allocated(device) / 1e9 if on_gpu else 0.0,
        "gpu_reserved_gb": torch.cuda.max_memory_reserved(device) / 1e9 if on_gpu else 0.0,
        "weights_gb": sum(p.numel() * p.element_size() for p in hf.parameters()) / 1e9,
        "blocks_gb": session.memory.bytes / 1e9,
        "ram_peak_gb": high_water() / 1e9,
    }


# -- clocks and counters ---------------------------------------------------------------------------------------


def elapsed(work: Callable[[], object], device: torch.device) -> float:
    """Of one run, from idle device to idle device."""
    synchronize(device)
    begun = perf_counter()
    work()
    synchronize(device)
    return perf_counter() - begun


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def high_water() -> int:
    """Peak bytes of this process in host memory, where the system tells."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


# -- reporting -------------------------------------------------------------------------------------------------


def machine(device: torch.device) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "cpu",
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))) if on_gpu else "",
        "cuda": torch.version.cuda or "",
        "threads": torch.get_num_threads(),
        "rekv": rekv.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def table(report: dict[str, Any]) -> str:
    """One line per figure, the target beside it."""
    lines = [f"{report['shape']} on {report['machine']['device']}"]
    for key, value in report.items():
        if isinstance(value, int | float):
            target = f"  (target {report['targets'][key]:g})" if key in report["targets"] else ""
            lines.append(f"{key:28s} {value:12.4g}{target}")
    for key, value in report["device_rates"].items():
        lines.append(f"{key + ' TFLOP/s':28s} {value / 1e12:12.4g}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except rekv.RekvError as error:
        sys.exit(f"gpu: {error}")
