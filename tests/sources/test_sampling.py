"""The rule that picks pictures, on timestamps alone."""

import random
from fractions import Fraction
from math import ceil, inf, nan

import pytest

from rekv.errors import ConfigError
from rekv.sources import Sampler


def taken(
    stamps: list[float],
    sample_fps: float,
    start: float = 0.0,
    end: float | None = None,
    after: float | None = None,
) -> list[float]:
    sampler = Sampler(sample_fps, start, end, after)
    return [stamp for stamp in stamps if sampler.take(stamp)]


def test_constant_rate() -> None:
    assert taken([i / 25 for i in range(251)], 0.5) == [0, 2, 4, 6, 8, 10]


def test_every_picture_where_the_rates_are_equal() -> None:
    stamps = [i / 25 for i in range(500)]
    assert taken(stamps, 25) == stamps


def test_pictures_rarer_than_samples_come_once_each() -> None:
    assert taken([0, 1, 2, 3], 10) == [0, 1, 2, 3]


def test_the_grid_stays_where_it_was_after_a_gap() -> None:
    stamps = [0, 0.4, 1.1, 1.9, 7.3, 7.8, 8.2, 9.5]  # the grid of 1 frame per second: 0, 1, 2 to 7, 8, 9
    assert taken(stamps, 1) == [0, 1.1, 7.3, 8.2, 9.5]


def test_variable_rate_follows_timestamps_not_indices() -> None:
    slow = [i * 0.5 for i in range(10)]
    fast = [5 + i * 0.01 for i in range(500)]
    assert taken(slow + fast, 0.5) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25), Fraction(601, 10)])
@pytest.mark.parametrize("sample_fps", [1 / 3, 0.5, 1.7])
def test_no_drift_in_an_hour(rate: Fraction, sample_fps: float) -> None:
    count = int(3600 * rate)
    stamps = [float(i / rate) for i in range(count)]
    # picture i is shown at i / rate, so frame k is picture ceil(k * rate / sample_fps)
    step = rate / Fraction(sample_fps).limit_denominator(1000)
    expected = [i for k in range(int(3600 * sample_fps) + 1) if (i := ceil(k * step)) < count]
    assert taken(stamps, sample_fps) == [stamps[i] for i in expected]


def test_start_and_end() -> None:
    stamps = [i / 10 for i in range(100)]
    assert taken(stamps, 1, 0.3) == [0.3, 1.3, 2.3, 3.3, 4.3, 5.3, 6.3, 7.3, 8.3, 9.3]
    assert taken(stamps, 2, 1.25, 3.3) == [1.3, 1.8, 2.3, 2.8]  # 3.3 is the end: left out


def test_rounding_of_decimal_times_costs_no_picture() -> None:
    stamps = [0.1 + k / 10 - 1e-9 for k in range(1, 1001)]
    assert taken(stamps, 10, 0.2) == stamps


def test_timestamps_that_repeat_or_go_back_are_not_taken() -> None:
    assert taken([0, 0, 1, 0.5, 1, 1, 2, 1.9, 0, 3], 1) == [0, 1, 2, 3]
    assert taken([0, 0, 0.001, 0.0005, 0.001, 0.002], 1000) == [0, 0.001, 0.002]


def test_pictures_before_the_start_are_not_taken() -> None:
    assert taken([-0.2, -0.1, 0.02, 1.0], 1) == [0.02, 1.0]


def test_absurd_times_take_no_longer_than_others() -> None:
    assert taken([0, 1e9, 1e18, 1e18, 1e30, 1e30], 1000) == [0, 1e9, 1e18, 1e30]


def test_says_what_it_waits_for_and_when_it_is_done() -> None:
    sampler = Sampler(2, 1.0, 2.0)
    assert (sampler.wanted, sampler.done) == (1.0, False)
    assert sampler.take(1.1)
    assert (sampler.wanted, sampler.done) == (1.5, False)
    assert sampler.take(1.7)
    assert sampler.done  # the next one would be at the end


@pytest.mark.parametrize("sample_fps", [0.7, 1.0, 29.97])
@pytest.mark.parametrize(("start", "end"), [(0.0, None), (2.3, 17.0)])
def test_continuing_takes_what_comes_later(sample_fps: float, start: float, end: float | None) -> None:
    chance = random.Random(1)
    even = [i / 25 for i in range(500)]
    uneven = sorted(round(chance.uniform(0, 20), 2) for _ in range(200))
    astray = [time + chance.choice((0, 0, -0.5, 2)) for time in uneven]
    for stamps in (even, uneven, astray):
        whole = taken(stamps, sample_fps, start, end)
        for after in [*whole[::7], *(chance.uniform(0, 20) for _ in range(40))]:
            rest = taken(stamps, sample_fps, start, end, after)
            assert rest == [stamp for stamp in whole if stamp > after]


def test_continuing_needs_no_picture_of_earlier_samples() -> None:
    sampler = Sampler(2, 0.1, after=1.3)
    assert sampler.wanted == 1.1
    assert [stamp for stamp in (1.2, 1.4, 1.61, 1.7) if sampler.take(stamp)] == [1.61]


@pytest.mark.parametrize("sample_fps", [0, -1, inf, nan, 1e9])
def test_refuses_rates(sample_fps: float) -> None:
    with pytest.raises(ConfigError, match="sample_fps"):
        Sampler(sample_fps)


@pytest.mark.parametrize(("start", "end"), [(-1, None), (inf, None), (nan, None), (2, 2), (2, 1), (0, nan)])
def test_refuses_ranges(start: float, end: float | None) -> None:
    with pytest.raises(ConfigError, match="start"):
        Sampler(1.0, start, end)
