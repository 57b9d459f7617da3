"""Hard needle streams: every needle is surrounded by things that it can be mistaken for."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from rekv.errors import ConfigError
from rekv.world.askable import Askable
from rekv.world.background import draw_background
from rekv.world.clip import ask
from rekv.world.event import SHORTEST, Event, draw_again, draw_event, draw_length, draw_timeline, pick, stay
from rekv.world.needle import TAIL, Cast, NeedleStream
from rekv.world.phrasings import draw_phrasing
from rekv.world.questions import MOST_COUNTED, Occasion, Question, absent
from rekv.world.scene import Scene
from rekv.world.shapes import PLACES
from rekv.world.splits import Split

HardType = Literal["digit", "where", "size", "motion", "order", "exist", "when", "times", "before"]
HARD_TYPES: tuple[HardType, ...] = get_args(HardType)

_SLOT = 32  # frames; each sight of a needle, with what comes right before and after it, has a slot to itself
_SLOTS = {"where": 2, "order": 2, "when": 2, "times": MOST_COUNTED}  # that questions of a type may need; others 1
_MOST_PER_TYPE = 2  # more would leave too few names for the distractors
_AROUND = 2  # look-alikes of its kind, and of its colour, that are seen right before or after a needle
_OFTEN = 3  # how often the kind, and the colour, of what never appears are seen in its slot
_LOOK_ALIKES = 0.5  # share of the other distractors that look like some needle

Name = tuple[str, str]  # (kind, colour)
Events = tuple[Event, ...]
Sight = tuple[Name, Events]  # a needle's name, and what is seen: one thing right after the other, or nothing


def hard_stream(
    rng: np.random.Generator, n_frames: int, *, tail: int = TAIL, per_type: int = 1, phrasings: Split = "known"
) -> NeedleStream:
    """Draw a stream with `per_type` (1 or 2) questions of each of the nine `HARD_TYPES`.

    Needles are unique and gone before the last `tail` frames. Right before and after each come things of its kind
    in other colours and of its colour in other kinds, and half of all other distractors are such. What "where" and
    "when" ask for comes twice, and the words say which time is meant. Half of the "exist" questions are about
    things that never appear, though their kinds and their colours often do. `phrasings`: which side of the split
    the words are from. Raises `ConfigError` if the stream is too short.
    """
    types = [type for type in HARD_TYPES for _ in range(per_type)]
    _check(n_frames, tail, per_type)
    slots = iter([int(slot) * _SLOT for slot in rng.permutation((n_frames - tail) // _SLOT)])
    cast = Cast(rng, 0)
    background = draw_background(rng)
    parts = [_sights(rng, cast, type, wall=background.wall) for type in types]
    names = [name for part in parts for name, _ in part]
    bursts: list[Events] = []
    placed: list[tuple[Sight, ...]] = []
    for part in parts:
        row = [(name, *_burst(rng, cast, name, needles, next(slots))) for name, needles in part]
        bursts += [burst for _, burst, _ in row]
        placed.append(tuple((name, needles) for name, _, needles in row))
    others = draw_timeline(rng, n_frames, cast.reserved, wall=background.wall)
    disguised = [_disguised(rng, cast, names, event) for event in others]
    scene = Scene.draw(rng, n_frames, _around(bursts, disguised), background=background)
    questions = [_question(rng, type, part, scene, phrasings) for type, part in zip(types, placed, strict=True)]
    return NeedleStream(scene, tuple(questions))


def _sights(rng: np.random.Generator, cast: Cast, type: HardType, *, wall: bool) -> list[Sight]:
    """Draw what a question is about: what is to be put into a slot each."""
    if type == "exist" and rng.random() < 0.5:
        return [(cast.name(), ())]
    thing = draw_event(rng, *cast.name(), wall=wall) if type == "motion" else cast.needle(type)
    needles: list[Events]
    match type:
        case "where":
            other = pick(rng, [place for place in PLACES if place != thing.origin])
            needles = [(thing,), (stay(thing, other),)]
        case "when":
            needles = [(thing,), (draw_again(rng, thing),)]
        case "times":
            needles = [(draw_again(rng, thing),) for _ in range(int(rng.integers(1, MOST_COUNTED + 1)))]
        case "order":
            needles = [(thing,), (cast.needle(type),)]
        case "before":
            needles = [(cast.needle(type), thing)]
        case _:
            needles = [(thing,)]
    return [((events[-1].kind, events[-1].color), events) for events in needles]


def _burst(rng: np.random.Generator, cast: Cast, name: Name, needles: Events, start: int) -> tuple[Events, Events]:
    """Put needles between look-alikes of `name`, from frame `start` on: return all, and the needles alone.

    Without needles there are more of the others.
    """
    number = _AROUND if needles else _OFTEN
    alike = [_look_alike(rng, cast, name, same) for same in ("kind", "color") for _ in range(number)]
    alike = [alike[i] for i in rng.permutation(len(alike))]
    row: list[Event] = []
    for event in (*alike[:number], *needles, *alike[number:]):
        length = draw_length(rng, event) if event in needles else SHORTEST[event.path]
        start += int(rng.integers(2))
        row.append(event.during(start, start + length))
        start += length
    return tuple(row), tuple(row[number : number + len(needles)])


def _look_alike(rng: np.random.Generator, cast: Cast, name: Name, same: str) -> Event:
    """Draw a thing that has the kind, or the colour, of `name`."""
    kind, color = name
    while True:
        event = draw_event(rng, kind) if same == "kind" else draw_event(rng, color=color)
        if not cast.reserved(event):
            return event


def _disguised(rng: np.random.Generator, cast: Cast, names: Sequence[Name], event: Event) -> Event:
    """Make some distractors look like a needle; their paths and times stay."""
    if rng.random() >= _LOOK_ALIKES:
        return event
    model = _look_alike(rng, cast, pick(rng, names), pick(rng, ("kind", "color")))
    size = "small" if event.path == "hide" else event.size
    return replace(event, kind=model.kind, color=model.color, rgb=model.rgb, size=size)


def _around(bursts: Iterable[Events], others: Iterable[Event]) -> tuple[Event, ...]:
    """Put all together, without what shares the screen with a burst."""
    taken = {frame for burst in bursts for frame in range(burst[0].start, burst[-1].stop)}
    free = [event for event in others if taken.isdisjoint(range(event.start, event.stop))]
    return tuple(sorted([*free, *(event for burst in bursts for event in burst)], key=lambda event: event.start))


def _question(
    rng: np.random.Generator, type: HardType, part: Sequence[Sight], scene: Scene, phrasings: Split
) -> Question:
    phrasing = draw_phrasing(rng, type, phrasings)
    (kind, color), _ = part[0]
    events = [event for _, needles in part for event in needles]
    if type == "exist" and not events:
        return absent("exist", color, kind, phrasing=phrasing)
    if type == "before":
        earlier, thing = events
        return ask(type, Askable((thing, earlier)), scene, phrasing)
    if type == "order":
        return ask(type, Askable(tuple(events)), scene, phrasing)
    events.sort(key=lambda event: event.start)
    if type in ("where", "when"):
        occasion: Occasion = pick(rng, ("first", "last"))
        return ask(type, Askable((events[0 if occasion == "first" else -1],), occasion), scene, phrasing)
    return ask(type, Askable(tuple(events)), scene, phrasing)


def _check(n_frames: int, tail: int, per_type: int) -> None:
    if not 1 <= per_type <= _MOST_PER_TYPE:
        raise ConfigError(f"per_type is {per_type}; it must be 1 or {_MOST_PER_TYPE} (questions of each type)")
    slots = per_type * sum(_SLOTS.get(type, 1) for type in HARD_TYPES)
    if n_frames < tail + slots * _SLOT:
        raise ConfigError(
            f"n_frames is {n_frames}; {slots} sights of needles and a tail of {tail} frames need at least "
            f"{tail + slots * _SLOT}"
        )
