"""What can be asked about a scene so that exactly one answer is true."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rekv.world.event import Event, seen
from rekv.world.questions import MOST_COUNTED, Occasion, SubjectType
from rekv.world.shapes import CARD

LONGEST_PAUSE = 8  # frames between two things of which one was "there before" the other
MOST_TOLD = 3  # things in an answer to "What happened?"


@dataclass(frozen=True, slots=True)
class Askable:
    """Things that a question of some type can be asked about: in the order in which its function takes them."""

    events: tuple[Event, ...]
    occasion: Occasion = ""


def askable(events: Iterable[Event], n_frames: int) -> dict[SubjectType, list[Askable]]:
    """Return for every type what it can be asked about in a video of `n_frames` frames; what was there, that is.

    "count" has all things of a kind that was seen, "exist" what did appear.
    """
    events = seen(events, n_frames)
    kinds, colors, names = (_groups(events, key) for key in ("kind", "color", "name"))
    unique = [group[0] for group in names if len(group) == 1]
    repeated = [group for group in names if len(group) > 1 and _separate(group)]
    found: dict[SubjectType, list[Askable]] = {
        "color": _each(group[0] for group in kinds if len(group) == 1),
        "shape": _each(group[0] for group in colors if len(group) == 1),
        "exist": _each(unique),
        "digit": _each(event for event in unique if event.kind == CARD),
        "where": _each(event for event in unique if event.path == "stay"),
        "size": _each(event for event in unique if event.kind != CARD),
        "motion": _each(event for event in unique if event.start >= 0 and event.stop <= n_frames),
        "when": _each(event for event in unique if event.start >= 0),
        "times": [Askable(tuple(group)) for group in names if _separate(group) and len(group) <= MOST_COUNTED],
        "count": [
            Askable(tuple(group))
            for group in kinds
            if len(group) <= MOST_COUNTED and len({event.name for event in group}) == len(group)
        ],
        "order": _orders(unique, n_frames),
        "before": _befores(unique, events),
        "caption": _captions(events, n_frames),
    }
    for group in repeated:
        ends: tuple[tuple[Event, Occasion], ...] = ((group[0], "first"), (group[-1], "last"))
        found["where"] += [Askable((event,), occasion) for event, occasion in ends if event.path == "stay"]
        found["when"] += [Askable((event,), occasion) for event, occasion in ends if event.start >= 0]
    return found


def _groups(events: Sequence[Event], key: str) -> list[list[Event]]:
    """Return the events by an attribute, each group in order of time."""
    groups: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda event: event.start):
        groups.setdefault(getattr(event, key), []).append(event)
    return list(groups.values())


def _each(events: Iterable[Event]) -> list[Askable]:
    return [Askable((event,)) for event in events]


def _separate(appearances: Sequence[Event]) -> bool:
    """Say whether they can be counted: between two is a frame without, and none is out of sight in between."""
    apart = all(one.stop < other.start for one, other in pairwise(appearances))
    return apart and not any(event.path == "hide" for event in appearances)


def _first_seen(event: Event, n_frames: int) -> int:
    span = event.span(n_frames)
    return span[0] if span else n_frames


def _orders(unique: Sequence[Event], n_frames: int) -> list[Askable]:
    """Return pairs, either way round, of which one appeared first and was seen first."""
    known = [(event, _first_seen(event, n_frames)) for event in unique]
    return [
        Askable((one, other))
        for one, saw_one in known
        for other, saw_other in known
        if (one.start < other.start and saw_one < saw_other) or (one.start > other.start and saw_one > saw_other)
    ]


def _befores(unique: Iterable[Event], events: Sequence[Event]) -> list[Askable]:
    """Return things with what was there, alone, shortly before they came."""
    found = []
    for event in unique:
        past = sorted((other for other in events if other.start < event.start), key=lambda other: other.start)
        if not past:
            continue
        last, others = past[-1], past[:-1]
        alone = all(other.stop <= last.start for other in others)
        if alone and 0 <= event.start - last.stop <= LONGEST_PAUSE:
            found.append(Askable((event, last)))
    return found


def _captions(events: Sequence[Event], n_frames: int) -> list[Askable]:
    """Return all that was seen, if that is not much and one came after the other, each another one."""
    told = sorted(events, key=lambda event: event.start)
    starts = [_first_seen(event, n_frames) for event in told]
    clear = all(one < other for one, other in pairwise(starts))
    varied = all(one.name != other.name for one, other in pairwise(told))
    return [Askable(tuple(told))] if clear and varied and 1 <= len(told) <= MOST_TOLD else []
