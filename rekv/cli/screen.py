"""What goes where: answers to stdout, everything about them to stderr, colours only to a terminal."""

import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console


def plain_streams() -> None:
    """Let no letter that the terminal's encoding lacks stop the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def notes(quiet: bool = False) -> Console:
    """A console on stderr, for everything that is not an answer."""
    plain_streams()
    return Console(stderr=True, quiet=quiet, highlight=False, markup=False, soft_wrap=True)


def output() -> Console:
    """A console on stdout, for what a command was asked for."""
    plain_streams()
    return Console(highlight=False, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """Text of a model or a file without control characters, which could steer the terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


@contextmanager
def silent(part: str) -> Iterator[None]:
    """Meanwhile a part of rekv logs only errors: what it warns of is told by other means."""
    logger = logging.getLogger(part)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its columns under each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def counted(n: int, noun: str) -> str:
    """1 frame, 2 frames."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def format_rate(fps: float) -> str:
    return f"{fps:g} frame{'' if fps == 1 else 's'} per second"


def format_bytes(n: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while n >= 1024 and len(units) > 1:
        n /= 1024
        units.pop(0)
    return f"{n:.3g} {units[0]}" if n < 1000 else f"{n:.0f} {units[0]}"


def format_duration(seconds: float) -> str:
    """A time span as the options take it: 7d, 12h, 90m, 30s."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def format_seconds(seconds: float) -> str:
    """How long something took."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
