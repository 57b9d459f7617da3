"""Retrievers that look at neither question nor frames: what every other one is compared with."""

from collections.abc import Sequence

import numpy as np

from rekv.retrieval.base import Query
from rekv.retrieval.given import Given


def uniform(query: Query) -> Given:
    """Evenly spaced frames, the first and the last among them: how a Video-LLM samples a whole video."""
    return Given(evenly(query.candidates, query.size))


def recent(query: Query) -> Given:
    """The newest frames: what a model with a sliding window has left."""
    n = len(query.candidates)
    return Given(query.candidates[n - min(query.size, n) :])


def evenly(frames: Sequence[int], n: int) -> list[int]:
    """At most n of the frames, the first and the last among them if n > 1."""
    n = min(n, len(frames))
    places = np.linspace(0, len(frames) - 1, n).round().astype(int).tolist() if n else ()
    return [frames[place] for place in places]
