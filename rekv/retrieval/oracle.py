"""Oracle: somebody knows which moments matter (`spans`). The upper bound that other retrievers are measured by."""

from collections.abc import Sequence
from itertools import cycle

from rekv.errors import ConfigError
from rekv.retrieval.base import Query
from rekv.retrieval.given import Given
from rekv.retrieval.simple import evenly


def oracle(query: Query) -> Given:
    """Frames of the given spans [start, end), in seconds; at most as many as are asked for, evenly spaced in each.

    Every span gets its share, and leaves to others what it has no frames for. Raises `ConfigError` without spans.
    """
    if not query.config.spans:
        raise ConfigError(
            'the retriever "oracle" reads the spans that it is given: spans=[(start, end), ...], or --span START-END'
        )
    parts = [
        [frame for frame in query.candidates if start <= query.times[frame] < end]
        for start, end in sorted(query.config.spans)
    ]
    shares = share([len(part) for part in parts], query.size)
    chosen = {frame for part, n in zip(parts, shares, strict=True) for frame in evenly(part, n)}
    return Given(sorted(chosen))


def share(lengths: Sequence[int], most: int) -> list[int]:
    """Deal out at most `most` to parts of these lengths, one at a time."""
    shares = [0] * len(lengths)
    for i in cycle(range(len(lengths))):
        if sum(shares) == min(most, sum(lengths)):
            return shares
        shares[i] += shares[i] < lengths[i]
    return shares
