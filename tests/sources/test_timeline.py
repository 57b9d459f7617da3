"""Timestamps to seconds."""

from fractions import Fraction

from rekv.sources.timeline import Timeline

TICK = Fraction(1, 90000)
RATE = Fraction(30000, 1001)


def timeline(origin: Fraction = Fraction(0), tick: Fraction = TICK) -> Timeline:
    return Timeline(tick, origin, Fraction(25))


def test_seconds_are_those_since_the_origin() -> None:
    clock = timeline(Fraction(14, 10))
    assert clock.seconds(126000) == 0
    assert clock.seconds(126000 + 3600) == 0.04
    assert clock.seconds(0) == -1.4


def test_seconds_are_rounded_once() -> None:
    clock = Timeline(1 / RATE, Fraction(0), RATE)
    assert all(clock.seconds(i) == float(i / RATE) for i in range(0, 10_000_000, 9973))


def test_timestamp_is_the_last_not_after_a_time() -> None:
    clock = timeline(Fraction(1))
    assert clock.timestamp(0.5) == 135000
    assert clock.timestamp(0.03999) == 93599
    assert clock.timestamp(2.0) == 270000
    assert all(clock.seconds(clock.timestamp(t)) <= t <= clock.seconds(clock.timestamp(t) + 1) for t in (0.1, 7.3))


def test_missing_timestamps_follow_decoding_time_then_the_rate() -> None:
    clock = timeline()
    stamps = [(None, None), (None, None), (18000, None), (None, 27000), (None, None), (36000, 0)]
    assert [round(clock.picture(*stamp), 9) for stamp in stamps] == [0, 0.04, 0.2, 0.3, 0.34, 0.4]


def test_clock_that_starts_anew_runs_on() -> None:
    clock = timeline()
    dts = [900000, 903600, 907200, 0, 3600, 7200, 50, 3650]
    shifted = [stamp + clock.shift(stamp, 3600) for stamp in dts]
    assert shifted[:6] == [900000 + 3600 * i for i in range(6)]
    assert shifted[6:] == [7250 - 7200 + 910800, 3650 + 910800]  # back by less than a second: not a new start


def test_gaps_and_unknown_decoding_times_shift_nothing() -> None:
    clock = timeline()
    assert [clock.shift(stamp, None) for stamp in (0, 3600, 90000 * 3600, None, 90000 * 3600 + 3600)] == [0] * 5
