"""Options that several commands share: times, files to write, settings that were given."""

import os
from pathlib import Path
from typing import Any

import click

from rekv.timecode import format_time, parse_time


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
