"""Reading JSON that others wrote: every value is taken by name and type, and what is wrong is named with its place."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rekv.errors import DataError
from rekv.timecode import parse_time


class Row:
    """One JSON object. Each method takes the first of the given names that is there and not null.

    Raises `DataError` that names the file, the entry and the field, if it is of another kind, or missing.
    """

    def __init__(self, data: object, where: str) -> None:
        """`where` is the file and the entry, as messages call them."""
        self.where = where
        if not isinstance(data, Mapping):
            raise DataError(f"{where}: is {kind(data)}; it must be an object")
        self._data = data

    def has(self, *names: str) -> bool:
        return any(self._data.get(name) is not None for name in names)

    def has_name(self, name: str) -> bool:
        """Whether there is such a field, null or not."""
        return name in self._data

    def raw(self, name: str) -> Any:
        """The value as it is; None if it is missing."""
        return self._data.get(name)

    def text(self, *names: str, default: str | None = None) -> str:
        """Words; numbers are taken for them."""
        name, value = self._take(names, default)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.wrong(name, f"is {kind(value)}; it must be text")
        if not str(value).strip() and default is None:
            raise self.wrong(name, "is empty")
        return str(value)

    def number(self, *names: str, default: float | None = None) -> float:
        name, value = self._take(names, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, f"is {kind(value)}; it must be a number")
        return float(value)

    def seconds(self, *names: str) -> float:
        """A time: a number, or text such as 00:01:30."""
        name, value = self._take(names, None)
        if isinstance(value, str):
            try:
                return parse_time(value)
            except ValueError as error:
                raise self.wrong(name, str(error)) from error
        return self.number(name)

    def texts(self, *names: str) -> list[str]:
        """A list of words, or of numbers; words may be empty, as one of MLVU's options is."""
        return ["" if value == "" else Row({name: value}, self.where).text(name) for name, value in self._items(names)]

    def spans(self, *names: str) -> list[tuple[float, float]]:
        """A list of [start, end], in seconds."""
        spans = []
        for name, value in self._items(names):
            if not isinstance(value, list | tuple) or len(value) != 2:
                raise self.wrong(name, f"holds {kind(value)}; it must hold pairs [start, end]")
            start, end = (Row({name: part}, self.where).number(name) for part in value)
            if not 0 <= start <= end:
                raise self.wrong(
                    name, f"holds [{start:g}, {end:g}]; a span starts at 0 or later and does not end before"
                )
            spans.append((start, end))
        return spans

    def rows(self, *names: str) -> list["Row"]:
        """A list of objects."""
        return [Row(value, f"{self.where}, {name} {i}") for i, (name, value) in enumerate(self._items(names))]

    def row(self, *names: str) -> "Row":
        name, value = self._take(names, None)
        return Row(value, f"{self.where}, {name}")

    def wrong(self, name: str, what: str) -> DataError:
        """What to raise about a field."""
        return DataError(f"{self.where}: {name} {what}")

    def _items(self, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        name, value = self._take(names, None)
        if not isinstance(value, list | tuple):
            raise self.wrong(name, f"is {kind(value)}; it must be a list")
        return ((name, item) for item in value)

    def _take(self, names: tuple[str, ...], default: object) -> tuple[str, Any]:
        for name in names:
            if self._data.get(name) is not None:
                return name, self._data[name]
        if default is not None:
            return names[0], default
        raise self.wrong(" or ".join(names), "is missing")


def kind(value: object) -> str:
    """A value, as messages call it."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, Mapping):
        return "an object"
    return repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:37]}..."


def read_json(path: Path) -> Any:
    """Raises `DataError` if there is no such file, or it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}; was it downloaded whole?") from error


def read_rows(path: Path) -> list[Row]:
    """A file of one list (.json), one object a line (.jsonl), or a table (.parquet, which needs pyarrow)."""
    if path.suffix == ".jsonl":
        entries = [_line(path, number, text) for number, text in enumerate(_lines(path), 1) if text.strip()]
    elif path.suffix == ".parquet":
        entries = _table(path)
    else:
        entries = read_json(path)
        if not isinstance(entries, list):
            raise DataError(f"{path}: is {kind(entries)}; it must be a list")
    return [Row(entry, f"{path}: entry {i}") for i, entry in enumerate(entries)]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _line(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {number} is not JSON: {error}; was it downloaded whole?") from error


def _table(path: Path) -> list[Any]:
    try:
        from pyarrow import parquet  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise DataError(f"{path} is a Parquet table: install pyarrow (pip install pyarrow) to read it") from error
    try:
        rows: list[Any] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    return rows
