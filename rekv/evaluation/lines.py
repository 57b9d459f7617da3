"""Files of JSON lines that a process may be killed while writing: a last line without its end does not count."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rekv.errors import DataError

Line = dict[str, Any]


def read_lines(path: Path) -> list[Line]:
    """The whole lines; none if there is no file. Raises `DataError` if one is not JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; restore it, or begin anew with --fresh") from error
    try:
        return [json.loads(line) for line in text.split("\n")[:-1] if line]
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is damaged: {error}; restore it, or begin anew with --fresh") from error


def append_line(path: Path, line: Line) -> None:
    """Add a line; it is on disk when this returns. The file must end with a whole one."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_text(line))
        file.flush()
        os.fsync(file.fileno())


def replace_lines(path: Path, lines: Iterable[Line]) -> None:
    """Write a file as a whole, or not at all."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8") as file:
        file.writelines(map(_text, lines))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _text(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
