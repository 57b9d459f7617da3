"""Random questions about a short clip: what the built-in model was trained and is checked on."""

from bisect import bisect
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np

from rekv.world.askable import Askable, askable
from rekv.world.event import pick, seen
from rekv.world.phrasings import draw_phrasing
from rekv.world.questions import (
    ABSENT_TYPES,
    AbsentType,
    Question,
    QuestionType,
    SubjectType,
    about,
    absent,
    before,
    caption,
    count,
    now,
    order,
    times,
    when,
)
from rekv.world.scene import Scene
from rekv.world.shapes import CARD, KINDS
from rekv.world.splits import PAIRS, Pair, Split

_WEIGHTS: dict[QuestionType, float] = {
    "color": 1.2,
    "shape": 1.2,
    "exist": 0.9,
    "digit": 2.0,
    "where": 1.1,
    "order": 1.2,
    "now": 0.7,
    "count": 0.8,
    "size": 0.9,
    "motion": 1.3,
    "when": 1.1,
    "times": 0.9,
    "before": 1.1,
    "absent": 0.8,
    "caption": 4.0,  # few clips allow it
}
_ABSENTS: tuple[AbsentType, ...] = tuple(type for type in ABSENT_TYPES if type != "exist")
_NOT_SEEN = 0.2  # share of count questions about a kind that was not there
_ALIKE = 0.5  # share of absent things of a kind or colour that was there
_KEPT = 8  # scenes of which what can be asked is remembered


@dataclass(frozen=True, slots=True)
class _Clip:
    """What the questions about a scene have in common."""

    askable: dict[SubjectType, list[Askable]]
    types: tuple[QuestionType, ...]  # of which there is something to ask
    weights: tuple[float, ...]  # running sums of their weights
    alike: tuple[Pair, ...]  # never seen, but another thing of the kind or colour was
    unlike: tuple[Pair, ...]  # nor was anything of the kind or colour
    kinds: frozenset[str]  # seen


def clip_question(
    rng: np.random.Generator,
    scene: Scene,
    *,
    type: QuestionType | None = None,
    phrasings: Split = "known",
    pairs: Split = "known",
) -> Question:
    """Draw a question about a whole scene that has one true answer: of a random type, or of this one.

    If nothing allows a question of this type it is "now", what is on screen in the last frame. `phrasings`,
    `pairs`: which side of the splits words, and things that never appeared, are taken from.
    """
    clip = _clip(scene, pairs)
    if type is None:
        type = clip.types[bisect(clip.weights, rng.random() * clip.weights[-1])]
    if type == "absent":
        question = _absent(rng, clip, phrasings)
    elif type == "exist" and (rng.random() < 0.5 or not clip.askable["exist"]):
        question = _never(rng, "exist", clip, phrasings)
    elif type == "count":
        question = _count(rng, scene, clip, phrasings)
    elif type == "now":
        question = None
    else:
        question = _ask(rng, type, scene, clip, phrasings)
    if question:
        return question
    return now(scene.events, scene.n_frames - 1, phrasing=draw_phrasing(rng, "now", phrasings))


def ask(type: SubjectType, subject: Askable, scene: Scene, phrasing: str | None = None) -> Question:
    """Return the question of a type that `askable` said can be asked about these things."""
    n_frames, events, occasion = scene.n_frames, subject.events, subject.occasion
    match type:
        case "when":
            clock = scene.clock(events[0].start)
            return when(events[0], clock, n_frames=n_frames, phrasing=phrasing, occasion=occasion)
        case "order":
            return order(events[0], events[1], n_frames=n_frames, phrasing=phrasing)
        case "before":
            return before(events[0], events[1], n_frames=n_frames, phrasing=phrasing)
        case "times":
            return times(events, n_frames, phrasing=phrasing)
        case "caption":
            return caption(events, n_frames, phrasing=phrasing)
        case "count":
            return count(events, events[0].kind, n_frames, phrasing=phrasing)
        case _:
            return about(type, events[0], n_frames=n_frames, phrasing=phrasing, occasion=occasion)


@lru_cache(_KEPT)
def _clip(scene: Scene, pairs: Split) -> _Clip:
    events = seen(scene.events, scene.n_frames)
    found = askable(events, scene.n_frames)
    kinds, colors = frozenset(event.kind for event in events), {event.color for event in events}
    shown = {(event.color, event.kind) for event in events}
    never = sorted(PAIRS[pairs] - shown)
    alike = tuple(pair for pair in never if pair[0] in colors or pair[1] in kinds)
    unlike = tuple(pair for pair in never if not (pair[0] in colors or pair[1] in kinds))
    possible: set[QuestionType] = {"exist", "now", "count", "absent"}
    possible.update(type for type, subjects in found.items() if subjects)
    types = tuple(type for type in _WEIGHTS if type in possible)
    return _Clip(found, types, tuple(accumulate(_WEIGHTS[type] for type in types)), alike, unlike, kinds)


def _ask(rng: np.random.Generator, type: SubjectType, scene: Scene, clip: _Clip, phrasings: Split) -> Question | None:
    subjects = clip.askable[type]
    if not subjects:
        return None
    if type in ("times", "count"):  # more are as frequent as one, where they can be
        number = pick(rng, sorted({len(subject.events) for subject in subjects}))
        subjects = [subject for subject in subjects if len(subject.events) == number]
    return ask(type, pick(rng, subjects), scene, draw_phrasing(rng, type, phrasings))


def _count(rng: np.random.Generator, scene: Scene, clip: _Clip, phrasings: Split) -> Question | None:
    unseen = [kind for kind in KINDS if kind not in clip.kinds]
    if unseen and (not clip.askable["count"] or rng.random() < _NOT_SEEN):
        return count((), pick(rng, unseen), scene.n_frames, phrasing=draw_phrasing(rng, "count", phrasings))
    return _ask(rng, "count", scene, clip, phrasings)


def _absent(rng: np.random.Generator, clip: _Clip, phrasings: Split) -> Question | None:
    return _never(rng, pick(rng, _ABSENTS), clip, phrasings)


def _never(rng: np.random.Generator, type: AbsentType, clip: _Clip, phrasings: Split) -> Question | None:
    """Ask about what never appeared; that is harder to say when half of it did."""
    first, second = (clip.alike, clip.unlike) if rng.random() < _ALIKE else (clip.unlike, clip.alike)
    pairs = _suitable(type, first, clip) or _suitable(type, second, clip)
    if not pairs:
        return None
    color, kind = pick(rng, pairs)
    return absent(type, color, kind, phrasing=draw_phrasing(rng, type, phrasings))


def _suitable(type: AbsentType, pairs: tuple[Pair, ...], clip: _Clip) -> tuple[Pair, ...] | list[Pair]:
    match type:
        case "digit":
            return [pair for pair in pairs if pair[1] == CARD]
        case "size":
            return [pair for pair in pairs if pair[1] != CARD]
        case "color":  # it names the kind only
            return [pair for pair in pairs if pair[1] not in clip.kinds]
        case _:
            return pairs
