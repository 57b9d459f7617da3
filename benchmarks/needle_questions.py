"""What is asked of a needle stream, in groups: the stream's own questions, and more on demand.

present     what is on screen at some moment; asked as of that moment
past        one thing that has left the window
order       which of two things came first, or before another
counting    how often a thing came
absent      things that never appeared: whether they did, and facts about them as if they had
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rekv.world import KNOWN_PAIRS, NeedleStream, Question
from rekv.world.askable import askable
from rekv.world.phrasings import draw_phrasing
from rekv.world.questions import ABSENT_TYPES, absent, now, times
from rekv.world.shapes import CARD

GROUPS = ("present", "past", "order", "counting", "absent")
_OF_TYPE = {"now": "present", "order": "order", "before": "order", "times": "counting", "count": "counting"}
_FIRST = 100  # seconds before which nothing is asked about the present: there is no past yet


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and when it is asked."""

    question: Question
    at: float | None = None  # seconds; None: at the stream's end

    @property
    def group(self) -> str:
        if not self.question.evidence:
            return "absent"
        return _OF_TYPE.get(self.question.type, "past")


def questions(stream: NeedleStream, rng: np.random.Generator, extra: int) -> list[Asked]:
    """The stream's own questions, and `extra` more of each group that it has few of."""
    more = (*_present(stream, rng, extra), *_counting(stream, rng, extra), *_absent(stream, rng, extra))
    return [*(Asked(question) for question in stream.questions), *more]


def _present(stream: NeedleStream, rng: np.random.Generator, n: int) -> Iterator[Asked]:
    """As of moments at which something is on screen that was there a second before."""
    seen = [[event for event in stream.events if event.visible(f)] for f in range(stream.scene.n_frames)]
    busy = [f for f in range(_FIRST, len(seen)) if seen[f] and seen[f] == seen[f - 1]]
    for frame in rng.choice(busy, min(n, len(busy)), replace=False).tolist():
        yield Asked(now(stream.events, frame, phrasing=draw_phrasing(rng, "now")), float(frame))


def _counting(stream: NeedleStream, rng: np.random.Generator, n: int) -> Iterator[Asked]:
    """Once, twice and so on in turn, as far as there are such things."""
    n_frames = stream.scene.n_frames
    by_number: dict[int, list[int]] = {}
    found = askable(stream.events, n_frames)["times"]
    for i in rng.permutation(len(found)).tolist():
        by_number.setdefault(len(found[i].events), []).append(i)
    for i in range(n):
        group = by_number[sorted(by_number)[i % len(by_number)]] if by_number else []
        if group:
            yield Asked(times(found[group.pop()].events, n_frames, phrasing=draw_phrasing(rng, "times")))


def _absent(stream: NeedleStream, rng: np.random.Generator, n: int) -> Iterator[Asked]:
    shown = {(event.color, event.kind) for event in stream.events}
    kinds = {kind for _, kind in shown}
    never = sorted(KNOWN_PAIRS - shown)
    for _ in range(n):
        type = ABSENT_TYPES[int(rng.integers(len(ABSENT_TYPES)))]
        match type:
            case "digit":
                fitting = [name for name in never if name[1] == CARD]
            case "size":
                fitting = [name for name in never if name[1] != CARD]
            case "color":  # it names the kind only
                fitting = [name for name in never if name[1] not in kinds]
            case _:
                fitting = never
        if fitting:
            color, kind = fitting[int(rng.integers(len(fitting)))]
            yield Asked(absent(type, color, kind, phrasing=draw_phrasing(rng, type)))
