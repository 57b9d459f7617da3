"""Times as text."""

import pytest

from rekv.timecode import format_span, format_time, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90.25", 90.25),
        (" 7 ", 7),
        ("1:30", 90),
        ("01:05.5", 65.5),
        ("75:00", 4500),
        ("0:01:30", 90),
        ("1:02:03.004", 3723.004),
        ("30:00:00", 108000),
    ],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    "text",
    ["", "abc", "-5", "+5", "1:", ":30", "1:75", "1:60:00", "1:2:3:4", "nan", "inf", "1e3", "5s", ".5", "٣"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (7, "0:07"),
        (59.94, "0:59.9"),
        (59.96, "1:00"),
        (90.5, "1:30.5"),
        (3599.99, "1:00:00"),
        (3723.25, "1:02:03.2"),
        (90000, "25:00:00"),
        (-1.5, "-0:01.5"),
        (-0.01, "0:00"),
    ],
)
def test_times_are_written(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_what_is_written_can_be_read() -> None:
    for tenths in range(0, 10_000_000, 12_347):
        assert parse_time(format_time(tenths / 10)) == pytest.approx(tenths / 10, abs=1e-6)


def test_a_span_is_two_times() -> None:
    assert format_span(10, 74.5) == "0:10-1:14.5"
