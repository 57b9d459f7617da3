"""What happens in the world: a thing is seen for some frames, staying at a place or moving between two."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np

from rekv.world.shapes import CARD, COLORS, EDGES, KINDS, OPPOSITE, PALETTE, PLACES, SIZES

FrameRange = tuple[int, int]  # [start, stop)
T = TypeVar("T")

_MOVES = 0.35  # share of things that move
_CARDS = 0.12  # share of cards, on top of their share as one of the kinds
_GAPS = 0.35  # share of events with an empty scene before them
_COMPANIONS = 0.3  # share of staying things that get company on the other side


@dataclass(frozen=True, slots=True)
class Event:
    """One thing on screen. Only a card has a digit, and it has no size. Frames count from the start."""

    kind: str
    color: str
    size: str
    digit: int
    origin: str  # place where it appears
    target: str  # place where it is in its last frame; the origin, if it stays
    rgb: tuple[float, float, float]  # its shade of the colour, 0..255
    offset: tuple[int, int]  # pixels right and down of its places
    start: int = 0
    stop: int = 1  # exclusive; either may lie outside the scene

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"

    @property
    def moves(self) -> bool:
        return self.origin != self.target

    def during(self, start: int, stop: int) -> Self:
        """Return the same thing seen in the frames [start, stop)."""
        return replace(self, start=start, stop=stop)

    def visible(self, time: float) -> bool:
        return self.start <= time < self.stop

    def overlaps(self, other: "Event") -> bool:
        """Say whether the two are ever on screen together."""
        return self.start < other.stop and other.start < self.stop

    def position(self, time: float) -> tuple[float, float]:
        """Return the centre's (x, y) in the world's pixels at this time, in frames; paths are straight."""
        (x0, y0), (x1, y1) = PLACES[self.origin], PLACES[self.target]
        steps = max(self.stop - 1 - self.start, 1)
        done = min((time - self.start) / steps, 1.0) if self.moves else 0.0
        return (
            x0 * (1 - done) + x1 * done + self.offset[0],
            y0 * (1 - done) + y1 * done + self.offset[1],
        )


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def draw_event(rng: np.random.Generator, kind: str | None = None, color: str | None = None) -> Event:
    """Draw a thing and its path; its time is yet to be set with `during`."""
    if kind is None:
        kind = pick(rng, KINDS)
        if rng.random() < _CARDS:
            kind = CARD
    if color is None:
        color = pick(rng, COLORS)
    digit = int(rng.integers(10))
    size = pick(rng, SIZES)
    origin = target = pick(rng, tuple(PLACES))
    if rng.random() < _MOVES:
        target, origin = pick(rng, EDGES), pick(rng, EDGES)
        if origin == target:
            target = draw_other_edge(rng, origin)
    shade = np.clip(PALETTE[color] + rng.uniform(-14, 14, 3), 0, 255).astype(np.float32)
    right, down = rng.integers(-2, 3, 2)
    rgb = (float(shade[0]), float(shade[1]), float(shade[2]))
    return Event(kind, color, size, digit, origin, target, rgb, (int(right), int(down)))


def draw_other_edge(rng: np.random.Generator, edge: str) -> str:
    return EDGES[(EDGES.index(edge) + 1 + int(rng.integers(3))) % 4]


def draw_length(rng: np.random.Generator, event: Event) -> int:
    """Draw for how many frames a thing is seen: 2 to 6, at least 3 if it moves."""
    return int(rng.integers(3 if event.moves else 2, 7))


def draw_timeline(
    rng: np.random.Generator, n_frames: int, forbidden: Callable[[Event], bool] = lambda event: False
) -> tuple[Event, ...]:
    """Draw what happens in `n_frames` frames: one thing after another, with gaps, now and then two at once.

    Nothing for which `forbidden` holds is drawn. The first thing may have begun before the scene, the last
    may outlast it.
    """

    def draw() -> Event:
        event = draw_event(rng)
        while forbidden(event):
            event = draw_event(rng)
        return event

    events: list[Event] = []
    time = -int(rng.integers(4))
    while time < n_frames:
        if rng.random() < _GAPS:
            time += int(rng.integers(1, 4))
        if time >= n_frames:
            break
        event = draw()
        length = draw_length(rng, event)
        events.append(event.during(time, time + length))
        if not event.moves and event.origin in OPPOSITE and rng.random() < _COMPANIONS:
            place = OPPOSITE[event.origin]
            companion = replace(draw(), origin=place, target=place)
            start = time + int(rng.integers(length))
            stop = min(start + int(rng.integers(2, 5)), time + length)
            events.append(companion.during(start, stop))
        time += length
    return tuple(events)


def seen(events: Iterable[Event], n_frames: int) -> tuple[Event, ...]:
    """Return the events of which the frames [0, n_frames) show something."""
    return tuple(event for event in events if event.stop > 0 and event.start < n_frames)
