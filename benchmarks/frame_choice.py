"""The ways of choosing which frames a question reads that `needle.py` compares."""

from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np

from rekv.world import Question

# (question, frames in the stream, frames to read, randomness) -> frame ids in time order; None: the engine chooses.
Chooser = Callable[[Question, int, int, np.random.Generator], Sequence[int] | None]


def internal(question: Question, n_frames: int, size: int, rng: np.random.Generator) -> None:
    """The paper's: every layer retrieves the frames that its own question query likes best."""


def recent(question: Question, n_frames: int, size: int, rng: np.random.Generator) -> Sequence[int]:
    """The newest frames: what a model with a sliding window has left."""
    return range(n_frames)[-size:]


def uniform(question: Question, n_frames: int, size: int, rng: np.random.Generator) -> Sequence[int]:
    """Evenly spaced frames, the first and the last among them: how a Video-LLM samples a whole video."""
    return evenly(0, n_frames, size)


def full(question: Question, n_frames: int, size: int, rng: np.random.Generator) -> Sequence[int]:
    """Every frame."""
    return range(n_frames)


def oracle(question: Question, n_frames: int, size: int, rng: np.random.Generator) -> Sequence[int]:
    """Frames that show the answer, from all that it takes to know it; the rest random others.

    It is filled up so that it reads as much as the other methods do: what it gets wrong, better retrieval could not
    get right.
    """
    true = evidence(question, size)
    others = np.setdiff1d(np.arange(n_frames), true)
    return sorted((*true, *rng.choice(others, min(size, n_frames) - len(true), replace=False).tolist()))


def evidence(question: Question, most: int) -> list[int]:
    """At most `most` frames of a question's evidence, shared out between its ranges, evenly spaced within each.

    In time order.
    """
    lengths = [stop - start for start, stop in question.evidence]
    shares = [0] * len(lengths)
    for i in cycle(range(len(lengths))) if lengths else ():
        if sum(shares) == min(most, sum(lengths)):
            break
        shares[i] += shares[i] < lengths[i]
    ranges = zip(question.evidence, shares, strict=True)
    return sorted(frame for (start, stop), share in ranges for frame in evenly(start, stop, share))


def evenly(start: int, stop: int, n: int) -> list[int]:
    """At most n frames of [start, stop), its first and its last among them if n > 1."""
    frames: list[int] = np.linspace(start, stop - 1, min(n, stop - start)).round().astype(int).tolist()
    return frames


CHOOSERS: dict[str, Chooser] = {
    "internal": internal,
    "recent": recent,
    "uniform": uniform,
    "full": full,
    "oracle": oracle,
}
