"""What is held out is neither shown nor asked about unless it is asked for, and then it is all known in parts."""

import re

import numpy as np
import pytest

from rekv.world import HELD_OUT_PAIRS, KNOWN_PAIRS, Scene, clip_question, demo_story, hard_stream, needle_stream
from rekv.world import vocabulary as world_vocabulary
from rekv.world.phrasings import HELD_OUT_TEMPLATES, PHRASINGS, TEMPLATES
from rekv.world.shapes import CARD, COLORS, KINDS
from tests.world.witness import NAME

HELD_OUT_NAMES = {f"{color} {kind}" for color, kind in HELD_OUT_PAIRS}


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"{\w+}", " ", text.lower())))


def names(text: str) -> set[str]:
    return {f"{color} {kind}" for color, kind in NAME.findall(text)}


def test_held_out_pairs_are_made_of_known_parts() -> None:
    colors, kinds = zip(*HELD_OUT_PAIRS, strict=True)
    assert len(HELD_OUT_PAIRS) == len(set(colors)) == len(set(kinds)) == 6
    assert CARD not in kinds
    assert not HELD_OUT_PAIRS & KNOWN_PAIRS
    assert len(HELD_OUT_PAIRS | KNOWN_PAIRS) == len(COLORS) * len(KINDS)


def test_known_scenes_and_questions_have_no_held_out_pair() -> None:
    shown: set[str] = set()
    asked: set[str] = set()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        scene = Scene.draw(rng, 16)
        shown |= {event.name for event in scene.events}
        for question in (clip_question(rng, scene) for _ in range(12)):
            asked |= names(f"{question.text} {question.answer}")
    assert len(shown) == len(asked) == len(KNOWN_PAIRS), "everything else occurs"
    assert not HELD_OUT_NAMES & (shown | asked)


@pytest.mark.parametrize("seed", range(8))
def test_streams_and_the_story_have_no_held_out_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    story = demo_story(seed)
    streams = [needle_stream(rng, 300), hard_stream(rng, 600)]
    events = [event for scene in (story.scene, *(s.scene for s in streams)) for event in scene.events]
    questions = [ask.question for ask in story.asks] + [question for s in streams for question in s.questions]
    assert not HELD_OUT_NAMES & {event.name for event in events}
    assert not HELD_OUT_NAMES & {name for q in questions for name in names(f"{q.text} {q.answer}")}


def test_held_out_pairs_can_be_asked_for() -> None:
    shown: set[str] = set()
    asked: set[str] = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scene = Scene.draw(rng, 16, pairs="held_out")
        shown |= {event.name for event in scene.events}
        for question in (clip_question(rng, scene, pairs="held_out") for _ in range(8)):
            asked |= names(f"{question.text} {question.answer}")
    assert shown == asked == HELD_OUT_NAMES


@pytest.mark.parametrize("type", TEMPLATES)
def test_every_type_has_known_and_held_out_phrasings(type: str) -> None:
    known, held_out = TEMPLATES[type], HELD_OUT_TEMPLATES[type]  # type: ignore[index]
    assert len(set(known)) == len(known) >= 10
    assert len(set(held_out)) == len(held_out) >= 3
    assert not {text.lower() for text in known} & {text.lower() for text in held_out}
    slots = {frozenset(re.findall(r"{\w+}", text)) - {"{a_thing}", "{a_kind}"} for text in (*known, *held_out)}
    assert len({frozenset(slot) for slot in slots if slot}) <= 1, "each says what is needed"


def test_no_text_means_two_types() -> None:
    texts = [text for split in PHRASINGS.values() for templates in split.values() for text in templates]
    assert len(set(texts)) == len(texts)


def test_held_out_phrasings_have_no_untrained_word() -> None:
    trained = {word for templates in TEMPLATES.values() for text in templates for word in words(text)}
    for templates in HELD_OUT_TEMPLATES.values():
        for text in templates:
            assert words(text) <= trained, text


def test_the_vocabulary_is_small_and_in_order() -> None:
    vocabulary = world_vocabulary()
    assert vocabulary == sorted(set(vocabulary)) == world_vocabulary()
    assert {*"0123456789", *COLORS, *KINDS, "crosses"} <= set(vocabulary)
    assert len({*vocabulary, *"system user assistant you are a helpful . , ? ! :".split()}) < 260
    assert all(re.fullmatch(r"[a-z]+|\d", word) for word in vocabulary)


@pytest.mark.parametrize("phrasings", ["known", "held_out"])
def test_the_vocabulary_has_every_word_that_is_asked_or_answered_and_no_other(phrasings: str) -> None:
    used: set[str] = set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scene = Scene.draw(rng, 16)
        for question in (clip_question(rng, scene, phrasings=phrasings) for _ in range(12)):  # type: ignore[arg-type]
            used |= set(re.findall(r"[a-z]+|\d", f"{question.text} {question.answer}".lower()))
    assert used <= set(world_vocabulary())
    if phrasings == "known":
        assert used == set(world_vocabulary())
