"""Random questions about a short clip: what the built-in model was trained and is checked on."""

from collections.abc import Sequence

import numpy as np

from rekv.world.event import Event, pick, seen
from rekv.world.questions import (
    MOST_COUNTED,
    TYPES,
    Question,
    QuestionType,
    about,
    absent,
    count,
    draw_phrasing,
    now,
    order,
)
from rekv.world.shapes import CARD, COLORS, KINDS

_WEIGHTS = {
    "color": 1.2,
    "shape": 1.2,
    "exist": 0.9,
    "digit": 1.4,
    "where": 1.3,
    "order": 1.0,
    "now": 0.7,
    "count": 0.9,
    "size": 0.9,
    "motion": 1.2,
}
_SHARES = np.array([_WEIGHTS[type] for type in TYPES]) / sum(_WEIGHTS.values())
_ATTEMPTS = 12


def clip_question(rng: np.random.Generator, events: Sequence[Event], n_frames: int) -> Question:
    """Draw a question about the frames [0, n_frames) that has one true answer."""
    events = seen(events, n_frames)
    for _ in range(_ATTEMPTS):
        type = TYPES[rng.choice(len(TYPES), p=_SHARES)]
        question = _attempt(rng, type, events, n_frames)
        if question:
            return question
    return now(events, n_frames - 1)


def _attempt(rng: np.random.Generator, type: QuestionType, events: Sequence[Event], n_frames: int) -> Question | None:
    """Draw a question of this type, or None if the drawn subject does not allow one."""
    phrasing = draw_phrasing(rng, type)
    if not events and type not in ("now", "exist", "count"):
        return None
    subject = pick(rng, events) if events else None
    if type == "now":
        return now(events, n_frames - 1, phrasing=phrasing)
    if type == "count":
        return _count(rng, subject, events, n_frames, phrasing)
    if type == "exist":
        return _exist(rng, subject, events, n_frames, phrasing)
    if type == "digit":
        cards = [event for event in events if event.kind == CARD]
        subject = pick(rng, cards) if cards else None
    if subject is None:
        return None
    if type == "order":
        return _order(rng, subject, events, n_frames, phrasing)
    if not is_clear(type, subject, events, n_frames):
        return None
    return about(type, subject, n_frames=n_frames, phrasing=phrasing)


def is_clear(type: QuestionType, subject: Event, events: Sequence[Event], n_frames: int) -> bool:
    """Say whether a question of this type about a thing means only that thing and makes sense for it."""
    same_kind = [event for event in events if event.kind == subject.kind]
    same_color = [event for event in events if event.color == subject.color]
    same_name = [event for event in same_kind if event.color == subject.color]
    match type:
        case "color":
            return len(same_kind) == 1
        case "shape":
            return len(same_color) == 1
        case "where":
            return len(same_name) == 1 and not subject.moves
        case "size":
            return len(same_name) == 1 and subject.kind != CARD
        case "motion":
            return len(same_name) == 1 and 0 <= subject.start and subject.stop <= n_frames
        case _:
            return len(same_name) == 1


def _order(
    rng: np.random.Generator, subject: Event, events: Sequence[Event], n_frames: int, phrasing: int
) -> Question | None:
    if len(events) < 2:
        return None
    other = pick(rng, events)
    together = max(subject.start, 0) == max(other.start, 0)
    clear = all(is_clear("order", event, events, n_frames) for event in (subject, other))
    return None if together or not clear else order(subject, other, n_frames=n_frames, phrasing=phrasing)


def _count(
    rng: np.random.Generator, subject: Event | None, events: Sequence[Event], n_frames: int, phrasing: int
) -> Question | None:
    kind = subject.kind if subject and rng.random() < 0.8 else pick(rng, KINDS)
    question = count(events, kind, n_frames, phrasing=phrasing)
    return question if int(question.answer) <= MOST_COUNTED else None


def _exist(
    rng: np.random.Generator, subject: Event | None, events: Sequence[Event], n_frames: int, phrasing: int
) -> Question | None:
    if subject and rng.random() < 0.5:
        return about("exist", subject, n_frames=n_frames, phrasing=phrasing)
    kind, color = pick(rng, KINDS), pick(rng, COLORS)
    if subject:  # a "no" is harder to say when half of it is true
        if rng.random() < 0.5:
            kind = subject.kind
        elif rng.random() < 0.7:
            color = subject.color
    if any(event.name == f"{color} {kind}" for event in events):
        return None
    return absent(color, kind, phrasing=phrasing)
