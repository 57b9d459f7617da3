"""What happens in the world: a thing is seen for some frames, staying at a place, moving, or hiding for a while."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Self, TypeVar

import numpy as np

from rekv.errors import ConfigError
from rekv.world.shapes import CARD, COLORS, EDGES, KINDS, OPPOSITE, PALETTE, PLACES, SIZES
from rekv.world.splits import PAIRS, Split

FrameRange = tuple[int, int]  # [start, stop)
Path = Literal["stay", "move", "hide"]
T = TypeVar("T")

SIDES = ("left", "right")  # the places from which things go behind the wall
SHORTEST: dict[Path, int] = {"stay": 2, "move": 3, "hide": 5}  # frames
LONGEST: dict[Path, int] = {"stay": 6, "move": 6, "hide": 7}

_MOVES = 0.3  # share of things that move
_HIDES = 0.4  # share of small things and cards that hide, where there is a wall
_CARDS = 0.12  # share of cards, on top of their share as one of the kinds
_GAPS = 0.35  # share of events with an empty scene before them
_COMPANIONS = 0.3  # share of staying things that get company on the other side
_REPEATS = 0.22  # share of things that were there before
_REMEMBERED = 3  # of the last so many things one may come again
_ASIDE = 2  # frames that a hiding thing is in sight before the wall, and after it
_COVERED = 0.5  # units from the wall's middle within which it covers whatever hides


@dataclass(frozen=True, slots=True)
class Event:
    """One thing in the world. Only a card has a digit, and it has no size. Frames count from the start.

    Raises `ConfigError` if the places do not suit the path: a thing that stays ends where it begins, one that
    moves does not, and one that hides comes from and goes to a side.
    """

    kind: str
    color: str
    size: str
    digit: int
    origin: str  # place where it appears
    target: str  # place where it is in its last frame
    rgb: tuple[float, float, float]  # its shade of the colour, 0..255
    offset: tuple[int, int]  # units right and down of its places
    start: int = 0
    stop: int = 1  # exclusive; either may lie outside the scene
    path: Path = "stay"

    def __post_init__(self) -> None:
        if self.path == "hide":
            right = self.origin in SIDES and self.target in SIDES
        else:
            right = (self.path == "move") == (self.origin != self.target)
        if not right:
            raise ConfigError(f'a thing cannot {self.path} from {self.origin} to {self.target}; change "path"')

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"

    @property
    def moves(self) -> bool:
        """Whether it is ever seen between two places."""
        return self.path != "stay"

    def during(self, start: int, stop: int) -> Self:
        """Return the same thing seen in the frames [start, stop)."""
        return replace(self, start=start, stop=stop)

    def present(self, time: float) -> bool:
        """Say whether it is there at this time, in frames: in sight or behind the wall."""
        return self.start <= time < self.stop

    def visible(self, time: float) -> bool:
        """Say whether it is in sight at this time, in frames: there, and not wholly behind the wall."""
        if not self.present(time):
            return False
        return self.path != "hide" or abs(self.position(time)[0] - PLACES["center"][0]) > _COVERED

    def overlaps(self, other: "Event") -> bool:
        """Say whether the two are ever there together."""
        return self.start < other.stop and other.start < self.stop

    def span(self, n_frames: int | None = None) -> FrameRange | None:
        """Return the frames [start, stop) of a video of `n_frames` from the first to the last that shows it.

        None if none does. A hiding thing is out of sight for some frames in between.
        """
        frames = range(max(self.start, 0), self.stop if n_frames is None else min(self.stop, n_frames))
        first = next((frame for frame in frames if self.visible(frame)), None)
        if first is None:
            return None
        return first, next(frame for frame in reversed(frames) if self.visible(frame)) + 1

    def position(self, time: float) -> tuple[float, float]:
        """Return the centre's (x, y) in units at this time, in frames; paths are straight.

        A hiding thing takes two frames to the wall's middle, where it waits exactly behind it, and two from there.
        """
        x0, y0 = self._at(self.origin)
        if self.path == "stay":
            return x0, y0
        x1, y1 = self._at(self.target)
        done, last = time - self.start, self.stop - 1 - self.start
        if self.path == "move":
            share = min(done / max(last, 1), 1.0)
        else:
            if done >= last - _ASIDE:
                x0, y0 = PLACES["center"]
                share = min((done - last + _ASIDE) / _ASIDE, 1.0)
            else:
                x1, y1 = PLACES["center"]
                share = min(done / _ASIDE, 1.0)
        return x0 * (1 - share) + x1 * share, y0 * (1 - share) + y1 * share

    def _at(self, place: str) -> tuple[float, float]:
        x, y = PLACES[place]
        return x + self.offset[0], y + self.offset[1]


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.random() * len(items))]


def draw_event(
    rng: np.random.Generator,
    kind: str | None = None,
    color: str | None = None,
    *,
    wall: bool = False,
    pairs: Split = "known",
) -> Event:
    """Draw a thing and its path; its time is yet to be set with `during`.

    `wall`: there is one to hide behind. A kind and colour that are both given may be any pair, others are drawn
    from that side of the split. Raises `ConfigError` if it has no such pair.
    """
    if kind is None or color is None:
        kind, color = _draw_pair(rng, kind, color, pairs)
    digit = int(rng.random() * 10)
    size = pick(rng, SIZES)
    shade = np.clip(PALETTE[color] + rng.uniform(-14, 14, 3), 0, 255).astype(np.float32)
    right, down = rng.integers(-2, 3, 2)
    rgb = (float(shade[0]), float(shade[1]), float(shade[2]))
    path, origin, target = _draw_path(rng, wall and (kind == CARD or size == "small"))
    return Event(kind, color, size, digit, origin, target, rgb, (int(right), int(down)), path=path)


def draw_again(rng: np.random.Generator, event: Event, *, wall: bool = False) -> Event:
    """Draw another path for a thing that comes again; its time is yet to be set with `during`."""
    path, origin, target = _draw_path(rng, wall and (event.kind == CARD or event.size == "small"))
    return replace(event, path=path, origin=origin, target=target)


def stay(event: Event, place: str) -> Event:
    """Return the same thing staying at a place."""
    return replace(event, path="stay", origin=place, target=place)


def draw_other_edge(rng: np.random.Generator, edge: str) -> str:
    return EDGES[(EDGES.index(edge) + 1 + int(rng.integers(3))) % 4]


def draw_length(rng: np.random.Generator, event: Event) -> int:
    """Draw for how many frames a thing is there: 2 to 6, at least 3 if it moves, 5 to 7 if it hides."""
    return int(rng.integers(SHORTEST[event.path], LONGEST[event.path] + 1))


def seen(events: Iterable[Event], n_frames: int) -> tuple[Event, ...]:
    """Return the events of which the frames [0, n_frames) show something."""
    return tuple(event for event in events if event.span(n_frames))


def draw_timeline(
    rng: np.random.Generator,
    n_frames: int,
    forbidden: Callable[[Event], bool] = lambda event: False,
    *,
    wall: bool = False,
    pairs: Split = "known",
) -> tuple[Event, ...]:
    """Draw what happens in `n_frames` frames: one thing after another, with gaps, now and then two at once.

    Some come again. Between two things of the same name there is a frame without either. Nothing for which
    `forbidden` holds is drawn. The first thing may have begun before the scene, the last may outlast it.
    """

    def draw() -> Event:
        while True:
            event = draw_event(rng, wall=wall, pairs=pairs)
            if not forbidden(event):
                return event

    events: list[Event] = []
    gone: dict[str, int] = {}  # when the last thing of a name is gone
    time = -int(rng.integers(4))
    while time < n_frames:
        if rng.random() < _GAPS:
            time += int(rng.integers(1, 4))
        again = events and rng.random() < _REPEATS
        event = draw_again(rng, pick(rng, events[-_REMEMBERED:]), wall=wall) if again else draw()
        time = max(time, gone.get(event.name, time - 1) + 1)
        if time >= n_frames:
            break
        length = draw_length(rng, event)
        gone[event.name] = time + length
        events.append(event.during(time, time + length))
        if event.path == "stay" and event.origin in OPPOSITE and rng.random() < _COMPANIONS:
            companion = stay(draw(), OPPOSITE[event.origin])
            start = time + int(rng.integers(length - 1))
            stop = min(start + int(rng.integers(2, 5)), time + length)
            if gone.get(companion.name, start - 1) < start:
                gone[companion.name] = stop
                events.append(companion.during(start, stop))
        time += length
    return tuple(events)


def _draw_path(rng: np.random.Generator, coverable: bool) -> tuple[Path, str, str]:
    """Draw a path with its origin and target; what hides is a card or small, as a wall covers nothing larger."""
    if coverable and rng.random() < _HIDES:
        return "hide", pick(rng, SIDES), pick(rng, SIDES)
    if rng.random() < _MOVES:
        origin = pick(rng, EDGES)
        return "move", origin, draw_other_edge(rng, origin)
    place = pick(rng, tuple(PLACES))
    return "stay", place, place


def _draw_pair(rng: np.random.Generator, kind: str | None, color: str | None, pairs: Split) -> tuple[str, str]:
    if kind is None:
        kinds = _kinds(color, pairs)
        kind = CARD if CARD in kinds and rng.random() < _CARDS else pick(rng, kinds)
    return kind, color or pick(rng, _colors(kind, pairs))


@lru_cache
def _kinds(color: str | None, pairs: Split) -> tuple[str, ...]:
    return _some(
        [kind for kind in KINDS if any((c, kind) in PAIRS[pairs] for c in COLORS if color in (None, c))], pairs
    )


@lru_cache
def _colors(kind: str, pairs: Split) -> tuple[str, ...]:
    return _some([color for color in COLORS if (color, kind) in PAIRS[pairs]], pairs)


def _some(found: list[str], pairs: Split) -> tuple[str, ...]:
    if not found:
        raise ConfigError(f'pairs is "{pairs}", where no pair has this kind or colour; give another')
    return tuple(found)
