"""Answers are checked against a witness; some by hand."""

import re

import numpy as np
import pytest

from rekv.world import Question, Scene, clip_question
from rekv.world.event import Event
from rekv.world.phrasings import PHRASINGS
from rekv.world.questions import (
    TYPES,
    about,
    absent,
    before,
    caption,
    count,
    describe,
    now,
    order,
    times,
    when,
)
from tests.world.witness import COLOR, KIND, NAME, truth, watch

N_FRAMES = 16
OPEN = ("now", "motion", "when", "before", "caption", "absent")


def clip_questions() -> list[tuple[Scene, Question]]:
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        scene = Scene.draw(rng, N_FRAMES)
        found += [(scene, clip_question(rng, scene)) for _ in range(8)]
    return found


CLIP_QUESTIONS = clip_questions()


@pytest.mark.parametrize("type", TYPES)
def test_answers_are_true(type: str) -> None:
    asked = [(scene, question) for scene, question in CLIP_QUESTIONS if question.type == type]
    assert len(asked) >= 60
    for scene, question in asked:
        assert question.answer == truth(question, watch(scene), N_FRAMES - 1), question.text


def test_evidence_shows_what_is_asked_about() -> None:
    for scene, question in CLIP_QUESTIONS:
        words = f"{question.text} {question.answer}"
        meant = {*KIND.findall(words), *COLOR.findall(words)}
        for start, stop in question.evidence if question.answer != "nothing" else ():
            assert 0 <= start < stop <= N_FRAMES
            for frame in range(start, stop):
                shown = {word for event in scene.visible(frame) for word in (event.kind, event.color)}
                hidden = any(event.present(frame) and not event.visible(frame) for event in scene.events)
                assert meant & shown or (hidden and start < frame < stop - 1), (question, frame)


def test_evidence_is_all_that_is_needed() -> None:
    """Whoever sees only the evidence knows the answer; that there was nothing else only the whole clip tells."""
    for scene, question in CLIP_QUESTIONS:
        if question.type in ("exist", "absent"):
            continue
        frames = {frame for span in question.evidence for frame in range(*span)}
        sightings = [sighting for sighting in watch(scene) if sighting.frame in frames]
        question = Question(question.type, re.sub(r" the (first|last) time", "", question.text), question.answer, ())
        assert truth(question, sightings, N_FRAMES - 1) == question.answer


def test_every_range_of_the_evidence_is_needed() -> None:
    """Without one of several the answer is another, or cannot be given."""
    several = [(scene, q) for scene, q in CLIP_QUESTIONS if q.type in ("times", "count", "caption", "order")]
    checked = 0
    for scene, question in several:
        for left_out in question.evidence:
            sightings = [s for s in watch(scene) if not left_out[0] <= s.frame < left_out[1]]
            try:
                changed = truth(question, sightings, N_FRAMES - 1) != question.answer
            except IndexError:  # the thing was never seen
                changed = True
            checked += 1
            assert changed, question
    assert checked > 400


def test_the_subjects_are_what_the_words_name() -> None:
    for _, question in CLIP_QUESTIONS:
        names = [(kind, color) for color, kind in NAME.findall(question.text)]
        if names:
            assert question.subjects == tuple(names)
        elif question.type in ("now", "caption"):
            assert question.subjects == ()
        elif question.type == "shape":
            assert question.subjects == ((None, COLOR.findall(question.text)[0]),)
        else:
            assert question.type in ("color", "count", "absent")
            assert question.subjects == ((KIND.findall(question.text)[0], None),)


def test_answers_are_among_the_choices() -> None:
    for _, question in CLIP_QUESTIONS:
        assert not question.choices or question.answer in question.choices
        assert bool(question.choices) == (question.type not in OPEN)


@pytest.mark.parametrize("type", [type for type in TYPES if type != "absent"])
def test_answers_vary(type: str) -> None:
    answers = [question.answer for _, question in CLIP_QUESTIONS if question.type == type]
    commonest = max(answers.count(answer) for answer in set(answers))
    assert commonest / len(answers) < 0.75, "it can be guessed"


@pytest.mark.parametrize("split", ["known", "held_out"])
@pytest.mark.parametrize("type", PHRASINGS["known"])
def test_every_phrasing_of_a_split_is_used_and_no_other(type: str, split: str) -> None:
    rng = np.random.default_rng(0)
    templates = PHRASINGS[split][type]  # type: ignore[index]
    patterns = {re.sub(r"\\{\w+\\}", r"[\\w ]*", re.escape(template)) for template in templates}
    used: set[str] = set()
    for _ in range(60):
        scene = Scene.draw(rng, N_FRAMES)
        for _ in range(5):
            question = clip_question(rng, scene, type=type, phrasings=split)  # type: ignore[arg-type]
            if question.type == type:
                found = {pattern for pattern in patterns if re.fullmatch(pattern, question.text)}
                assert found, question.text
                used |= found
    assert used == patterns


RGB = (245.0, 135.0, 25.0)
THING = Event("ring", "orange", "large", 3, "left", "top", RGB, (0, 0), start=4, stop=8, path="move")
STILL = Event("card", "white", "small", 7, "center", "center", RGB, (0, 0), start=2, stop=6)
HIDDEN = Event("star", "red", "small", 0, "left", "right", RGB, (0, 0), start=8, stop=14, path="hide")


def test_one_question_of_each_type_by_hand() -> None:
    both = (THING, STILL)
    assert about("color", THING).answer == "orange"
    assert about("shape", THING).answer == "ring"
    assert about("size", THING).answer == "large"
    assert about("digit", STILL).answer == "7"
    assert about("where", STILL).answer == "center"
    assert about("where", STILL, occasion="last").text == "Where was the white card the last time?"
    assert about("exist", THING).text == "Did an orange ring appear?"
    assert about("exist", THING).answer == "yes"
    assert about("motion", THING).answer == "a large orange ring moved from left to top"
    assert describe(STILL) == "a white card stayed in the center"
    assert describe(HIDDEN) == "a small red star hid behind the wall"
    assert when(THING, "14:05").answer == "at 14:05"
    assert when(THING, "14:05", occasion="first").text == "When did the orange ring appear the first time?"
    assert order(THING, STILL).answer == order(STILL, THING).answer == "the white card"
    assert before(HIDDEN, THING).text == "What was there before the red star came?"
    assert before(HIDDEN, THING).answer == "an orange ring"
    assert times((STILL, STILL.during(9, 12))).answer == "2"
    assert caption((STILL, THING)).answer == "a white card, then an orange ring"
    assert now(both, 4).answer == "an orange ring and a white card"
    assert now(both, 7).answer == "an orange ring"
    assert now(both, 9).answer == "nothing"
    assert count(both, "ring", 4).answer == "0"
    assert count(both, "ring", 5).answer == "1"
    assert count(both, "cross", 5).text == "How many crosses appeared?"


def test_what_never_appeared_is_asked_about_as_if_it_had() -> None:
    exist, color, digit = (
        absent(*asked) for asked in (("exist", "red", "star"), ("color", "red", "star"), ("digit", "red", "card"))
    )
    assert (exist.type, exist.text, exist.answer) == ("exist", "Did a red star appear?", "no")
    assert (color.type, color.text, color.answer) == ("absent", "What color was the star?", "there was none")
    assert (digit.type, digit.text) == ("absent", "What number was on the red card?")
    assert color.subjects == (("star", None),)
    assert digit.subjects == (("card", "red"),)
    assert exist.evidence == color.evidence == digit.evidence == ()


def test_a_template_can_be_chosen() -> None:
    assert now((), 3, phrasing="What is there now?").text == "What is there now?"
    assert about("digit", STILL, phrasing="Read the {thing}.").text == "Read the white card."
    assert count((), "ring", 4, phrasing="Count the {kinds}.").text == "Count the rings."
    color = about("color", THING, phrasing="There was {a_kind} on screen. What color was it?")
    assert color.text == "There was a ring on screen. What color was it?"


def test_evidence_ends_where_the_video_ends() -> None:
    assert about("color", THING).evidence == ((4, 8),)
    assert about("color", THING, n_frames=6).evidence == ((4, 6),)
    assert about("color", THING.during(-2, 3)).evidence == ((0, 3),)
    assert order(THING, STILL, n_frames=5).evidence == ((4, 5), (2, 5))
    assert before(THING, STILL, n_frames=5).evidence == ((4, 5), (2, 5)), "first the one that is named"
    assert times((STILL, STILL.during(9, 12)), 11).evidence == ((2, 6), (9, 11))
    assert now((THING,), 4).evidence == ((4, 5),)


def test_evidence_of_a_hiding_thing_is_from_its_first_to_its_last_sight() -> None:
    assert about("motion", HIDDEN).evidence == ((8, 14),)
    assert about("color", HIDDEN, n_frames=12).evidence == ((8, 10),), "it has not come out yet"
    assert about("color", HIDDEN.during(-2, 4)).evidence == ((2, 4),), "it was behind the wall when the video began"
