"""Time scope: which frames a question may see at all."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from rekv.core import AskConfig


def in_scope(times: Sequence[float], frames: int, ask: AskConfig) -> range:
    """Those of the first `frames` frames with start <= time < end and time <= at.

    Times never go backwards, so these are neighbours.
    """
    first = 0 if ask.start is None else bisect_left(times, ask.start, 0, frames)
    last = frames if ask.end is None else bisect_left(times, ask.end, 0, frames)
    if ask.at is not None:
        last = min(last, bisect_right(times, ask.at, 0, frames))
    return range(first, max(first, last))
