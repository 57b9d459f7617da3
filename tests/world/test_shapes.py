from itertools import combinations

import numpy as np
import pytest

from rekv.world.overlay import ROWS
from rekv.world.shapes import (
    CARD,
    HEIGHT,
    INPUT,
    KINDS,
    PLACES,
    SHAPES,
    SIZES,
    WIDTH,
    Inside,
    digit_dots,
    inside,
    reach,
)

JITTER = 2  # units that things are off their places


def mask(kind: str, size: str) -> Inside:
    axis = np.arange(-12, 12, 0.1) + 0.05
    return inside(kind, size, axis[None, :], axis[:, None])


def test_shapes_and_digits_are_told_apart() -> None:
    for one, other in combinations([mask(kind, "large") for kind in KINDS], 2):
        assert (one != other).sum() > 0.1 * one.sum()
    for dots, others in combinations([digit_dots(digit) for digit in range(10)], 2):
        assert (dots != others).sum() >= 3


def test_a_large_shape_is_much_larger_than_a_small_one() -> None:
    for kind in SHAPES:
        assert mask(kind, "large").sum() > 2 * mask(kind, "small").sum()
    assert np.array_equal(mask(CARD, "large"), mask(CARD, "small")), "a card has no size"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_nothing_reaches_further_than_said(kind: str, size: str) -> None:
    rows, columns = np.nonzero(mask(kind, size))
    across, down = reach(kind, size)
    assert np.abs(columns * 0.1 - 11.95).max() <= across
    assert np.abs(rows * 0.1 - 11.95).max() <= down
    assert np.abs(rows * 0.1 - 11.95).max() > 0.75 * down


@pytest.mark.parametrize("place", PLACES)
def test_everything_fits_into_the_picture_below_the_clock(place: str) -> None:
    x, y = PLACES[place]
    for kind in KINDS:
        across, down = reach(kind, "large")
        assert across + JITTER <= x <= WIDTH - across - JITTER
        assert y <= HEIGHT - down - JITTER + 1, "at most an edge is cut off"
        assert y - down - JITTER >= ROWS * HEIGHT / INPUT - 1


def test_a_cached_digit_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        digit_dots(3)[:] = 0
