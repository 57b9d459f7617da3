"""The timeline, by its pixels."""

import numpy as np
import pytest

from rekv.pictures import Row, Tick, timeline
from rekv.pictures.style import GREEN, MARGIN, PAPER, WIDTH, heat
from rekv.pictures.timeline import Scale


def row(**changes: object) -> Row:
    settings: dict[str, object] = {"asked": 60, "seen": 61.0, "question": "q", "answer": "a", "ticks": ()}
    return Row(**(settings | changes))  # type: ignore[arg-type]


def pixels(*rows: Row, duration: float = 100.0) -> np.ndarray:
    return np.array(timeline(rows, duration, "Title", "Subtitle"))


def columns(picture: np.ndarray, color: tuple[int, int, int]) -> list[int]:
    """Where there is this colour below the legend."""
    return np.nonzero((picture[120:] == color).all(-1).any(0))[0].tolist()


def test_a_tick_lies_at_its_time_in_the_colour_of_its_score() -> None:
    scale = Scale(100.0)
    for start, score in ((0.0, 0.0), (33.0, 1.7), (58.0, 9.0)):
        found = columns(pixels(row(ticks=[Tick(start, start + 2, score)])), heat(score))
        assert found == list(range(scale(start), scale(start + 2)))


def test_a_short_tick_in_a_long_video_can_still_be_seen() -> None:
    day = 86400.0
    found = columns(pixels(row(seen=day, ticks=[Tick(40000, 40001, 3)]), duration=day), heat(3))
    assert len(found) == 2


def test_what_shows_the_answer_is_framed() -> None:
    assert columns(pixels(row()), GREEN) == []
    found = columns(pixels(row(truth=[(20.0, 30.0)])), GREEN)
    assert abs(min(found) - Scale(100.0)(20)) <= 2
    assert abs(max(found) - Scale(100.0)(30)) <= 2


def test_seen_window_and_unseen_differ() -> None:
    picture = pixels(row(window=40.0))
    line = picture[132 + 30 + 10]  # the middle of the first row's axis
    scale = Scale(100.0)
    old, recent, future = (line[scale(time)].tolist() for time in (10, 50, 80))
    assert old != recent
    assert future not in (old, recent)


def test_nothing_reaches_into_the_margin() -> None:
    text = "Which of the two things that were there came first? " * 9
    everything = Tick(0, 1e6, 3)
    picture = pixels(row(question=text, answer=text, ticks=[everything], truth=[(0, 1e6)], seen=1e6, right=False))
    labels = 132 + 62  # the axis has its labels in the middle, below the last row
    assert (picture[:labels, -MARGIN + 4 :] == PAPER).all()
    assert (picture[:, -4:] == PAPER).all()


@pytest.mark.parametrize("duration", [0.0, 0.5, 7.0, 280.0, 3600.0, 86400.0, 1e7])
def test_the_axis_has_few_labels_within_it(duration: float) -> None:
    labels = list(Scale(duration).labels())
    assert 1 <= len(labels) <= 17
    assert all(0 <= time <= duration for time in labels)
    assert pixels(row(), duration=duration).shape[1] == WIDTH


def test_rows_and_none() -> None:
    assert len(pixels(row(), row(), row())) - len(pixels(row(), row())) == len(pixels(row())) - len(pixels())
