"""Questions about a scene, with the true answer and the frames that show it.

The built-in model knows these words only. Its tokenizer ignores case and the spaces around punctuation; answers are
written as the model writes them, in lower case and without a full stop. Every function takes the `phrasing`, a
template of the asked type from `phrasings`; by default the type's first one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rekv.world.event import Event, FrameRange, seen
from rekv.world.phrasings import TEMPLATES, AskedType
from rekv.world.shapes import CARD, COLORS, KINDS, PLACES, SIZES

QuestionType = Literal[AskedType, "absent"]
SubjectType = Literal[  # about things that were there
    "color",
    "shape",
    "exist",
    "digit",
    "where",
    "order",
    "count",
    "size",
    "motion",
    "when",
    "times",
    "before",
    "caption",
]
FactType = Literal["color", "shape", "exist", "digit", "where", "size", "motion"]
AbsentType = Literal["exist", "color", "digit", "where", "size", "motion", "when"]
Occasion = Literal["", "first", "last"]
Subject = tuple[str | None, str | None]  # (kind, colour) that the words single out; None for what they ask for

TYPES: tuple[QuestionType, ...] = (*TEMPLATES, "absent")
ABSENT_TYPES: tuple[AbsentType, ...] = get_args(AbsentType)
MOST_COUNTED = 4  # the model never learned to count further
NONE = "there was none"

_CHOICES: dict[QuestionType, tuple[str, ...]] = {
    "color": COLORS,
    "shape": KINDS,
    "exist": ("yes", "no"),
    "digit": tuple("0123456789"),
    "where": tuple(PLACES),
    "count": tuple(str(n) for n in range(MOST_COUNTED + 1)),
    "size": SIZES,
    "times": tuple(str(n) for n in range(1, MOST_COUNTED + 1)),
}
_PREPOSITIONS = {"left": "on the", "right": "on the", "top": "at the", "bottom": "at the", "center": "in the"}


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what is true.

    `evidence`: ranges of frames [start, stop); a right retrieval touches each. A thing that hides has one range,
    from the first to the last frame that shows it, with the frames between in which it is out of sight.
    `subjects`: the things that the words single out, in the order of their names.
    """

    type: QuestionType
    text: str
    answer: str
    evidence: tuple[FrameRange, ...]
    choices: tuple[str, ...] = ()  # the answers that questions of this type may have; empty if they are open
    subjects: tuple[Subject, ...] = ()


def about(
    type: FactType,
    event: Event,
    *,
    n_frames: int | None = None,
    phrasing: str | None = None,
    occasion: Occasion = "",
) -> Question:
    """Ask for a fact about one thing: color, shape, digit, where, size, motion, or exist (which is "yes").

    Whether the words single the thing out is for the caller to see to. `n_frames`: the video ends there.
    `occasion`: which of a thing's appearances is meant, if it has several; of "where" only.
    """
    answer: str
    match type:
        case "color":
            answer = event.color
        case "shape":
            answer = event.kind
        case "digit":
            answer = str(event.digit)
        case "where":
            answer = event.origin
        case "size":
            answer = event.size
        case "motion":
            answer = describe(event)
        case "exist":
            answer = "yes"
    text = _text(type, phrasing, event.color, event.kind, occasion=occasion)
    subjects = (_subject(type, event.color, event.kind),)
    return Question(type, text, answer, _ranges((event,), n_frames), _CHOICES.get(type, ()), subjects)


def when(
    event: Event, clock: str, *, n_frames: int | None = None, phrasing: str | None = None, occasion: Occasion = ""
) -> Question:
    """Ask when a thing appeared; the answer is what the scene's clock showed then, such as "at 14:05"."""
    text = _text("when", phrasing, event.color, event.kind, occasion=occasion)
    return Question("when", text, f"at {clock}", _ranges((event,), n_frames), (), (_named(event),))


def absent(type: AbsentType, color: str, kind: str, *, phrasing: str | None = None) -> Question:
    """Ask about a thing that never appeared: whether it did, or for a fact, as if it had.

    A color question names only the kind. The latter are questions of the type "absent".
    """
    text = _text(type, phrasing, color, kind)
    subjects = (_subject(type, color, kind),)
    if type == "exist":
        return Question("exist", text, "no", (), _CHOICES["exist"], subjects)
    return Question("absent", text, NONE, (), (), subjects)


def order(
    first_named: Event, second_named: Event, *, n_frames: int | None = None, phrasing: str | None = None
) -> Question:
    """Ask which of two things appeared first; the evidence is both, in the order of their names."""
    named = (first_named, second_named)
    text = _text("order", phrasing, first_named.color, first_named.kind, other=second_named.name)
    earlier = min(named, key=lambda event: event.start)
    choices = (f"the {first_named.name}", f"the {second_named.name}")
    subjects = (_named(first_named), _named(second_named))
    return Question("order", text, f"the {earlier.name}", _ranges(named, n_frames), choices, subjects)


def before(event: Event, earlier: Event, *, n_frames: int | None = None, phrasing: str | None = None) -> Question:
    """Ask what was there before a thing came; the evidence is both, first the one that is named."""
    text = _text("before", phrasing, event.color, event.kind)
    return Question("before", text, _article(earlier.name), _ranges((event, earlier), n_frames), (), (_named(event),))


def now(events: Sequence[Event], frame: int, *, phrasing: str | None = None) -> Question:
    """Ask what is on screen in this frame, the newest one; from left to right."""
    on_screen = sorted((e for e in events if e.visible(frame)), key=lambda event: event.position(frame))
    answer = " and ".join(_article(event.name) for event in on_screen) or "nothing"
    return Question("now", phrasing or TEMPLATES["now"][0], answer, ((frame, frame + 1),))


def count(events: Sequence[Event], kind: str, n_frames: int, *, phrasing: str | None = None) -> Question:
    """Ask how many things of a kind appeared in the frames [0, n_frames)."""
    found = [event for event in seen(events, n_frames) if event.kind == kind]
    template = phrasing or TEMPLATES["count"][0]
    return Question(
        "count",
        template.format(kinds=plural(kind)),
        str(len(found)),
        _ranges(found, n_frames),
        _CHOICES["count"],
        ((kind, None),),
    )


def times(appearances: Sequence[Event], n_frames: int | None = None, *, phrasing: str | None = None) -> Question:
    """Ask how often a thing appeared: these are its appearances, in order of time, at least one."""
    thing = appearances[0]
    text = _text("times", phrasing, thing.color, thing.kind)
    evidence = _ranges(appearances, n_frames)
    return Question("times", text, str(len(appearances)), evidence, _CHOICES["times"], (_named(thing),))


def caption(events: Sequence[Event], n_frames: int | None = None, *, phrasing: str | None = None) -> Question:
    """Ask what happened: these things appeared, in order of time."""
    answer = ", then ".join(_article(event.name) for event in events)
    return Question("caption", phrasing or TEMPLATES["caption"][0], answer, _ranges(events, n_frames))


def describe(event: Event) -> str:
    """Describe a thing and its path as the model does."""
    thing = _article(event.name if event.kind == CARD else f"{event.size} {event.name}")
    match event.path:
        case "move":
            return f"{thing} moved from {event.origin} to {event.target}"
        case "hide":
            return f"{thing} hid behind the wall"
        case "stay":
            return f"{thing} stayed {_PREPOSITIONS[event.origin]} {event.origin}"


def plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def _ranges(events: Sequence[Event], n_frames: int | None) -> tuple[FrameRange, ...]:
    return tuple(span for event in events if (span := event.span(n_frames)))


def _named(event: Event) -> Subject:
    return event.kind, event.color


def _subject(type: AskedType, color: str, kind: str) -> Subject:
    return None if type == "shape" else kind, None if type == "color" else color


def _text(
    type: AskedType, phrasing: str | None, color: str, kind: str, *, other: str = "", occasion: Occasion = ""
) -> str:
    thing = f"{color} {kind}"
    return (phrasing or TEMPLATES[type][0]).format(
        thing=thing,
        a_thing=_article(thing),
        color=color,
        kind=kind,
        a_kind=_article(kind),
        other=other,
        occasion=occasion and f" the {occasion} time",
    )


def _article(name: str) -> str:
    return f"an {name}" if name.startswith("o") else f"a {name}"
