"""A benchmark as the harness reads it: videos, each with the questions about it, in the published JSON layout.

    [{"video_id", "video_path", "duration",
      "conversations": [{"question", "answer", "choices"?, "question_type"?, "temporal_windows"?: [[start, end], ...],
                         "start_time"?, "end_time"?}]}]

Times are in seconds of the video. `answer` may be null where it is not published.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekv.errors import DataError
from rekv.evaluation.rows import Row, kind, read_json

MOST_CHOICES = 26  # they are lettered
_SHOWN = 5  # problems that a message lists


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a video."""

    text: str
    answer: str | None  # None: not published
    choices: tuple[str, ...] = ()  # empty: open-ended
    tasks: tuple[str, ...] = ()  # what it is counted under besides; "group/task" where a benchmark has groups
    windows: tuple[tuple[float, float], ...] = ()  # seconds that show the answer
    start: float | None = None  # seconds: what it is about begins
    end: float | None = None  # seconds: when it is asked, in streaming mode


@dataclass(frozen=True, slots=True)
class Video:
    """A video and its questions: the unit of work, and of resuming."""

    index: int  # in its benchmark
    id: str
    path: str  # as it is written there
    duration: float | None  # seconds
    questions: tuple[Question, ...]


def read(path: Path) -> list[Video]:
    """Read a benchmark. Raises `DataError` that names each malformed entry with file, index and field."""
    videos, problems = parse(read_json(path), str(path))
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{len(problems)} malformed entries:\n" + "\n".join(problems[:_SHOWN]) + more + "\nCorrect or remove them."
        )
    if not videos:
        raise DataError(f"{path} lists no video; is it the right file?")
    return videos


def parse(document: object, name: str) -> tuple[list[Video], list[str]]:
    """The videos of a document, and what is wrong with it, one line each; `name` is its file's."""
    if not isinstance(document, list):
        return [], [f"{name}: is {kind(document)}; it must be a list of videos"]
    videos, problems = [], []
    for index, entry in enumerate(document):
        try:
            video, wrong = _video(index, Row(entry, f"{name}: video {index}"))
        except DataError as error:
            problems.append(str(error))
            continue
        videos.append(video)
        problems += wrong
    return videos, problems


def _video(index: int, row: Row) -> tuple[Video, list[str]]:
    id = row.text("video_id")
    questions, problems = [], []
    for i, conversation in enumerate(_conversations(row)):
        try:
            questions.append(_question(Row(conversation, f"{row.where} ({id}), question {i}")))
        except DataError as error:
            problems.append(str(error))
    duration = row.number("duration") if row.has("duration") else None
    return Video(index, id, row.text("video_path"), duration, tuple(questions)), problems


def _conversations(row: Row) -> list[Any]:
    found = row.raw("conversations")
    if not isinstance(found, list) or not found:
        raise row.wrong("conversations", f"is {kind(found)}; it must be a list of at least one question")
    return found


def _question(row: Row) -> Question:
    text = row.text("question")
    answer = row.text("answer") if row.has("answer") else None
    choices = tuple(row.texts("choices")) if row.has("choices") else ()
    if row.has("choices") and not 2 <= len(choices) <= MOST_CHOICES:
        raise row.wrong("choices", f"has {len(choices)} entries; there must be 2 to {MOST_CHOICES}")
    if choices and answer is not None and answer not in choices:
        raise row.wrong("answer", f"is {answer!r}, which is not among the choices")
    if not row.has("answer") and not row.has_name("answer"):
        raise row.wrong("answer", "is missing; write null where it is not published")
    start, end = (row.number(name) if row.has(name) else None for name in ("start_time", "end_time"))
    if end is not None and end < max(start or 0.0, 0.0):
        raise row.wrong("end_time", f"is {end:g}; it must not be before start_time or 0")
    return Question(text, answer, choices, _tasks(row), _windows(row), start, end)


def _tasks(row: Row) -> tuple[str, ...]:
    if not row.has("question_type"):
        return ()
    if isinstance(row.raw("question_type"), list):
        return tuple(row.texts("question_type"))
    return (row.text("question_type"),)


def _windows(row: Row) -> tuple[tuple[float, float], ...]:
    return tuple(row.spans("temporal_windows")) if row.has("temporal_windows") else ()


def write(videos: Sequence[Video], path: Path) -> None:
    """Write a benchmark, so that `read` gives the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = [
        {
            "video_id": video.id,
            "video_path": video.path,
            "duration": video.duration,
            "conversations": [_entry(question) for question in video.questions],
        }
        for video in videos
    ]
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _entry(question: Question) -> dict[str, Any]:
    optional = {
        "choices": list(question.choices),
        "question_type": question.tasks[0] if len(question.tasks) == 1 else list(question.tasks),
        "temporal_windows": [list(window) for window in question.windows],
        "start_time": question.start,
        "end_time": question.end,
    }
    given = {name: value for name, value in optional.items() if value not in ([], None)}
    return {"question": question.text, "answer": question.answer, **given}
