"""Overlap of what was read with what shows the answer."""

import math

import pytest

from rekv.evaluation.grounding import Span, ground


def test_by_hand() -> None:
    found = ground([[(0, 2), (4, 6)], [(10, 12)]], [(1, 5)])
    assert found is not None
    first = (2 / 4, 2 / 4, 0.5, 1.0)
    assert (found.recall, found.precision, found.f1, found.hit) == tuple(one / 2 for one in first)


def test_everything_and_nothing() -> None:
    whole = ground([[(0, 100)]], [(10, 20), (30, 40)])
    assert whole is not None
    assert (whole.recall, whole.precision, whole.hit) == (1.0, 0.2, 1.0)
    nothing = ground([[]], [(10, 20)])
    assert nothing is not None
    assert (nothing.recall, nothing.precision, nothing.f1, nothing.hit) == (0.0, 0.0, 0.0, 0.0)
    assert ground([[(0, 1)]], []) is None


def test_windows_that_overlap_count_once() -> None:
    found = ground([[(0, 4)]], [(0, 4), (2, 6)])
    assert found is not None
    assert found.recall == pytest.approx(4 / 6)


def test_a_moment_can_be_hit() -> None:
    found = ground([[(4, 6)]], [(5, 5)])
    assert found is not None
    assert (found.recall, found.hit) == (0.0, 1.0)


def by_seconds(windows: list[Span], read: set[int]) -> tuple[float, float]:
    """The published way: whole seconds of a mask."""
    common = sum(
        min(end, second + 1) - max(start, second)
        for start, end in windows
        for second in range(math.floor(start), math.ceil(end))
        if second in read
    )
    return common / sum(end - start for start, end in windows), common / len(read)


@pytest.mark.parametrize("windows", [[(1.5, 4.25)], [(0.0, 2.0), (6.5, 7.0)]])
@pytest.mark.parametrize("read", [{1, 2}, {0, 4, 6}, {9}])
def test_equal_to_the_published_way_at_one_frame_a_second(windows: list[Span], read: set[int]) -> None:
    found = ground([[(second, second + 1) for second in read]], windows)
    assert found is not None
    assert (found.recall, found.precision) == pytest.approx(by_seconds(windows, read))
