"""Questions about a scene, with the true answer and the frames that show it.

The built-in model knows these words and phrasings only. Its tokenizer ignores case and the spaces around
punctuation; answers are written as the model writes them, in lower case and without a full stop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rekv.world.event import Event, FrameRange, seen
from rekv.world.shapes import CARD, COLORS, KINDS, PLACES, SIZES

QuestionType = Literal["color", "shape", "exist", "digit", "where", "order", "now", "count", "size", "motion"]

TEMPLATES: dict[QuestionType, tuple[str, ...]] = {
    "color": (
        "What color was the {kind}?",
        "What colour was the {kind}?",
        "Which color was the {kind}?",
        "What was the color of the {kind}?",
    ),
    "shape": (
        "What shape was {color}?",
        "What was the shape of the {color} object?",
        "What {color} object appeared?",
        "Which object was {color}?",
    ),
    "exist": (
        "Did a {color} {kind} appear?",
        "Was there a {color} {kind}?",
        "Did you see a {color} {kind}?",
        "Has a {color} {kind} been on screen?",
    ),
    "digit": (
        "What number was on the {color} card?",
        "What was the number on the {color} card?",
        "Which digit was on the {color} card?",
        "What did the {color} card say?",
    ),
    "where": (
        "Where was the {color} {kind}?",
        "Where did the {color} {kind} appear?",
        "In which place was the {color} {kind}?",
    ),
    "order": (
        "Which came first, the {color} {kind} or the {color2} {kind2}?",
        "What appeared first, the {color} {kind} or the {color2} {kind2}?",
    ),
    "now": (
        "What is on screen now?",
        "What do you see now?",
        "What is visible right now?",
        "What is in the video at this moment?",
    ),
    "count": ("How many {kinds} appeared?", "How many {kinds} were there?", "How many {kinds} did you see?"),
    "size": (
        "How big was the {color} {kind}?",
        "What size was the {color} {kind}?",
        "Was the {color} {kind} small or large?",
    ),
    "motion": (
        "What did the {color} {kind} do?",
        "How did the {color} {kind} move?",
        "Describe the {color} {kind}.",
        "What happened to the {color} {kind}?",
    ),
}
TYPES = tuple(TEMPLATES)
MOST_COUNTED = 4  # the model never learned to count further

_CHOICES: dict[QuestionType, tuple[str, ...]] = {
    "color": COLORS,
    "shape": KINDS,
    "exist": ("yes", "no"),
    "digit": tuple("0123456789"),
    "where": tuple(PLACES),
    "count": tuple(str(n) for n in range(MOST_COUNTED + 1)),
    "size": SIZES,
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what is true."""

    type: QuestionType
    text: str
    answer: str
    evidence: tuple[FrameRange, ...]  # frames [start, stop); a right retrieval touches every range
    choices: tuple[str, ...] = ()  # the answers that questions of this type may have; empty if they are open


def about(type: QuestionType, event: Event, *, n_frames: int | None = None, phrasing: int | None = None) -> Question:
    """Ask for a fact about one thing: color, shape, digit, where, size, motion, or exist (which is "yes").

    Whether the words single the thing out is for the caller to see to. `n_frames`: the video ends there.
    `phrasing`: index into the type's `TEMPLATES`; 0 by default.
    """
    answers = {
        "color": event.color,
        "shape": event.kind,
        "digit": str(event.digit),
        "where": event.origin,
        "size": event.size,
        "motion": caption(event),
        "exist": "yes",
    }
    text = _text(type, phrasing, color=event.color, kind=event.kind)
    return Question(type, text, answers[type], (_range(event, n_frames),), _CHOICES.get(type, ()))


def absent(color: str, kind: str, *, phrasing: int | None = None) -> Question:
    """Ask whether something appeared that never did."""
    return Question("exist", _text("exist", phrasing, color=color, kind=kind), "no", (), _CHOICES["exist"])


def order(
    first_named: Event, second_named: Event, *, n_frames: int | None = None, phrasing: int | None = None
) -> Question:
    """Ask which of two things appeared first; the evidence is both, in the order of their names."""
    named = (first_named, second_named)
    text = _text(
        "order",
        phrasing,
        color=first_named.color,
        kind=first_named.kind,
        color2=second_named.color,
        kind2=second_named.kind,
    )
    earlier = min(named, key=lambda event: event.start)
    choices = (f"the {first_named.name}", f"the {second_named.name}")
    evidence = (_range(first_named, n_frames), _range(second_named, n_frames))
    return Question("order", text, f"the {earlier.name}", evidence, choices)


def now(events: Sequence[Event], frame: int, *, phrasing: int | None = None) -> Question:
    """Ask what is on screen in this frame, the newest one; from left to right."""
    on_screen = sorted((e for e in events if e.visible(frame)), key=lambda event: event.position(frame))
    answer = " and ".join(_article(event.name) for event in on_screen) or "nothing"
    return Question("now", _text("now", phrasing), answer, ((frame, frame + 1),))


def count(events: Sequence[Event], kind: str, n_frames: int, *, phrasing: int | None = None) -> Question:
    """Ask how many things of a kind appeared in the frames [0, n_frames)."""
    found = [event for event in seen(events, n_frames) if event.kind == kind]
    evidence = tuple(_range(event, n_frames) for event in found)
    plural = f"{kind}es" if kind.endswith("s") else f"{kind}s"
    return Question("count", _text("count", phrasing, kinds=plural), str(len(found)), evidence, _CHOICES["count"])


def caption(event: Event) -> str:
    """Describe a thing and its path as the model does."""
    name = event.name if event.kind == CARD else f"{event.size} {event.name}"
    if event.moves:
        return f"{_article(name)} moved from {event.origin} to {event.target}"
    preposition = {
        "left": "on the",
        "right": "on the",
        "top": "at the",
        "bottom": "at the",
        "center": "in the",
    }
    return f"{_article(name)} stayed {preposition[event.origin]} {event.origin}"


def _range(event: Event, n_frames: int | None) -> FrameRange:
    return max(event.start, 0), event.stop if n_frames is None else min(event.stop, n_frames)


def _text(type: QuestionType, phrasing: int | None, **words: str) -> str:
    return TEMPLATES[type][phrasing or 0].format(**words)


def _article(name: str) -> str:
    return f"an {name}" if name.startswith("o") else f"a {name}"


def draw_phrasing(rng: np.random.Generator, type: QuestionType) -> int:
    return int(rng.integers(len(TEMPLATES[type])))
