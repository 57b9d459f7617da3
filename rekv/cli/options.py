"""Options that several commands share: times, sizes, durations, files to write, settings that were given."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rekv.timecode import format_time, parse_time

Command = TypeVar("Command", bound=Callable[..., Any])

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def store_option(command: Command) -> Command:
    """`--store DIR`, the folder that holds the sessions."""
    return click.option(
        "--store",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Folder of the sessions.  [default: $REKV_STORE, else ~/.rekv/sessions]",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`, one document for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")(command)


class Size(click.ParamType[int]):
    """Bytes: 4GiB (2^30 each), 512MB (10^6 each), or a plain number."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?(?:([KMGT]?)B?|([KMGT])iB)", value.strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size; write 4GiB, 512MB or plain bytes", param, ctx)
        binary = (match[3] or "").upper()
        return round(float(match[1]) * (_BINARY_UNITS[binary] if binary else _UNITS[(match[2] or "").upper()]))


class Duration(click.ParamType[float]):
    """Seconds: 7d, 12h, 90m, 30s, or a plain number."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?) ?([smhd]?)", value.strip())
        if match is None:
            self.fail(f"{value!r} is not a duration; write 7d, 12h, 90m, 30s or plain seconds", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


class Levels(click.ParamType[float]):
    """A difference of 8-bit levels."""

    name = "levels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number; write --skip-duplicates=8, or give the option last", param, ctx)


class Time(click.ParamType[float]):
    """A time in the video: seconds, mm:ss or hh:mm:ss."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_time(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class PictureFile(click.ParamType[Path]):
    """A picture to be written: its folder is there, its ending names a format."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from PIL import Image

        path = Path(value)
        if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
            self.fail(f"{value} does not end in the name of a picture format, such as .png", param, ctx)
        if path.is_dir():
            self.fail(f"{value} is a folder", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no folder {path.parent}", param, ctx)
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            self.fail(f"{value} cannot be written", param, ctx)
        return path


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were given on the command line; the model knows the others."""
    return {name: value for name, value in settings.items() if value is not None}


def readable_part(start: float | None, end: float | None, at: float | None) -> tuple[float, float | None]:
    """The part [start, end) of the video to read, in seconds: nothing after `at`. Raises click.UsageError."""
    start = start or 0.0
    if end is not None and end <= start:
        raise click.UsageError(f"--end {format_time(end)} is not after --start {format_time(start)}.")
    if at is None:
        return start, end
    if at < start:
        raise click.UsageError(f"--at {format_time(at)} is before --start {format_time(start)}: nothing has been seen.")
    if end is not None and at > end:
        raise click.UsageError(f"--at {format_time(at)} is after --end {format_time(end)}: leave one of them out.")
    # `end` is exclusive, and what is shown at this time is seen too; the engine leaves out what is later.
    return start, at + 0.001
