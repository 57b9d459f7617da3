"""The store against its limits: rates, cost against length, memory within a budget, bytes per hour.

    python benchmarks/store.py all --json store.json --plot store.png

rates: the store beside plain writes into preallocated files with as many syncs, and beside plain parallel reads of
the same places. length: time to the first token of sessions of 1,000 to 50,000 frames, blocks on disk.
memory: what a process takes that reads and asks with a tenth of the blocks' bytes in RAM. bytes: per hour, by codec.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from speed import machine
from store_blocks import SHAPES
from store_bytes import hours
from store_plot import draw
from store_rates import rates
from store_stream import UNLIMITED, lengths, memory_child

import rekv


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    if args.part == "memory-child":
        json.dump(memory_child(args.place, args.frames, args.ram), sys.stdout)
        return
    report: dict[str, Any] = {}
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "rates": lambda place: rates(place, args.rounds, args.shapes, args.share),
        "length": lambda place: lengths(place, args.lengths, args.questions),
        "memory": lambda place: memory(place, args.frames),
        "bytes": lambda place: hours(place, args.shapes),
    }
    for name, part in parts.items():
        if args.part in (name, "all"):
            begun = perf_counter()
            with tempfile.TemporaryDirectory(prefix="rekv-store-", dir=args.place) as folder:
                report[name] = part(Path(folder))
            report[name]["seconds"] = round(perf_counter() - begun, 1)
    report["machine"] = machine()
    if args.json:
        args.json.write_text(dumps(report))
    if args.plot:
        draw(report, args.plot)
    print(table(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("all", "rates", "length", "memory", "bytes", "memory-child"))
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--plot", type=Path, help="draw length and memory here (PNG)")
    parser.add_argument("--place", type=Path, help="folder on the disk to be measured; up to 2 GB are used for a while")
    parser.add_argument("--rounds", type=int, default=7, help="of rates (default: 7)")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="of rates and bytes")
    parser.add_argument("--share", type=float, default=1.0, help="of the frames that rates writes (default: all)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1000, 10000, 50000], help="in frames, ascending")
    parser.add_argument("--questions", type=int, default=21, help="per length (default: 21)")
    parser.add_argument("--frames", type=int, default=20000, help="of memory (default: 20000)")
    parser.add_argument("--ram", type=int, default=UNLIMITED, help=argparse.SUPPRESS)
    return parser.parse_args()


def memory(place: Path, n: int) -> dict[str, Any]:
    """With a budget of a tenth of the stream's blocks, and without one, each in a process of its own."""
    budgets = {"bounded": n * SHAPES["builtin"].frame_bytes // 10, "unlimited": UNLIMITED}
    return {name: _memory(place / name, n, ram) for name, ram in budgets.items()}


def _memory(place: Path, n: int, ram: int) -> dict[str, Any]:
    options = {"--place": place, "--frames": n, "--ram": ram}
    words = [str(word) for option in options.items() for word in option]
    child = subprocess.run(
        [sys.executable, __file__, "memory-child", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(child.stdout)
    return found


def dumps(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=1) + "\n"


def table(report: dict[str, Any]) -> str:
    lines = []
    for name, of_shape in report.get("rates", {}).items():
        for what in ("write", "cold", "warm") if name in SHAPES else ():
            one = of_shape[what]
            shares = ", ".join(f"{key[6:]} {value:.0%}" for key, value in one.items() if key.startswith("share_"))
            lines.append(
                f"{name:14} {what:5} {one['store_gb_per_s']:6.2f} of {one['plain_gb_per_s']:6.2f} GB/s, "
                f"ratio {one['ratio']:.2f}"
                + (f", to plain reads with checksums {one['ratio_checked']:.2f}" if "ratio_checked" in one else "")
                + (f" ({shares})" if shares else "")
            )
    for budget in ("index_in_ram", "index_on_disk"):
        for state in ("cold", "warm"):
            for n, one in report.get("length", {}).get(budget, {}).get(state, {}).items():
                lines.append(f"{budget} {state} {int(n):7,} frames: " + ", ".join(f"{k} {v}" for k, v in one.items()))
    for name in ("bounded", "unlimited"):
        if one := report.get("memory", {}).get(name):
            lines.append(f"memory, {name}: " + ", ".join(f"{k} {v}" for k, v in one.items() if k != "curve"))
    for name, codecs in report.get("bytes", {}).items():
        for codec, one in codecs.items() if name in SHAPES else ():
            lines.append(f"{name:14} {codec:5}: " + ", ".join(f"{k} {v}" for k, v in one.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except rekv.RekvError as error:
        sys.exit(f"store: {error}")
