from collections import Counter

import numpy as np
import pytest

from rekv.world import TYPES, Question, Scene, clip_question
from rekv.world.askable import LONGEST_PAUSE, MOST_TOLD, askable
from rekv.world.event import Event
from rekv.world.questions import NONE
from tests.world.witness import COLOR, KIND

N_FRAMES = 16
RGB = (215.0, 35.0, 35.0)


def thing(name: str, start: int, stop: int, place: str = "left") -> Event:
    color, kind = name.split()
    return Event(kind, color, "small", 5, place, place, RGB, (0, 0), start=start, stop=stop)


def scene(*events: Event, n_frames: int = N_FRAMES) -> Scene:
    return Scene.draw(np.random.default_rng(0), n_frames, events)


def asked(drawn: Scene, type: str, number: int = 40) -> list[Question]:
    rng = np.random.default_rng(0)
    return [clip_question(rng, drawn, type=type) for _ in range(number)]  # type: ignore[arg-type]


def draw_many(scenes: int = 500, each: int = 8) -> list[tuple[Scene, Question]]:
    found = []
    for seed in range(scenes):
        rng = np.random.default_rng(seed)
        drawn = Scene.draw(rng, N_FRAMES)
        found += [(drawn, clip_question(rng, drawn)) for _ in range(each)]
    return found


MANY = draw_many()


def test_a_seed_decides_the_questions() -> None:
    assert [q for _, q in draw_many(5)] == [q for _, q in draw_many(5)] == [q for _, q in MANY[:40]]


def test_every_type_has_a_useful_share() -> None:
    shares = Counter[str](question.type for _, question in MANY)
    assert set(shares) == set(TYPES)
    for type in TYPES:
        assert 0.03 < shares[type] / len(MANY) < 0.12, type


@pytest.mark.parametrize("type", TYPES)
def test_a_type_can_be_asked_for(type: str) -> None:
    drawn = [clip_question(np.random.default_rng(i), s, type=type) for i, (s, _) in enumerate(MANY[::8])]  # type: ignore[arg-type]
    types = Counter(question.type for question in drawn)
    assert set(types) <= {type, "now"}
    assert types[type] > 0.15 * len(drawn)


def test_about_half_of_what_was_not_there_is_like_something_that_was() -> None:
    alike = []
    for drawn, question in MANY:
        if question.type == "absent":
            shown = {word for e in drawn.events if e.span(N_FRAMES) for word in (e.kind, e.color)}
            alike.append(bool(shown & {*KIND.findall(question.text), *COLOR.findall(question.text)}))
            assert question.answer == NONE
    assert len(alike) > 100
    assert 0.3 < np.mean(alike) < 0.6


def test_every_fact_is_asked_of_what_was_not_there() -> None:
    texts = {q.text for q in asked(scene(thing("red circle", 2, 5)), "absent", 300)}
    for words in ("color", "number", "Where", "size", "happened", "clock"):
        assert any(words in text for text in texts), words


def test_existence_is_asked_of_both() -> None:
    answers = Counter(question.answer for _, question in MANY if question.type == "exist")
    assert 0.35 < answers["yes"] / answers.total() < 0.65


def test_there_is_a_question_about_an_empty_scene() -> None:
    rng = np.random.default_rng(0)
    questions = [clip_question(rng, scene(n_frames=8)) for _ in range(100)]
    assert {question.type for question in questions} == {"now", "count", "exist", "absent"}
    assert {question.answer for question in questions} == {"nothing", "0", "no", NONE}


@pytest.mark.parametrize("type", ["color", "order", "before", "times", "caption", "when", "digit"])
def test_what_cannot_be_asked_becomes_what_is_on_screen(type: str) -> None:
    question = clip_question(np.random.default_rng(0), scene(n_frames=8), type=type)  # type: ignore[arg-type]
    assert (question.type, question.answer, question.evidence) == ("now", "nothing", ((7, 8),))


def test_a_thing_that_came_twice_is_asked_about_by_its_first_and_last_time() -> None:
    drawn = scene(thing("red circle", 2, 5, "left"), thing("red circle", 9, 12, "top"))
    where = {(q.text.split()[-2], q.answer, q.evidence) for q in asked(drawn, "where")}
    assert where == {("first", "left", ((2, 5),)), ("last", "top", ((9, 12),))}
    when = {(q.text.split()[-2], q.answer) for q in asked(drawn, "when")}
    assert when == {("first", f"at {drawn.clock(2)}"), ("last", f"at {drawn.clock(9)}")}
    assert {q.answer for q in asked(drawn, "times")} == {"2"}
    assert {q.type for t in ("color", "size", "motion", "order", "before") for q in asked(drawn, t)} == {"now"}


def test_a_thing_that_was_there_from_the_start_is_not_asked_when_it_came() -> None:
    assert not askable([thing("red circle", -1, 3)], N_FRAMES)["when"]
    assert askable([thing("red circle", 0, 3)], N_FRAMES)["when"]


@pytest.mark.parametrize(
    ("others", "clear"),
    [
        ([(2, 5)], True),
        ([(2, 10)], True),
        ([(10 - LONGEST_PAUSE - 2, 10 - LONGEST_PAUSE)], True),
        ([(0, 10 - LONGEST_PAUSE - 1)], False),
        ([(2, 11)], False),
        ([(10, 12)], False),
        ([(4, 6), (1, 4)], True),
        ([(4, 6), (1, 5)], False),
        ([(4, 6), (4, 6)], False),
        ([(4, 6), (10, 12)], True),
    ],
)
def test_what_was_there_before_is_asked_if_it_was_one_thing_alone(others: list[tuple[int, int]], clear: bool) -> None:
    names = ("blue star", "white card")
    events = [thing(name, *times) for name, times in zip(names, others, strict=False)]
    named = thing("red circle", 10, 13)
    found = [subject.events for subject in askable([named, *events], N_FRAMES)["before"] if subject.events[0] is named]
    assert found == ([(named, events[0])] if clear else [])


def test_few_things_one_after_the_other_are_told() -> None:
    names = ("red circle", "blue star", "white card", "cyan ring")
    row = [thing(name, 3 * i, 3 * i + 3) for i, name in enumerate(names)]
    assert [s.events for s in askable(reversed(row[:MOST_TOLD]), N_FRAMES)["caption"]] == [tuple(row[:MOST_TOLD])]
    assert not askable(row, N_FRAMES)["caption"], "too many"
    assert not askable([row[0], row[1].during(0, 2)], N_FRAMES)["caption"], "they came together"
    assert not askable([row[0], row[0].during(6, 8)], N_FRAMES)["caption"], "this is for times"
    assert not askable([], N_FRAMES)["caption"]


def test_things_are_counted_if_all_have_names_of_their_own() -> None:
    circles = [thing(f"{color} circle", 2 * i, 2 * i + 2) for i, color in enumerate(("blue", "cyan", "white"))]
    assert [len(s.events) for s in askable(circles, N_FRAMES)["count"]] == [3]
    assert not askable([*circles, circles[0].during(8, 10)], N_FRAMES)["count"], "is this a circle more?"


def test_appearances_are_counted_if_they_are_apart_and_none_hides() -> None:
    twice = [thing("red circle", 2, 4), thing("red circle", 5, 7)]
    hiding = Event("circle", "red", "small", 0, "left", "left", RGB, (0, 0), start=8, stop=14, path="hide")
    assert askable(twice, N_FRAMES)["times"]
    assert not askable([twice[0], twice[1].during(4, 6)], N_FRAMES)["times"]
    assert not askable([*twice, hiding], N_FRAMES)["times"]


def test_which_came_first_is_asked_by_what_was_seen() -> None:
    behind = Event("circle", "red", "small", 0, "left", "left", RGB, (0, 0), start=-3, stop=4, path="hide")
    assert not askable([behind, thing("blue star", 0, 3)], N_FRAMES)["order"], "it came first but was not seen"
    assert len(askable([behind, thing("blue star", 3, 5)], N_FRAMES)["order"]) == 2
