import re

import numpy as np
import pytest

from rekv.world import Story, demo_story
from rekv.world.questions import now
from tests.world.witness import truth, watch

SEEDS = range(10)


@pytest.fixture(params=SEEDS)
def story(request: pytest.FixtureRequest) -> Story:
    return demo_story(request.param)


def test_a_seed_decides_the_story() -> None:
    one, other = demo_story(3), demo_story(3)
    assert one.asks == other.asks
    assert one.asks != demo_story(4).asks
    pairs = zip(one.frames(), other.frames(), strict=True)
    assert all(np.array_equal(a.image, b.image) for a, b in pairs)


def test_it_is_some_minutes_long_and_asks_often(story: Story) -> None:
    assert 240 <= story.scene.n_frames <= 300
    assert len(story.asks) >= 10
    times = [ask.time for ask in story.asks]
    assert times == sorted(times)
    assert all(time % 1 == 0.5 for time in times)
    assert times[-1] < story.scene.n_frames
    types = [ask.question.type for ask in story.asks]
    assert types.count("order") == 1
    assert set(types) >= {"now", "color", "shape", "digit", "where", "size", "motion", "exist", "when", "times"}


def test_only_the_past_is_asked_about(story: Story) -> None:
    for ask in story.asks:
        assert all(stop <= ask.time + 1 for _, stop in ask.question.evidence)


def test_things_long_gone_are_asked_about(story: Story) -> None:
    gone = [ask.time - stop for ask in story.asks for _, stop in ask.question.evidence]
    assert max(gone) > 180
    assert sum(age > 60 for age in gone) >= 6


def test_answers_are_true_at_the_time_of_asking(story: Story) -> None:
    for ask in story.asks:
        question, last = ask.question, int(ask.time)
        words = re.findall(r"\w+", question.text)
        past = [event for event in story.scene.events if event.start <= last]
        meant = [event for event in past if event.name in question.text]
        match question.type:
            case "now":
                assert question.answer == now(past, last).answer != "nothing"
                assert story.scene.visible(last - 1) == story.scene.visible(last + 1)
            case "exist":
                assert question.answer == ("yes" if meant else "no")
            case "order":
                assert len(meant) == 2
                assert question.answer == f"the {meant[0].name}", "events are sorted by time"
            case "color":
                assert [event.color for event in past if event.kind in words] == [question.answer]
            case "shape":
                assert [event.kind for event in past if event.color in words] == [question.answer]
            case "digit":
                assert [str(event.digit) for event in meant] == [question.answer]
            case "where":
                assert [event.origin for event in meant if not event.moves] == [question.answer]
            case "size":
                assert [event.size for event in meant] == [question.answer]
            case "motion":
                (event,) = meant
                moved = f"moved from {event.origin} to {event.target}"
                assert question.answer.endswith("hid behind the wall" if event.path == "hide" else moved)
            case "when":
                (event,) = meant
                assert question.answer == f"at {story.scene.clock(event.start)}"
            case "times":
                assert question.answer == str(len(meant)) == "3"
            case _:
                pytest.fail(f"nothing checks {question.type}")


def test_a_witness_up_to_the_time_of_asking_gives_the_same_answers(story: Story) -> None:
    for ask in story.asks:
        last = int(ask.time)
        assert ask.question.answer == truth(ask.question, watch(story.scene, last + 1), last), ask.question.text


def test_one_thing_hides_and_one_moves(story: Story) -> None:
    answers = [ask.question.answer for ask in story.asks if ask.question.type == "motion"]
    assert [answer.split()[-1] == "wall" for answer in answers] == [True, False]
    assert " moved from " in answers[1]


def test_both_answers_to_existence_occur(story: Story) -> None:
    assert {ask.question.answer for ask in story.asks if ask.question.type == "exist"} == {"yes", "no"}
