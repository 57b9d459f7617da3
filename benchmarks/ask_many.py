"""Sixteen questions together, beside the same ones one by one: questions per second, and whether the answers are equal.

    python benchmarks/ask_many.py --json ask-many.json

The built-in model and a needle stream of 600 frames; both ways in turns, rates are medians, the ratio is that of the
pairs.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

import rekv
from rekv.core import Answer
from rekv.world import needle_stream

QUESTIONS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    found = measure(args.frames, args.rounds)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    for name, value in found.items():
        print(f"{name:28} {value}")


def measure(frames: int, rounds: int) -> dict[str, Any]:
    session = rekv.load().session()
    stream = needle_stream(np.random.default_rng(1), frames, per_type=2)
    session.append(stream.frames())
    questions = [question.text for question in stream.questions][:QUESTIONS]
    one_by_one, together = [], []
    alone: list[Answer] = []
    at_once: list[Answer] = []

    def ask_each() -> None:
        alone[:] = [session.ask(question) for question in questions]

    def ask_all() -> None:
        at_once[:] = session.ask_many(questions)

    for ask in (ask_each, ask_all):  # warm up
        ask()
    for _ in range(rounds):
        one_by_one.append(elapsed(ask_each))
        together.append(elapsed(ask_all))
    return {
        "frames": frames,
        "questions": len(questions),
        "threads": torch.get_num_threads(),
        "one_by_one_per_s": round(len(questions) / statistics.median(one_by_one), 1),
        "together_per_s": round(len(questions) / statistics.median(together), 1),
        "ratio": round(statistics.median(a / b for a, b in zip(one_by_one, together, strict=True)), 2),
        "ratios": [round(a / b, 2) for a, b in zip(one_by_one, together, strict=True)],
        "same_answers": [a.token_ids for a in alone] == [b.token_ids for b in at_once],
        "same_frames": [a.retrieval.frames for a in alone] == [b.retrieval.frames for b in at_once],
    }


def elapsed(work: Callable[[], None]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


if __name__ == "__main__":
    main()
