"""How often the dual encoder finds what a question is about: recall among the frames that it likes best.

    python benchmarks/dual.py --json dual.json

Needle streams of the base set. Each frame of a stream is embedded once; a question about one thing is embedded at the
stream's end, and the frames are ranked by their similarity to it. Found is what is shown by one of the best 8 frames.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from needle_scores import wilson
from torch import Tensor

import rekv
from rekv.models.dual import FOLDER, DualEncoder, load_dual
from rekv.world import NEEDLE_TYPES, NeedleStream, needle_stream

TYPES = tuple(type for type in NEEDLE_TYPES if type != "order")  # about one thing
FRAMES_PER_CALL = 64
PER_TYPE = 2


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    encoder = load_dual(str(args.folder))
    found = {seed: list(measure(encoder, seed, args)) for seed in args.seeds}
    report = {
        **summary([one for of_seed in found.values() for one in of_seed]),
        "by_seed": {str(seed): summary(of_seed) for seed, of_seed in found.items()},
        "frames": args.frames,
        "streams_per_seed": args.streams,
        "best": args.best,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="a SigLIP checkpoint (default: the built-in one)")
    parser.add_argument("--frames", type=int, default=600, help="length of each stream (default: 600)")
    parser.add_argument("--streams", type=int, default=4, help="per seed (default: 4)")
    parser.add_argument("--best", type=int, default=8, help="frames that count as found (default: 8)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def measure(encoder: DualEncoder, seed: int, args: argparse.Namespace) -> Iterator[tuple[str, bool]]:
    """Yield for every question its type, and whether a frame that shows its answer is among the best."""
    for number in range(args.streams):
        stream = needle_stream(np.random.default_rng((seed, number)), args.frames, per_type=PER_TYPE)
        asked = [question for question in stream.questions if question.type in TYPES and question.evidence]
        likes = encoder.texts([question.text for question in asked]) @ embed(encoder, stream).T
        for question, best in zip(asked, likes.topk(args.best).indices.tolist(), strict=True):
            yield question.type, any(start <= frame < stop for start, stop in question.evidence for frame in best)


def embed(encoder: DualEncoder, stream: NeedleStream) -> Tensor:
    """Return a unit vector per frame: (frames, dim)."""
    parts, images = [], []
    for frame in stream.frames():
        images.append(frame.image)
        if len(images) == FRAMES_PER_CALL:
            parts.append(encoder.pictures(images))
            images = []
    return torch.cat([*parts, encoder.pictures(images)] if images else parts)


def summary(found: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    by_type = defaultdict(list)
    for type, hit in found:
        by_type[type].append(hit)
    return {
        **share([hit for _, hit in found]),
        "by_type": {type: share(by_type[type]) for type in TYPES if by_type[type]},
    }


def share(hits: Sequence[bool]) -> dict[str, Any]:
    return {
        "recall": round(sum(hits) / len(hits), 4),
        "ci95": [round(end, 4) for end in wilson(sum(hits), len(hits))],
        "questions": len(hits),
    }


def table(report: Mapping[str, Any]) -> str:
    """A line for all questions, for each seed, and for each type."""
    rows = {"all": report}
    rows |= {f"seed {seed}": one for seed, one in report["by_seed"].items()}
    rows |= report["by_type"]
    lines = [f"recall of what {report['best']} of {report['frames']} frames show"]
    for name, one in rows.items():
        low, high = one["ci95"]
        lines.append(f"{name:9} {one['recall']:.3f}  [{low:.3f}, {high:.3f}] {one['questions']:5d} questions")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except rekv.RekvError as error:
        sys.exit(f"dual: {error}")
