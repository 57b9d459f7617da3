"""Time scope: which frames a question may see at all."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from rekv.core import AskConfig


def in_scope(
    times: Sequence[float], frames: int, ask: AskConfig, last_pictures: Mapping[int, float] | None = None
) -> range:
    """Those of the first `frames` frames with start <= time < end and time <= at.

    Times never go backwards, so these are neighbours. A frame of several pictures, the last of which was taken at
    `last_pictures`, is seen once all of them were.
    """
    first = 0 if ask.start is None else bisect_left(times, ask.start, 0, frames)
    last = frames if ask.end is None else bisect_left(times, ask.end, 0, frames)
    if ask.at is not None:
        seen = bisect_right(times, ask.at, 0, frames)
        if last_pictures and last_pictures.get(seen - 1, ask.at) > ask.at:
            seen -= 1
        last = min(last, seen)
    return range(first, max(first, last))
