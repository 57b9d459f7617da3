"""LVBench (arXiv 2406.08035): films and recordings of an hour and more."""

import re
from collections.abc import Iterator
from pathlib import Path

from rekv.evaluation.datasets.base import Dataset, find_file, grouped, lettered, unlettered
from rekv.evaluation.rows import Row, read_rows
from rekv.evaluation.schema import Question, Video
from rekv.timecode import parse_time

_OPTION = re.compile(r"\n\s*(?=\([A-Z]\))")
_SPAN = re.compile(r"([\d:.]+)\s*-\s*([\d:.]+)")


class LVBench(Dataset):
    name = "lvbench"
    title = "LVBench"
    annotations = "lvbench/test_mc.json"
    release = "video_info.meta.jsonl"
    source = "https://huggingface.co/datasets/zai-org/LVBench"
    hub = ("zai-org/LVBench", ("video_info.meta.jsonl",))

    def convert(self, release: Path) -> list[Video]:
        return grouped(self._questions(find_file(release, "video_info.meta.jsonl")))

    def _questions(self, file: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        for entry in read_rows(file):
            id = entry.text("key")
            info = entry.row("video_info") if entry.has("video_info") else entry
            duration = info.number("duration_minutes") * 60 if info.has("duration_minutes") else None
            for row in entry.rows("qa"):
                yield id, self.path(f"{id}.mp4"), duration, _question(row)


def _question(row: Row) -> Question:
    text, *options = _OPTION.split(row.text("question"))
    if len(options) < 2:
        raise row.wrong("question", 'has no options; they are lines that begin with "(A)", "(B)", ...')
    choices = unlettered(options)
    return Question(
        text.strip(),
        lettered(row, row.text("answer"), choices, "answer"),
        tuple(choices),
        tuple(row.texts("question_type")),
        _windows(row),
    )


def _windows(row: Row) -> tuple[tuple[float, float], ...]:
    """The spans of `time_reference`, such as 00:15-00:19; a moment without an end is none."""
    windows = []
    for start, end in _SPAN.findall(row.text("time_reference")) if row.has("time_reference") else ():
        try:
            span = parse_time(start), parse_time(end)
        except ValueError as error:
            raise row.wrong("time_reference", str(error)) from error
        windows.append((min(span), max(span)))
    return tuple(windows)
