"""Times as people write them: 42, 1:30, 1:02:03.5."""

import re

_TIME = re.compile(r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,9}(?:\.\d{1,9})?)", re.ASCII)


def parse_time(text: str) -> float:
    """Read seconds, mm:ss or hh:mm:ss, each with decimals or without, as seconds. Raises ValueError."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time; write seconds (90), mm:ss (1:30) or hh:mm:ss (0:01:30)")
    hours, minutes, seconds = int(match[1] or 0), int(match[2] or 0), float(match[3])
    if (match[1] and minutes >= 60) or (match[2] and seconds >= 60):
        raise ValueError(f"{text!r} is not a time; minutes and seconds after a colon are below 60")
    return hours * 3600 + minutes * 60 + seconds


def format_time(seconds: float) -> str:
    """Write seconds as m:ss or h:mm:ss, with a tenth of a second if there is one."""
    tenths = round(seconds * 10)
    sign, tenths = ("-", -tenths) if tenths < 0 else ("", tenths)
    whole, tenth = divmod(tenths, 10)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{sign}{text}.{tenth}" if tenth else f"{sign}{text}"


def format_span(start: float, end: float) -> str:
    """Write a time span as 0:10-0:14."""
    return f"{format_time(start)}-{format_time(end)}"
