"""Hard streams: every answer is checked by going through all that happens; all around is easily confused."""

import re
from collections import Counter

import numpy as np
import pytest

from rekv.errors import ConfigError
from rekv.world import HARD_TYPES, Event, NeedleStream, Question, hard_stream
from rekv.world.needle import TAIL
from rekv.world.shapes import CARD
from tests.world.witness import NAME, OCCASION, a, truth, watch

SEEDS = range(12)
NEAR = 20  # frames
LENGTHS = {1: 600, 2: 1100}
WHERE = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "center": "in the center",
}


def draw(seed: int, per_type: int = 1, n_frames: int | None = None) -> NeedleStream:
    return hard_stream(np.random.default_rng(seed), n_frames or LENGTHS[per_type], per_type=per_type)


def draws() -> list[NeedleStream]:
    return [draw(seed, per_type) for seed in SEEDS for per_type in (1, 2)] + [
        draw(seed, n_frames=3600) for seed in range(3)
    ]


STREAMS = draws()


def needles(stream: NeedleStream, question: Question) -> list[list[Event]]:
    """All that has a name that the question says: for each name its events in order of time."""
    names = [" ".join(name) for name in NAME.findall(question.text)]
    return [sorted((e for e in stream.events if e.name == name), key=lambda e: e.start) for name in names]


def brute_force(stream: NeedleStream, question: Question) -> str:
    """The answer from the list of events."""
    found = needles(stream, question)
    if question.type == "exist":
        return "yes" if found[0] else "no"
    if question.type == "times":
        return str(len(found[0]))
    occasion = OCCASION.findall(question.text)
    if question.type in ("where", "when"):
        assert len(found[0]) == 2
        event = found[0][0 if occasion == ["first"] else 1]
        return event.origin if question.type == "where" else f"at {stream.scene.clock(event.start)}"
    assert [len(events) for events in found] == [1] * len(found), "the words single it out"
    event = found[0][0]
    match question.type:
        case "digit":
            assert event.kind == CARD
            return str(event.digit)
        case "size":
            assert event.kind != CARD
            return event.size
        case "order":
            return f"the {min(event, found[1][0], key=lambda e: e.start).name}"
        case "before":
            starts = [e.start for e in stream.events if e.start < event.start]
            last = [e for e in stream.events if e.start == max(starts)]
            assert len(last) == 1
            assert not [
                e for e in stream.events if e is not last[0] and e.overlaps(last[0].during(last[0].start, event.start))
            ]
            return a(last[0].name)
        case _:
            thing = a(event.name if event.kind == CARD else f"{event.size} {event.name}")
            assert question.type == "motion"
            if event.path == "stay":
                return f"{thing} stayed {WHERE[event.origin]}"
            moved = f"{thing} moved from {event.origin} to {event.target}"
            return f"{thing} hid behind the wall" if event.path == "hide" else moved


def test_a_seed_decides_the_stream() -> None:
    assert draw(5).questions == draw(5).questions != draw(6).questions
    assert draw(5).events == draw(5).events


def test_every_type_is_asked() -> None:
    for stream in STREAMS:
        types = Counter(question.type for question in stream.questions)
        assert list(types) == list(HARD_TYPES)
        assert len(set(types.values())) == 1
        assert len({question.text for question in stream.questions}) == types.total()


def test_every_question_has_one_true_answer() -> None:
    for stream in STREAMS:
        for question in stream.questions:
            assert question.answer == brute_force(stream, question), question.text


def test_a_witness_of_the_whole_stream_gives_the_same_answers() -> None:
    for stream in STREAMS:
        sightings = watch(stream.scene)
        for question in stream.questions:
            assert question.answer == truth(question, sightings, stream.scene.n_frames - 1), question.text


def test_evidence_is_where_the_needles_are_and_before_the_tail() -> None:
    for stream in STREAMS:
        for question in stream.questions:
            spans = [event.span() for events in needles(stream, question) for event in events]
            if question.type == "before":
                assert question.evidence[0] == spans[0]
                assert a(next(e.name for e in stream.events if e.span() == question.evidence[1])) == question.answer
            elif question.type in ("where", "when"):
                assert question.evidence == (spans[0 if " first time" in question.text else 1],)
            else:
                assert question.evidence == tuple(spans)
            assert all(0 <= start < stop <= stream.scene.n_frames - TAIL for start, stop in question.evidence)


def test_every_sight_of_a_needle_is_among_things_that_look_like_it() -> None:
    for stream in STREAMS:
        for question in stream.questions:
            for event in (event for events in needles(stream, question) for event in events):
                around = [e for e in stream.events if e is not event and abs(e.start - event.start) <= NEAR]
                assert sum(e.kind == event.kind and e.color != event.color for e in around) >= 2
                assert sum(e.color == event.color and e.kind != event.kind for e in around) >= 2


def test_something_else_comes_right_before_or_after_every_needle() -> None:
    for stream in STREAMS:
        for start, stop in (span for question in stream.questions for span in question.evidence):
            others = [e for e in stream.events if 0 <= start - e.stop <= 2 or 0 <= e.start - stop <= 2]
            assert len(others) >= 2


def test_what_never_appeared_has_a_kind_and_a_color_that_often_did() -> None:
    denied = 0
    for stream in STREAMS:
        for question in stream.questions:
            if question.answer == "no":
                ((kind, color),) = question.subjects
                assert sum(event.kind == kind for event in stream.events) >= 3
                assert sum(event.color == color for event in stream.events) >= 3
                denied += 1
    assert denied >= 8


def test_answers_vary() -> None:
    questions = [question for seed in range(150) for question in draw(seed).questions]
    for type in HARD_TYPES:
        answers = Counter(question.answer for question in questions if question.type == type)
        assert max(answers.values()) < 0.65 * answers.total(), type
    first = [question.answer == question.choices[0] for question in questions if question.type == "order"]
    assert 0.35 < np.mean(first) < 0.65, "the first one named is not the better guess"
    times = [re.findall(r"first|last", q.text)[-1] for q in questions if q.type in ("where", "when")]
    assert 0.35 < np.mean([time == "first" for time in times]) < 0.65


def test_the_tail_is_not_empty() -> None:
    for stream in STREAMS:
        assert [event for event in stream.events if event.start >= stream.scene.n_frames - TAIL]


def test_the_shortest_stream_is_full_of_needles() -> None:
    assert len(draw(0, n_frames=520).questions) == len(HARD_TYPES)
    with pytest.raises(ConfigError, match="at least 520"):
        draw(0, n_frames=519)
    with pytest.raises(ConfigError, match="at least 1000"):
        draw(0, per_type=2, n_frames=999)


@pytest.mark.parametrize("per_type", [0, 3])
def test_too_many_needles_are_refused(per_type: int) -> None:
    with pytest.raises(ConfigError, match="per_type"):
        hard_stream(np.random.default_rng(0), 3600, per_type=per_type)
