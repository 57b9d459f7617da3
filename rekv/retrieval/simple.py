"""Retrievers that look at neither question nor frames: what every other one is compared with."""

import numpy as np

from rekv.retrieval.base import Query
from rekv.retrieval.given import Given


def uniform(query: Query) -> Given:
    """Evenly spaced frames, the first and the last among them: how a Video-LLM samples a whole video."""
    n = len(query.candidates)
    places = np.linspace(0, n - 1, min(query.size, n)).round().astype(int).tolist()
    return Given([query.candidates[place] for place in places])


def recent(query: Query) -> Given:
    """The newest frames: what a model with a sliding window has left."""
    n = len(query.candidates)
    return Given(query.candidates[n - min(query.size, n) :])
