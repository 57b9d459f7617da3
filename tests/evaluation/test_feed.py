"""A stream is handed on up to a moment, and not a frame further."""

import math
from collections.abc import Iterator

import pytest

from rekv.core import Frame
from rekv.evaluation.feed import Feed, schedule
from rekv.evaluation.schema import Question
from tests.evaluation.conftest import cell
from tests.support import pictures


def times(frames: Iterator[Frame]) -> list[float]:
    return [frame.time for frame in frames]


def test_frames_up_to_a_time_include_it() -> None:
    feed = Feed(iter(pictures(6)))
    assert times(feed.until(2.0)) == [0.0, 1.0, 2.0]
    assert times(feed.until(2.5)) == []
    assert times(feed.until(3.0)) == [3.0]
    assert times(feed.until(math.inf)) == [4.0, 5.0]
    assert feed.given == 6


def test_the_source_is_read_one_frame_further_at_most() -> None:
    read = []

    def source() -> Iterator[Frame]:
        for frame in pictures(10):
            read.append(frame.time)
            yield frame

    feed = Feed(source())
    assert times(feed.until(3.0)) == [0.0, 1.0, 2.0, 3.0]
    assert read == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_groups_are_not_torn() -> None:
    """What a model takes by twos is encoded alike, whenever questions come."""
    feed = Feed(iter(pictures(7)), group=2)
    assert times(feed.until(2.0)) == [0.0, 1.0]
    assert times(feed.until(3.0)) == [2.0, 3.0]
    assert times(feed.until(math.inf)) == [4.0, 5.0, 6.0], "at the end an odd one is all there is"


def test_the_published_way_counts_frames() -> None:
    feed = Feed(iter(pictures(5)))
    assert times(feed.upto(2)) == [0.0, 1.0]
    assert times(feed.upto(1)) == []
    assert times(feed.upto(9)) == [2.0, 3.0, 4.0]


def asked(*ends: float | None) -> list[Question]:
    return [Question("?", "!", end=end) for end in ends]


def test_questions_are_asked_in_the_order_of_time() -> None:
    questions = asked(5.0, None, 2.0, 5.0)
    assert schedule(questions, cell(mode="streaming")) == [(2.0, [2]), (5.0, [0, 3]), (None, [1])]
    assert schedule(questions, cell(mode="offline")) == [(None, [0, 1, 2, 3])]


def test_the_published_order_is_that_of_the_file() -> None:
    questions = asked(5.0, 2.0, 5.0)
    assert schedule(questions, cell(mode="streaming", paper=True)) == [(5.0, [0]), (2.0, [1]), (5.0, [2])]


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("at", [0.0, 1.0, 4.0, 8.5, 20.0])
def test_no_portion_is_late_and_nothing_is_lost(group: int, at: float) -> None:
    feed = Feed(iter(pictures(9)), group)
    first, rest = times(feed.until(at)), times(feed.until(math.inf))
    assert first + rest == [float(i) for i in range(9)]
    assert all(time <= at for time in first)
