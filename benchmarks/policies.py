"""What memory policies cost in right answers, and what they save: accuracy against bytes on the needle questions.

    python benchmarks/policies.py --json policies.json --plot policies.png

Every stream of `needle.py --set base` is encoded once, and asked at its end under each policy: what a policy changes is
what questions read; the window, and so what frames are encoded as, is the same. `bytes` are those of the kept
keys and values in all layers, as a share of all. `random` keeps a share of the tokens without looking at them: what a
policy is worth is its distance from that at the same bytes. The pairs lost and won are those of the same questions with
and without the policy.
"""

import argparse
import json
import logging
import sys
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from codec_needle import paired_loss
from needle import versions
from needle_scores import Result, judge, wilson
from torch import Tensor

import rekv
from rekv.memory.kept import KeptBlocks
from rekv.memory.policies import Policy, find, register
from rekv.world import NEEDLE_TYPES, NeedleStream, needle_stream

log = logging.getLogger("policies")

SHARES = (0.75, 0.5, 0.25)
COSINES = (0.99, 0.95, 0.9, 0.8)
POLICIES = (
    *(f"value-norm:{share}" for share in SHARES),
    *(f"redundancy:{cosine}" for cosine in COSINES),
    *(f"random:{share}" for share in SHARES),
)


@register
class Random(Policy):
    """Keeps a share of a frame's tokens, chosen by a number that the block itself gives."""

    name = "random"

    def __init__(self, share: float = 0.5) -> None:
        self._share = share

    def keep(self, blocks: Tensor, before: Tensor | None) -> Tensor:
        n, tokens = len(blocks), blocks.shape[3]
        kept = torch.zeros(n, tokens, dtype=torch.bool)
        for row, block in zip(kept, blocks, strict=True):
            seed = int(block.float().abs().sum().item() * 1e6) % 2**31
            row[np.random.default_rng(seed).permutation(tokens)[: ceil(self._share * tokens)]] = True
        return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600, help="length of each stream (default: 600)")
    parser.add_argument("--questions", type=int, default=300, help="at least so many (default: 300)")
    parser.add_argument("--policies", nargs="+", default=POLICIES, help=f"(default: {' '.join(POLICIES)})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--plot", type=Path, help="draw accuracy against bytes here (needs matplotlib)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    model = rekv.load()
    report = {
        "policies": measure(model, ("none", *args.policies), args.questions, args.frames, args.seed),
        "model": model.family.name,
        "frames": args.frames,
        "seed": args.seed,
        "versions": versions(),
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.plot:
        draw(report, args.plot)
    print(table(report))


def measure(
    model: rekv.Model, names: tuple[str, ...], questions: int, frames: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Ask at least so many questions, 16 of a stream of `frames` frames, under each policy."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    shares: dict[str, list[float]] = {name: [] for name in names}
    streams = ceil(questions / (2 * len(NEEDLE_TYPES)))
    for i in range(streams):
        stream = needle_stream(np.random.default_rng((seed, i)), frames, per_type=2)
        session = model.session()
        session.append(stream.frames())
        for name in names:
            shares[name].append(keep(session, None if name == "none" else name))
            results[name] += ask_all(session, stream)
        log.info("stream %d of %d: %s", i + 1, streams, {name: sum(r.right for r in results[name]) for name in names})
    return {name: summary(results[name], results["none"], shares[name]) for name in names}


@torch.inference_mode()
def keep(session: rekv.Session, name: str | None) -> float:
    """Let questions read what a policy keeps, of frames that have been stored whole; return its share of the bytes."""
    policy, frames = find(name), range(session.memory.frames)
    kept = 0
    for layer in session.memory.layers.values():
        layer.kept = None
        if policy is not None:
            layer.kept = KeptBlocks(policy, layer.blocks, None)
            layer.keep(frames, None)
            kept += layer.kept.bytes(frames)
    return kept / (len(frames) * session.memory.bytes_per_frame) if policy else 1.0


def ask_all(session: rekv.Session, stream: NeedleStream) -> list[Result]:
    return [judge(question, session.ask(question.text), 0) for question in stream.questions]


def summary(results: list[Result], whole: list[Result], shares: list[float]) -> dict[str, Any]:
    right = sum(result.right for result in results)
    pairs = list(zip(whole, results, strict=True))
    lost = sum(a.right and not b.right for a, b in pairs)
    won = sum(b.right and not a.right for a, b in pairs)
    loss, upper = paired_loss(lost, won, len(pairs))
    types = {type: [r.right for r in results if r.type == type] for type in dict.fromkeys(r.type for r in results)}
    return {
        "questions": len(results),
        "bytes": round(sum(shares) / len(shares), 4),
        "accuracy": round(right / len(results), 4),
        "ci95": [round(end, 4) for end in wilson(right, len(results))],
        "lost": lost,
        "won": won,
        "loss": round(loss, 4),
        "loss_upper_95": round(upper, 4),
        "per_type": {type: round(sum(of_type) / len(of_type), 4) for type, of_type in types.items()},
    }


def table(report: dict[str, Any]) -> str:
    """One line per policy."""
    found = report["policies"]
    types = list(next(iter(found.values()))["per_type"])
    lines = ["policy           bytes accuracy  95 % interval   lost  won " + "".join(f"{type:>9}" for type in types)]
    for name, one in found.items():
        low, high = one["ci95"]
        by_type = "".join(f"{one['per_type'][type]:9.2f}" for type in types)
        lines.append(
            f"{name:16} {one['bytes']:5.1%} {one['accuracy']:8.3f}  [{low:.3f}, {high:.3f}]"
            f" {one['lost']:6d} {one['won']:4d} {by_type}"
        )
    return "\n".join(lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """Accuracy against bytes, one line for each kind of policy, with 95 % intervals."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colors = {"value-norm": "#d55e00", "redundancy": "#0072b2", "random": "#999999"}
    found = report["policies"]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
        axes = figure.subplots()
        axes.axhline(found["none"]["accuracy"], color="black", lw=0.8, ls=":")
        for kind in dict.fromkeys(name.partition(":")[0] for name in found if name != "none"):
            points = sorted(
                (one for name, one in found.items() if name == "none" or name.startswith(f"{kind}:")),
                key=lambda one: float(one["bytes"]),
            )
            x, y = [one["bytes"] * 100 for one in points], [one["accuracy"] for one in points]
            ends = [
                [one["accuracy"] - one["ci95"][0] for one in points],
                [one["ci95"][1] - one["accuracy"] for one in points],
            ]
            axes.errorbar(x, y, ends, label=kind, color=colors.get(kind), marker="o", ms=4, lw=1.2, capsize=2)
        axes.set_xlim(0, 104)
        axes.set_ylim(0, 1)
        axes.set_xlabel("keys and values kept, % of bytes")
        axes.set_ylabel("accuracy")
        questions = found["none"]["questions"]
        axes.set_title(f"{questions} needle questions, {report['frames']} frames", loc="left", fontsize=10)
        axes.legend(frameon=False, loc="lower right")
        figure.savefig(path)


if __name__ == "__main__":
    try:
        main()
    except rekv.RekvError as error:
        sys.exit(f"policies: {error}")
