"""`python -m training`: make the built-in model and the dual encoder, and say how good they are."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.run import run
from training.scores import QUESTIONS, load, report, table
from training.settings import Settings, further, quick
from training.words import tokenizer


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    settings = replace(Settings(), seed=args.seed, contrast=args.contrast)
    if args.start:
        settings = further(settings, args.start, args.steps, args.rate)
    run(quick(settings) if args.quick else settings, args.out, args.processes)
    if not args.no_scores:
        judge(args.out / "tiny")


def judge(folder: Path) -> None:
    """Say how good a Video-LLM is; its figures are kept beside it."""
    found = report(load(folder), tokenizer(), QUESTIONS)
    (folder / "scores.json").write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(table(found) + "\n")


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("out/training"), help="folder; an interrupted run goes on there"
    )
    parser.add_argument("--quick", action="store_true", help="some minutes: everything is done, little is learned")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contrast", type=float, default=Settings().contrast, help="weight of the retrieval loss")
    parser.add_argument(
        "--start", default="", help="folder of a Video-LLM's checkpoint to be taught more, instead of a new one"
    )
    parser.add_argument("--steps", type=int, default=1600, help="with --start (default: 1600)")
    parser.add_argument("--rate", type=float, default=4e-4, help="with --start: highest learning rate (default: 4e-4)")
    parser.add_argument("--no-scores", action="store_true", help="do not measure how good the result is")
    parser.add_argument(
        "--processes", type=int, help="on the CPU, of one thread each (default: 2; a GPU is used if there is one)"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
