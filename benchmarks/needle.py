"""A few unique things hidden in a long stream, asked for at its end: how many answers are right, by choice of frames?

    python benchmarks/needle.py --frames 600 --json needle.json --plot needle.png

Every stream is encoded by the engine with the built-in model and asked at its end, when all that is asked for has left
the window. It is drawn from one of two sets:

    base      `rekv.world.needle_stream`: 8 types of question, 2 of each; every needle is unique
    hard      `rekv.world.hard_stream`: 9 types, 1 of each; every needle is among things that it can be mistaken for

With `--extra N` every stream is asked N more questions about the present (as of some moment), N that count, and N about
what never appeared: groups of questions are in `needle_questions.py`.

Methods:

    internal  every layer retrieves the frames that its own question query likes best (the paper's)
    recent    the newest frames
    uniform   evenly spaced frames
    oracle    frames that show the answer, filled up with random others
    full      all frames, encoded with full attention: the stock model, without window or retrieval

and any other retriever of rekv (external, fusion, auto), with options: see `frame_choice.py`.

All but `full`, `auto` and those with options that say otherwise read `retrieve_size` frames. An answer is right if its
whole text is; `recall` is the share of the question's evidence (the time ranges that show the answer) of which a frame
was read, averaged over layers. The figures depend on the seeds alone, but for milliseconds.
"""

import argparse
import json
import logging
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import transformers
from frame_choice import METHODS, Method
from needle_questions import GROUPS, questions
from needle_scores import Result, judge, paired, summary

import rekv
from rekv.world import HARD_TYPES, NEEDLE_TYPES, NeedleStream, QuestionType, hard_stream, needle_stream

log = logging.getLogger("needle")


@dataclass(frozen=True, slots=True)
class StreamSet:
    """Streams of one kind."""

    draw: Callable[..., NeedleStream]  # (randomness, frames, per_type=...)
    types: Sequence[QuestionType]
    per_type: int  # questions of each type in a stream, unless told otherwise


SETS = {
    "base": StreamSet(needle_stream, NEEDLE_TYPES, per_type=2),
    "hard": StreamSet(hard_stream, HARD_TYPES, per_type=1),  # 2 of each need 1,000 frames
}


@dataclass(frozen=True, slots=True)
class Work:
    """What to measure, and with which settings."""

    set: StreamSet
    frames: int
    per_type: int
    methods: tuple[Method, ...]
    extra: int  # questions besides those of a stream, of each group that it has few of
    streams: tuple[tuple[int, int], ...]  # (seed, number): what a stream is drawn from
    full_streams: int  # how many of them the method `full` is given
    retrieve_size: int
    n_local: int


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    model = rekv.load()
    work = plan(args, model)
    measured = measure(model, work)
    report = {
        "methods": {method: summary(*results) for method, results in measured.items()},
        "paired": comparisons(measured),
        "set": args.set,
        "frames": work.frames,
        "retrieve_size": work.retrieve_size,
        "seeds": args.seeds,
        "settings": settings(args, model, work),
        "versions": versions(),
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.plot:
        from needle_plot import draw  # matplotlib is an extra

        draw(report, args.plot)
    print(table(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="base", help="which streams (default: base)")
    parser.add_argument("--frames", type=int, default=600, help="length of each stream (default: 600)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--plot", type=Path, help="draw accuracy and recall by type here (needs matplotlib)")
    parser.add_argument("--questions", type=int, default=300, help="at least so many (default: 300)")
    parser.add_argument("--per-type", type=int, help="questions of each type in a stream: 1 or 2 (default: the set's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="streams are drawn from these in turn")
    parser.add_argument("--extra", type=int, default=0, help="more questions per stream and group (default: 0)")
    parser.add_argument("--methods", type=methods, default=methods(",".join(METHODS)), help="see frame_choice.py")
    parser.add_argument("--full-streams", type=int, help="limit `full`, whose work grows with the square of the length")
    parser.add_argument("--retrieve-size", type=int, help="frames to read (default: the model's)")
    parser.add_argument("--n-local", type=int, help="tokens of the local window (default: the model's)")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def methods(text: str) -> tuple[Method, ...]:
    try:
        return tuple(Method.parse(name) for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def plan(args: argparse.Namespace, model: rekv.Model) -> Work:
    streams = SETS[args.set]
    per_type = streams.per_type if args.per_type is None else args.per_type
    count = ceil(args.questions / max(len(streams.types) * per_type, 1))
    seeds = args.seeds
    return Work(
        set=streams,
        frames=args.frames,
        per_type=per_type,
        methods=args.methods,
        extra=args.extra,
        streams=tuple((seeds[i % len(seeds)], i // len(seeds)) for i in range(count)),
        full_streams=count if args.full_streams is None else min(args.full_streams, count),
        retrieve_size=args.retrieve_size or model.family.ask_config.retrieve_size,
        n_local=args.n_local or model.family.encode_config.n_local,
    )


# -- measuring -------------------------------------------------------------------------------------------------


def measure(model: rekv.Model, work: Work) -> dict[str, tuple[list[Result], list[float]]]:
    """Ask by every method: its results, and the seconds per frame that each of its streams took to encode."""
    measured: dict[str, tuple[list[Result], list[float]]] = {method.name: ([], []) for method in work.methods}
    for i, drawn_from in enumerate(work.streams):
        stream = work.set.draw(np.random.default_rng(drawn_from), work.frames, per_type=work.per_type)
        for names, n_local in passes(model, work, full=i < work.full_streams):
            session, seconds = encode(model, stream, n_local)
            for method in names:
                results, encode_seconds = measured[method.name]
                results += ask_all(session, stream, method, work, drawn_from)
                encode_seconds.append(seconds)
        rights = (f"{name} {sum(r.right for r in done)}/{len(done)}" for name, (done, _) in measured.items())
        log.info("stream %d of %d: %s", i + 1, len(work.streams), ", ".join(rights))
    return {method: results for method, results in measured.items() if results[0]}


def passes(model: rekv.Model, work: Work, *, full: bool) -> Iterator[tuple[Sequence[Method], int]]:
    """The sessions that a stream is encoded in: (methods that ask it, tokens of its window)."""
    if windowed := [method for method in work.methods if method.chooser != "full"]:
        yield windowed, work.n_local
    if full and (whole := [method for method in work.methods if method.chooser == "full"]):
        family = model.family
        text = len(family.init_ids()) + 512  # ample for the longest prompt and answer
        yield whole, work.frames * family.tokens_per_frame + text


def encode(model: rekv.Model, stream: NeedleStream, n_local: int) -> tuple[rekv.Session, float]:
    """Let a new session read the stream; return it and the seconds per frame, the drawing of frames included."""
    session = model.session(n_local=n_local)
    begun = perf_counter()
    n = session.append(stream.frames())
    return session, (perf_counter() - begun) / n


def ask_all(
    session: rekv.Session, stream: NeedleStream, method: Method, work: Work, drawn_from: tuple[int, int]
) -> Iterator[Result]:
    size = work.retrieve_size if method.size is None else method.size
    window = work.n_local // session.memory.tokens_per_frame
    for i, asked in enumerate(questions(stream, np.random.default_rng((*drawn_from, 1)), work.extra)):
        n_frames = session.memory.frames if asked.at is None else int(asked.at) + 1
        rng = np.random.default_rng((*drawn_from, i))  # of the question, whatever else is measured
        frames = method.frames(asked.question, n_frames, size, rng)
        answer = session.ask(asked.question.text, frames=frames, retrieve_size=size, at=asked.at, **method.settings)
        yield judge(asked.question, answer, n_frames - window, asked.group)


def comparisons(measured: dict[str, tuple[list[Result], list[float]]]) -> dict[str, Any]:
    """By method, baseline and group: what it gains on the same questions."""
    return {
        name: {
            other: paired(results, measured[other][0])
            for other in ("internal", "recent", "recent:4", "uniform")
            if other in measured and other != name and len(measured[other][0]) == len(results)
        }
        for name, (results, _) in measured.items()
    }


# -- reporting -------------------------------------------------------------------------------------------------


def settings(args: argparse.Namespace, model: rekv.Model, work: Work) -> dict[str, Any]:
    ask = model.family.ask_config
    return {
        "model": model.family.name,
        "dtype": str(model.family.dtype).removeprefix("torch."),
        "n_local": work.n_local,
        "window_frames": work.n_local // model.family.tokens_per_frame,
        "streams": len(work.streams),
        "full_streams": work.full_streams if any(method.chooser == "full" for method in work.methods) else 0,
        "extra_questions_per_group_and_stream": work.extra,
        "questions_per_type_and_stream": work.per_type,
        "max_new_tokens": ask.max_new_tokens,
        "temperature": ask.temperature,
        "threads": args.threads,
        "oracle": "evidence frames, shared out between the ranges, filled up with random others to retrieve_size",
        "full": "all frames in context and in the window while encoding",
    }


def versions() -> dict[str, str]:
    return {
        "rekv": rekv.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }


def table(report: dict[str, Any]) -> str:
    """Accuracy by type and by group, and what else counts, in one line per method each."""
    types = list(next(iter(report["methods"].values()))["per_type"])
    width = max(9, *map(len, report["methods"]))
    lines = [
        f"{'method':{width}}  all   95 % interval  past recall"
        + "".join(f"{type:>7}" for type in types)
        + "     ms      n"
    ]
    for name, found in report["methods"].items():
        low, high = found["ci95"]
        past = f"{found['past']['accuracy']:.3f}" if found["past"] else "    -"
        recall = "    -" if found["recall"] is None else f"{found['recall']:.3f}"
        by_type = "".join(f"{found['per_type'][type]['accuracy']:7.2f}" for type in types)
        lines.append(
            f"{name:{width}} {found['accuracy']:.3f}  [{low:.3f}, {high:.3f}] {past}  {recall}{by_type}"
            f" {found['ms_per_question']:6.1f} {found['questions']:6d}"
        )
    groups = [group for group in GROUPS if group in next(iter(report["methods"].values()))["per_group"]]
    lines.append(f"\n{'method':{width}}" + "".join(f"{group:>22}" for group in groups) + "   doubt AUC")
    for name, found in report["methods"].items():
        cells = (_cell(found["per_group"].get(group)) for group in groups)
        doubt = f"{found['doubt']['auc']:.3f}" if found["doubt"] else "-"
        lines.append(f"{name:{width}}" + "".join(f"{cell:>22}" for cell in cells) + f"{doubt:>12}")
    return "\n".join(lines)


def _cell(group: dict[str, Any] | None) -> str:
    if group is None:
        return "-"
    low, high = group["ci95"]
    return f"{group['accuracy']:.3f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    try:
        main()
    except rekv.RekvError as error:
        sys.exit(f"needle: {error}")
