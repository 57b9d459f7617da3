"""A story of some minutes for the demo: a scene, and questions that come up while it plays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rekv.core import Frame
from rekv.world.askable import Askable
from rekv.world.background import draw_background
from rekv.world.clip import ask
from rekv.world.event import SIDES, Event, Path, draw_again, draw_other_edge, draw_timeline, pick
from rekv.world.needle import Cast, hide, place
from rekv.world.phrasings import draw_phrasing
from rekv.world.questions import Question, SubjectType, absent, now
from rekv.world.render import frames
from rekv.world.scene import Scene
from rekv.world.shapes import EDGES


@dataclass(frozen=True, slots=True)
class Ask:
    """A question in the story. Its time lies between two frames, so there is no doubt what has been seen."""

    time: float  # seconds from the start: frames up to int(time) have been seen
    question: Question


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """A scene that plays at one frame a second, and what is asked about it, in order of time."""

    scene: Scene
    asks: tuple[Ask, ...]

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures, one a second; the same ones at every call."""
        return frames(self.scene)


@dataclass(frozen=True, slots=True)
class _Cue:
    type: SubjectType | Literal["now"]
    appears: tuple[int, ...]  # frames in which the things it is about appear
    asked: int  # the last frame seen before the question
    path: Path | None = None  # of the thing; a random one by default


N_FRAMES = 280
# From a thing that has just left to one four minutes ago; in between, what is on screen at the moment.
_SCRIPT = (
    _Cue("digit", (10,), 18),
    _Cue("where", (26,), 45),
    _Cue("now", (), 70),
    _Cue("color", (34,), 100),
    _Cue("motion", (58,), 130, "hide"),
    _Cue("shape", (82,), 160),
    _Cue("exist", (90,), 190),
    _Cue("times", (66, 106, 170), 200),
    _Cue("order", (146, 114), 220),
    _Cue("size", (18,), 240),
    _Cue("exist", (), 250),
    _Cue("motion", (122,), 260, "move"),
    _Cue("when", (42,), 272),
)


def demo_story(seed: int = 0) -> Story:
    """Draw the story: the script is always the same, the scene and with it the answers depend on the seed."""
    rng = np.random.default_rng(seed)
    cast = Cast(rng)
    absentee = cast.name()
    parts = [_part(rng, cast, cue) for cue in _SCRIPT]
    background = draw_background(rng, wall=True)
    distractors = draw_timeline(rng, N_FRAMES, cast.reserved, wall=True)
    events = hide([needle for part in parts for needle in part], distractors)
    scene = Scene.draw(rng, N_FRAMES, events, background=background)
    asks = [_ask(rng, cue, part, absentee, scene) for cue, part in zip(_SCRIPT, parts, strict=True)]
    return Story(scene, tuple(asks))


def _part(rng: np.random.Generator, cast: Cast, cue: _Cue) -> tuple[Event, ...]:
    """Draw the things that a cue is about: two for "order", else one that may appear several times."""
    if cue.type == "times":
        thing = cast.needle(cue.type)
        return tuple(place(rng, draw_again(rng, thing), start) for start in cue.appears)
    return tuple(place(rng, _led(rng, cast.needle(cue.type), cue.path), start) for start in cue.appears)


def _led(rng: np.random.Generator, thing: Event, path: Path | None) -> Event:
    """Return the thing on a path of this sort."""
    if path == "move" and not thing.moves:
        origin = pick(rng, EDGES)
        return replace(thing, path=path, origin=origin, target=draw_other_edge(rng, origin))
    if path == "hide":  # what hides is small
        return replace(thing, size="small", path=path, origin=pick(rng, SIDES), target=pick(rng, SIDES))
    return thing


def _ask(rng: np.random.Generator, cue: _Cue, part: tuple[Event, ...], absentee: tuple[str, str], scene: Scene) -> Ask:
    phrasing = draw_phrasing(rng, cue.type)
    asked = cue.asked
    if cue.type == "now":
        asked = _busy_frame(scene.events, cue.asked)
        question = now(scene.events, asked, phrasing=phrasing)
    elif not part:
        kind, color = absentee
        question = absent("exist", color, kind, phrasing=phrasing)
    else:
        question = ask(cue.type, Askable(part), scene, phrasing)
    return Ask(asked + 0.5, question)


def _busy_frame(events: Sequence[Event], frame: int) -> int:
    """Return the first frame from this one on with something on screen that was there before and stays."""

    def on_screen(frame: int) -> list[Event]:
        return [event for event in events if event.visible(frame)]

    while not (on_screen(frame - 1) == on_screen(frame) == on_screen(frame + 1) != []):
        frame += 1
    return frame
