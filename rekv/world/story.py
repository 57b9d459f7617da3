"""A story of some minutes for the demo: a scene, and questions that come up while it plays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rekv.core import Frame
from rekv.world.event import Event, draw_other_edge, draw_timeline, pick
from rekv.world.needle import Cast, hide, place
from rekv.world.questions import Question, QuestionType, about, absent, draw_phrasing, now, order
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
    type: QuestionType
    appears: tuple[int, ...]  # frames in which the things it is about appear
    asked: int  # the last frame seen before the question


N_FRAMES = 280
# From a thing that has just left to one four minutes ago; in between, what is on screen at the moment.
_SCRIPT = (
    _Cue("digit", (10,), 18),
    _Cue("where", (26,), 45),
    _Cue("now", (), 70),
    _Cue("color", (34,), 100),
    _Cue("motion", (58,), 130),
    _Cue("shape", (82,), 160),
    _Cue("exist", (90,), 190),
    _Cue("now", (), 200),
    _Cue("order", (146, 114), 220),
    _Cue("size", (18,), 240),
    _Cue("exist", (), 250),
    _Cue("motion", (122,), 260),
    _Cue("digit", (42,), 272),
)


def demo_story(seed: int = 0) -> Story:
    """Draw the story: the script is always the same, the scene and with it the answers depend on the seed."""
    rng = np.random.default_rng(seed)
    cast = Cast(rng)
    absentee = cast.name()
    parts = [[place(rng, _thing(rng, cast, cue.type), start) for start in cue.appears] for cue in _SCRIPT]
    needles = [needle for part in parts for needle in part]
    events = hide(needles, draw_timeline(rng, N_FRAMES, cast.reserved))
    asks = [_ask(rng, cue, part, absentee, events) for cue, part in zip(_SCRIPT, parts, strict=True)]
    return Story(Scene.draw(rng, N_FRAMES, events), tuple(asks))


def _thing(rng: np.random.Generator, cast: Cast, type: QuestionType) -> Event:
    thing = cast.needle(type)
    if type == "motion" and not thing.moves:
        origin = pick(rng, EDGES)
        thing = replace(thing, origin=origin, target=draw_other_edge(rng, origin))
    return thing


def _ask(
    rng: np.random.Generator, cue: _Cue, part: list[Event], absentee: tuple[str, str], events: Sequence[Event]
) -> Ask:
    phrasing = draw_phrasing(rng, cue.type)
    asked = cue.asked
    if cue.type == "now":
        asked = _busy_frame(events, cue.asked)
        question = now(events, asked, phrasing=phrasing)
    elif cue.type == "order":
        question = order(part[0], part[1], phrasing=phrasing)
    elif not part:
        kind, color = absentee
        question = absent(color, kind, phrasing=phrasing)
    else:
        question = about(cue.type, part[0], phrasing=phrasing)
    return Ask(asked + 0.5, question)


def _busy_frame(events: Sequence[Event], frame: int) -> int:
    """Return the first frame from this one on with something on screen that was there before and stays."""

    def on_screen(frame: int) -> list[Event]:
        return [event for event in events if event.visible(frame)]

    while not (on_screen(frame - 1) == on_screen(frame) == on_screen(frame + 1) != []):
        frame += 1
    return frame
