"""Answers are checked against a witness who only watches the scene, frame by frame, and reads the words."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from rekv.world import Question, Scene, clip_question
from rekv.world.event import Event
from rekv.world.questions import TEMPLATES, TYPES, about, absent, caption, count, now, order
from rekv.world.shapes import CARD, COLORS, KINDS, PLACES

N_FRAMES = 16
NAME = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(KINDS)})\b")
KIND = re.compile(rf"\b({'|'.join(KINDS)})(?:e?s)?\b")
COLOR = re.compile(rf"\b({'|'.join(COLORS)})\b")


class Sighting(NamedTuple):
    frame: int
    color: str
    kind: str
    size: str
    digit: int
    place: str  # the nearest one
    at: tuple[float, float]


def watch(scene: Scene, n_frames: int | None = None) -> list[Sighting]:
    seen = []
    for frame in range(n_frames or scene.n_frames):
        for event in scene.visible(frame):
            x, y = event.position(frame)
            place = min(PLACES, key=lambda name: abs(PLACES[name][0] - x) + abs(PLACES[name][1] - y))
            seen.append(Sighting(frame, event.color, event.kind, event.size, event.digit, place, (x, y)))
    return seen


def truth(question: Question, sightings: Sequence[Sighting], last: int) -> str:
    """Answer from what was seen."""
    text = question.text
    by_name = defaultdict(list)
    for sighting in sightings:
        by_name[sighting.color, sighting.kind].append(sighting)
    names = NAME.findall(text)
    match question.type:
        case "color":
            return one({s.color for s in sightings if s.kind == KIND.findall(text)[0]})
        case "shape":
            return one({s.kind for s in sightings if s.color == COLOR.findall(text)[0]})
        case "digit":
            return one({str(s.digit) for s in by_name[COLOR.findall(text)[0], CARD]})
        case "where":
            return one({s.place for s in by_name[names[0]]})
        case "size":
            return one({s.size for s in by_name[names[0]]})
        case "exist":
            return "yes" if by_name[names[0]] else "no"
        case "order":
            return "the {} {}".format(*min(names, key=lambda name: by_name[name][0].frame))
        case "motion":
            return motion(by_name[names[0]])
        case "now":
            on_screen = sorted((s for s in sightings if s.frame == last), key=lambda s: s.at)
            return " and ".join(a(f"{s.color} {s.kind}") for s in on_screen) or "nothing"
        case "count":
            frames = sorted({(s.color, s.frame) for s in sightings if s.kind == KIND.findall(text)[0]})
            return str(sum((color, frame - 1) not in frames for color, frame in frames))


def motion(sightings: Sequence[Sighting]) -> str:
    first, last = sightings[0], sightings[-1]
    name = f"{first.color} {first.kind}" if first.kind == CARD else f"{first.size} {first.color} {first.kind}"
    if first.place != last.place:
        return f"{a(name)} moved from {first.place} to {last.place}"
    where = {"top": "at the top", "bottom": "at the bottom", "center": "in the center"}
    return f"{a(name)} stayed {where.get(first.place, f'on the {first.place}')}"


def a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def one(answers: set[str]) -> str:
    assert len(answers) == 1, "the question is ambiguous"
    return answers.pop()


def clip_questions() -> list[tuple[Scene, Question]]:
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scene = Scene.draw(rng, N_FRAMES)
        found += [(scene, clip_question(rng, scene.events, N_FRAMES)) for _ in range(8)]
    return found


CLIP_QUESTIONS = clip_questions()


@pytest.mark.parametrize("type", TYPES)
def test_answers_are_true(type: str) -> None:
    checked = 0
    for scene, question in CLIP_QUESTIONS:
        if question.type == type and not (type == "count" and follow_each_other(scene)):
            assert question.answer == truth(question, watch(scene), N_FRAMES - 1), question.text
            checked += 1
    assert checked >= 20


def follow_each_other(scene: Scene) -> bool:
    """Two alike without a pause between them: a witness cannot count them."""
    ends = {(event.name, event.stop) for event in scene.events}
    names = [event.name for event in scene.events]
    return any((event.name, event.start) in ends for event in scene.events) or any(
        one.overlaps(other)
        for i, one in enumerate(scene.events)
        for other in scene.events[:i]
        if names[i] == other.name
    )


def test_evidence_shows_what_is_asked_about() -> None:
    for scene, question in CLIP_QUESTIONS:
        words = f"{question.text} {question.answer}"
        meant = {*KIND.findall(words), *COLOR.findall(words)}
        for start, stop in question.evidence if question.answer != "nothing" else ():
            assert 0 <= start < stop <= N_FRAMES
            for frame in range(start, stop):
                shown = {word for event in scene.visible(frame) for word in (event.kind, event.color)}
                assert meant & shown, (question, frame)


def test_evidence_is_all_that_is_needed() -> None:
    """Whoever sees only the evidence knows the answer."""
    for scene, question in CLIP_QUESTIONS:
        if question.type in ("count", "exist"):
            continue
        frames = {frame for span in question.evidence for frame in range(*span)}
        sightings = [sighting for sighting in watch(scene) if sighting.frame in frames]
        assert truth(question, sightings, N_FRAMES - 1) == question.answer


def test_answers_are_among_the_choices() -> None:
    for _, question in CLIP_QUESTIONS:
        assert not question.choices or question.answer in question.choices
        assert bool(question.choices) == (question.type not in ("now", "motion"))


def test_answers_vary() -> None:
    for type in TYPES:
        answers = [question.answer for _, question in CLIP_QUESTIONS if question.type == type]
        commonest = max(answers.count(answer) for answer in set(answers))
        assert commonest / len(answers) < 0.75, f"{type} can be guessed"


@pytest.mark.parametrize("type", TYPES)
def test_every_phrasing_is_used(type: str) -> None:
    texts = [question.text for _, question in CLIP_QUESTIONS if question.type == type]
    for template in TEMPLATES[type]:  # type: ignore[index]
        pattern = re.sub(r"\\{\w+\\}", r"\\w+", re.escape(template))
        assert any(re.fullmatch(pattern, text) for text in texts), template


THING = Event("ring", "orange", "large", 3, "left", "top", (245, 135, 25), (0, 0), start=4, stop=8)
STILL = Event("card", "white", "small", 7, "center", "center", (248, 248, 248), (0, 0), start=2, stop=6)


def test_one_question_of_each_type_by_hand() -> None:
    both = (THING, STILL)
    assert about("color", THING).answer == "orange"
    assert about("shape", THING).answer == "ring"
    assert about("size", THING).answer == "large"
    assert about("digit", STILL).answer == "7"
    assert about("where", STILL).answer == "center"
    assert about("exist", THING).answer == "yes"
    assert about("motion", THING).answer == "a large orange ring moved from left to top"
    assert caption(STILL) == "a white card stayed in the center"
    assert absent("red", "star").text == "Did a red star appear?"
    assert order(THING, STILL).answer == order(STILL, THING).answer == "the white card"
    assert now(both, 4).answer == "an orange ring and a white card"
    assert now(both, 7).answer == "an orange ring"
    assert now(both, 9).answer == "nothing"
    assert count(both, "ring", 4).answer == "0"
    assert count(both, "ring", 5).answer == "1"
    assert count(both, "cross", 5).text == "How many crosses appeared?"


def test_evidence_ends_where_the_video_ends() -> None:
    assert about("color", THING).evidence == ((4, 8),)
    assert about("color", THING, n_frames=6).evidence == ((4, 6),)
    assert about("color", THING.during(-2, 3)).evidence == ((0, 3),)
    assert order(THING, STILL, n_frames=5).evidence == ((4, 5), (2, 5))
    assert now((THING,), 4).evidence == ((4, 5),)
    assert absent("red", "star").evidence == ()


def test_there_is_a_question_about_an_empty_scene() -> None:
    rng = np.random.default_rng(0)
    questions = [clip_question(rng, (), 8) for _ in range(50)]
    assert {question.type for question in questions} <= {"now", "count", "exist"}
    assert {question.answer for question in questions} == {"nothing", "0", "no"}
