"""Needle streams: a few unique things hidden among many others, and questions that only they answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from rekv.core import Frame
from rekv.errors import ConfigError
from rekv.world.background import draw_background
from rekv.world.event import Event, draw_event, draw_length, draw_timeline, pick, stay
from rekv.world.phrasings import draw_phrasing
from rekv.world.questions import Question, QuestionType, about, absent, order
from rekv.world.render import frames
from rekv.world.scene import Scene
from rekv.world.shapes import CARD, COLORS, KINDS, SHAPES
from rekv.world.splits import KNOWN_PAIRS, Split

NeedleType = Literal["color", "shape", "digit", "where", "size", "motion", "order", "exist"]
NEEDLE_TYPES: tuple[NeedleType, ...] = get_args(NeedleType)
TAIL = 40  # frames at the end without needles: longer than a window, so that memory alone can answer
_SLOT = 8  # frames; each needle has a slot to itself
_FIRST_SLOT = 2
_MOST_PER_TYPE = 2  # more would leave too few names for the distractors


@dataclass(frozen=True, slots=True, eq=False)
class NeedleStream:
    """A scene and what to ask at its end."""

    scene: Scene
    questions: tuple[Question, ...]  # by type, in the order of `NEEDLE_TYPES` or `HARD_TYPES`

    @property
    def events(self) -> tuple[Event, ...]:
        return self.scene.events

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures, one a second; the same ones at every call."""
        return frames(self.scene)


class Cast:
    """Draws needles that no distractor can be taken for, and knows what it has given away: known pairs only."""

    def __init__(self, rng: np.random.Generator, unique: int = 1) -> None:
        """`unique`: how many kinds, and how many colours, only one needle each will have."""
        self._rng = rng
        kinds = [SHAPES[i] for i in rng.permutation(len(SHAPES))]
        colors = [COLORS[i] for i in rng.permutation(len(COLORS))]
        self._unique_kinds, self._unique_colors = kinds[:unique], colors[:unique]
        self._kinds = [kind for kind in KINDS if kind not in self._unique_kinds]
        self._colors = colors[unique:]
        self._names: set[str] = set()
        self._fresh_kinds, self._fresh_colors = iter(self._unique_kinds), iter(self._unique_colors)

    def needle(self, type: QuestionType) -> Event:
        """Draw a thing that questions of this type can be asked about; it stays or moves."""
        match type:
            case "color":
                return self._draw([next(self._fresh_kinds)])
            case "shape":
                return self._draw(self._kinds, [next(self._fresh_colors)])
            case "digit":
                return self._draw([CARD])
            case "where":
                event = self._draw(self._kinds)
                return stay(event, event.origin)
            case "size":
                return self._draw([kind for kind in self._kinds if kind != CARD])
            case _:
                return self._draw(self._kinds)

    def name(self, kinds: Sequence[str] | None = None, colors: Sequence[str] | None = None) -> tuple[str, str]:
        """Reserve a (kind, color) that nothing else will have."""
        while True:
            kind, color = pick(self._rng, kinds or self._kinds), pick(self._rng, colors or self._colors)
            if f"{color} {kind}" not in self._names and (color, kind) in KNOWN_PAIRS:
                self._names.add(f"{color} {kind}")
                return kind, color

    def reserved(self, event: Event) -> bool:
        """Say whether a distractor like this could be taken for a needle."""
        return event.kind in self._unique_kinds or event.color in self._unique_colors or event.name in self._names

    def _draw(self, kinds: Sequence[str], colors: Sequence[str] | None = None) -> Event:
        return draw_event(self._rng, *self.name(kinds, colors))


def needle_stream(
    rng: np.random.Generator,
    n_frames: int,
    *,
    tail: int = TAIL,
    per_type: int = 1,
    phrasings: Split = "known",
    backgrounds: Split = "known",
) -> NeedleStream:
    """Draw a stream with `per_type` (1 or 2) questions of each of the eight `NEEDLE_TYPES`.

    Every needle is unique in the stream, alone on screen, and gone before the last `tail` frames; half of the
    `exist` questions are about things that never appear. `phrasings`, `backgrounds`: which side of the splits
    words and background are from; things are known pairs. Raises `ConfigError` if the stream is too short.
    """
    types = [type for type in NEEDLE_TYPES for _ in range(per_type * (2 if type == "order" else 1))]
    _check(n_frames, tail, per_type, len(types))
    cast = Cast(rng, per_type)
    needles = [cast.needle(type) for type in types]
    decoys = iter([cast.name() for _ in range(per_type)])
    background = draw_background(rng, backgrounds=backgrounds)
    distractors = draw_timeline(rng, n_frames, cast.reserved, wall=background.wall)
    slots = rng.permutation(np.arange(_FIRST_SLOT, (n_frames - tail) // _SLOT))
    needles = [place(rng, needle, int(slot) * _SLOT) for needle, slot in zip(needles, slots, strict=False)]
    questions: list[Question] = []
    subjects = iter(zip(types, needles, strict=True))
    for type, needle in subjects:
        phrasing = draw_phrasing(rng, type, phrasings)
        if type == "order":
            questions.append(order(needle, next(subjects)[1], phrasing=phrasing))
        elif type == "exist" and rng.random() < 0.5:
            kind, color = next(decoys)
            questions.append(absent("exist", color, kind, phrasing=phrasing))
        else:
            questions.append(about(type, needle, phrasing=phrasing))
    scene = Scene.draw(rng, n_frames, hide(needles, distractors), background=background)
    return NeedleStream(scene, tuple(questions))


def place(rng: np.random.Generator, event: Event, start: int) -> Event:
    """Let a thing appear in frame `start`, for a random while."""
    return event.during(start, start + draw_length(rng, event))


def hide(needles: Iterable[Event], distractors: Iterable[Event]) -> tuple[Event, ...]:
    """Put needles among distractors, of which those that share the screen with a needle are dropped."""
    needles = tuple(needles)
    others = (event for event in distractors if not any(event.overlaps(needle) for needle in needles))
    return tuple(sorted((*others, *needles), key=lambda event: event.start))


def _check(n_frames: int, tail: int, per_type: int, needles: int) -> None:
    if not 1 <= per_type <= _MOST_PER_TYPE:
        raise ConfigError(f"per_type is {per_type}; it must be 1 or {_MOST_PER_TYPE} (questions of each type)")
    shortest = tail + (_FIRST_SLOT + needles) * _SLOT
    if n_frames < shortest:
        raise ConfigError(
            f"n_frames is {n_frames}; {needles} needles and a tail of {tail} frames need at least {shortest}"
        )
