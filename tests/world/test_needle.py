import re

import numpy as np
import pytest

from rekv.errors import ConfigError
from rekv.world import NEEDLE_TYPES, Event, NeedleStream, Question, needle_stream
from rekv.world.background import BACKGROUNDS
from rekv.world.needle import TAIL
from rekv.world.phrasings import HELD_OUT_TEMPLATES, TEMPLATES
from rekv.world.shapes import CARD
from tests.world.witness import truth, watch

SEEDS = range(20)
LENGTHS = {1: 300, 2: 600}


def draw(seed: int, per_type: int = 1) -> NeedleStream:
    return needle_stream(np.random.default_rng(seed), LENGTHS[per_type], per_type=per_type)


def needles(stream: NeedleStream, question: Question) -> list[Event]:
    """The things that a question is about, found by its evidence."""
    return [event for span in question.evidence for event in stream.events if (event.start, event.stop) == span]


def test_a_seed_decides_the_stream() -> None:
    one, other = draw(5), draw(5)
    assert one.questions == other.questions
    assert all(
        np.array_equal(a.image, b.image) and a.time == b.time for a, b in zip(one.frames(), other.frames(), strict=True)
    )
    assert draw(6).questions != one.questions


def test_frames_can_be_read_twice() -> None:
    stream = draw(1)
    assert [f.image.sum() for f in stream.frames()] == [f.image.sum() for f in stream.frames()]


@pytest.mark.parametrize("per_type", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_type_is_asked_about_different_things(seed: int, per_type: int) -> None:
    stream = draw(seed, per_type)
    assert [q.type for q in stream.questions] == [t for t in NEEDLE_TYPES for _ in range(per_type)]
    spans = [span for question in stream.questions for span in question.evidence]
    assert len(set(spans)) == len(spans)
    assert len({question.text for question in stream.questions}) >= len(NEEDLE_TYPES)


@pytest.mark.parametrize("per_type", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_needles_are_unique_alone_and_before_the_tail(seed: int, per_type: int) -> None:
    stream = draw(seed, per_type)
    for question in stream.questions:
        found = needles(stream, question)
        assert len(found) == len(question.evidence)
        for needle in found:
            assert needle.stop <= LENGTHS[per_type] - TAIL
            assert needle.start >= 0
            assert not any(needle.overlaps(event) for event in stream.events if event is not needle)
            assert [event.name for event in stream.events].count(needle.name) == 1
            if question.type == "color":
                assert [event.kind for event in stream.events].count(needle.kind) == 1
            if question.type == "shape":
                assert [event.color for event in stream.events].count(needle.color) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_are_true_of_the_needles(seed: int) -> None:
    stream = draw(seed)
    for question in stream.questions:
        found = needles(stream, question)
        words = re.findall(r"\w+", question.text)
        match question.type:
            case "color":
                assert question.answer == found[0].color
                assert found[0].kind in words
            case "shape":
                assert question.answer == found[0].kind
                assert found[0].color in words
            case "digit":
                assert found[0].kind == CARD
                assert question.answer == str(found[0].digit)
            case "where":
                assert question.answer == found[0].origin == found[0].target
            case "size":
                assert question.answer == found[0].size
                assert found[0].kind != CARD
            case "motion":
                assert found[0].origin in question.answer
                assert found[0].target in question.answer
                assert ("moved" in question.answer) == (found[0].path == "move")
                assert found[0].path != "hide"
            case "order":
                assert [event.name in question.text for event in found] == [True, True]
                assert question.answer == f"the {min(found, key=lambda event: event.start).name}"
            case "exist":
                shown = any(event.name in question.text for event in stream.events)
                assert question.answer == ("yes" if shown else "no")
                assert bool(question.evidence) == shown


@pytest.mark.parametrize("seed", SEEDS)
def test_a_witness_of_the_whole_stream_gives_the_same_answers(seed: int) -> None:
    stream = draw(seed, 1 + seed % 2)
    sightings = watch(stream.scene)
    for question in stream.questions:
        assert question.answer == truth(question, sightings, stream.scene.n_frames - 1), question.text


def test_orders_and_existences_are_balanced() -> None:
    questions = [question for seed in range(100) for question in draw(seed).questions]
    exist = [question.answer == "yes" for question in questions if question.type == "exist"]
    order = [question.answer == question.choices[0] for question in questions if question.type == "order"]
    assert 0.35 < np.mean(exist) < 0.65
    assert 0.35 < np.mean(order) < 0.65, "the first one named is not the better guess"


def test_a_stream_is_full_of_distractors() -> None:
    for seed in SEEDS:
        stream = draw(seed)
        tail = [event for event in stream.events if event.start >= 300 - TAIL]
        assert len(stream.events) > 45
        assert tail, "the window's own content is no easy hint"


def test_held_out_words_and_backgrounds_can_be_asked_for() -> None:
    usual, held_out = (
        [needle_stream(np.random.default_rng(seed), 300, phrasings=split, backgrounds=split) for seed in range(10)]
        for split in ("known", "held_out")
    )
    assert {stream.scene.background.family for stream in usual} <= {*BACKGROUNDS["known"]}
    assert {stream.scene.background.family for stream in held_out} <= {*BACKGROUNDS["held_out"]}
    for streams, templates in ((usual, TEMPLATES), (held_out, HELD_OUT_TEMPLATES)):
        patterns = [
            re.sub(r"\\{\w+\\}", r"[\\w ]*", re.escape(text)) for type in NEEDLE_TYPES for text in templates[type]
        ]
        for question in (question for stream in streams for question in stream.questions):
            assert any(re.fullmatch(pattern, question.text) for pattern in patterns), question.text


def test_a_longer_tail_can_be_asked_for() -> None:
    stream = needle_stream(np.random.default_rng(0), 400, tail=200)
    assert all(stop <= 200 for question in stream.questions for _, stop in question.evidence)


def test_the_shortest_stream_is_full_of_needles() -> None:
    stream = needle_stream(np.random.default_rng(0), 128)
    assert len(stream.questions) == len(NEEDLE_TYPES)
    with pytest.raises(ConfigError, match="at least 128"):
        needle_stream(np.random.default_rng(0), 127)


@pytest.mark.parametrize("per_type", [0, 3])
def test_too_many_needles_are_refused(per_type: int) -> None:
    with pytest.raises(ConfigError, match="per_type"):
        needle_stream(np.random.default_rng(0), 600, per_type=per_type)
