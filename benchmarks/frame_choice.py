"""The ways of choosing which frames a question reads that `needle.py` compares, by name.

    NAME[:SIZE][+OPTION ...]      internal    recent:4    internal+phrases    fusion+recent1

NAME is a retriever of rekv, or `oracle` or `full`, for which the benchmark names the frames. SIZE is the number of
frames to read instead of the usual one. Options:

    phrases, tokens    search by the question's phrases, or by each token, not by the question as a whole
    recentN            the newest N frames besides
    gapN               picks are at least N seconds apart
    detrend            take a drift of the scores with time out
    shared             all layers read the same frames
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rekv.retrieval.oracle import share
from rekv.retrieval.registry import find
from rekv.retrieval.simple import evenly
from rekv.world import Question

METHODS = ("internal", "recent", "uniform", "full", "oracle")  # unless others are asked for
_METHOD = re.compile(r"(?P<name>\w+)(?::(?P<size>\d+))?(?P<options>(?:\+\w+)*)")
_OPTION = re.compile(r"([a-z]+)(\d*)")


@dataclass(frozen=True, slots=True)
class Method:
    """One way of choosing."""

    name: str  # as it was written
    chooser: str  # a retriever, "oracle" or "full"
    size: int | None = None  # frames; None: the usual number
    settings: dict[str, Any] = field(default_factory=dict)  # of `ask`

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Raises `ValueError` or `ConfigError` for what is no method."""
        match = _METHOD.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a method: NAME[:SIZE][+OPTION ...]")
        chooser, size = match["name"], match["size"]
        settings: dict[str, Any] = {}
        for option in match["options"].split("+")[1:]:
            settings |= _setting(option)
        if chooser not in ("oracle", "full"):
            find(chooser)
            settings["retriever"] = chooser
        return cls(text, chooser, None if size is None else int(size), settings)

    def frames(self, question: Question, n_frames: int, size: int, rng: np.random.Generator) -> Sequence[int] | None:
        """The frames to read, where the benchmark names them; else None."""
        if self.chooser == "full":
            return range(n_frames)
        return oracle(question, n_frames, size, rng) if self.chooser == "oracle" else None


def _setting(option: str) -> dict[str, Any]:
    match = _OPTION.fullmatch(option)
    word, number = (match[1], match[2]) if match else ("", "")
    if word in ("phrases", "tokens") and not number:
        return {"query": word}
    if word == "detrend" and not number:
        return {"detrend": True}
    if word == "shared" and not number:
        return {"shared_picks": True}
    if word == "recent" and number:
        return {"recent_frames": int(number)}
    if word == "gap" and number:
        return {"min_gap": float(number)}
    raise ValueError(f"no option {option!r}; there are phrases, tokens, recentN, gapN, detrend, shared")


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
    ranges = [range(*frames) for frames in question.evidence]
    shares = share([len(frames) for frames in ranges], most) if ranges else []
    return sorted(frame for frames, n in zip(ranges, shares, strict=True) for frame in evenly(frames, n))
