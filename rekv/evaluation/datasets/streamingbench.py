"""StreamingBench (arXiv 2411.03628): multiple-choice questions, each asked at its moment of a stream.

"Proactive Output", which asks a model to speak up by itself, is not part of it here, and nothing is heard: figures of
the omni-source tasks are those of a model that only sees.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rekv.errors import DataError
from rekv.evaluation.datasets.base import Dataset, grouped, lettered, unlettered
from rekv.evaluation.rows import Row, read_json
from rekv.evaluation.schema import Question, Video

_CONTEXT = {"Misleading Context Understanding", "Anomaly Context Understanding", "Sequential Question Answering"}
_OMNI = {"Emotion Recognition", "Scene Understanding", "Source Discrimination", "Multimodal Alignment"}


class StreamingBench(Dataset):
    name = "streamingbench"
    title = "StreamingBench"
    annotations = "streamingbench/test_mc.json"
    mode = "streaming"
    release = "questions_real.json, questions_omni.json and questions_sqa.json, or some of them"
    source = "https://github.com/THUNLP-MT/StreamingBench"

    def convert(self, release: Path) -> list[Video]:
        found = [f for name in ("real", "omni", "sqa") for f in sorted(release.rglob(f"questions_{name}.json"))[:1]]
        if not found:
            raise DataError(f"{release} holds no questions_real.json; name the folder `src/data` of the release")
        return grouped(question for file in found for question in self._questions(file))

    def _questions(self, file: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        for entry in _entries(read_json(file), str(file)):
            video = PurePosixPath(entry.text("video_path")).name
            for row in entry.rows("questions"):
                if not row.has("options"):
                    continue
                choices = unlettered(row.texts("options"))
                task = row.text("task_type")
                question = Question(
                    row.text("question"),
                    lettered(row, row.text("answer"), choices, "answer"),
                    tuple(choices),
                    (f"{_group(task)}/{task}",),
                    end=_seconds(row),
                )
                yield PurePosixPath(video).stem, self.path(video), None, question


def _entries(document: object, where: str) -> Iterator[Row]:
    """Clips of a video, one after the other; sequential questions come in a list per video."""
    if isinstance(document, list):
        for i, part in enumerate(document):
            yield from _entries(part, f"{where}: entry {i}" if ": entry " not in where else f"{where}.{i}")
    else:
        yield Row(document, where)


def _seconds(row: Row) -> float:
    """The benchmark's own reading of its times, some of which are odd: "00:12450" is 12450 seconds."""
    try:
        parts = [int(part) for part in row.text("time_stamp").split(":")]
    except ValueError as error:
        raise row.wrong("time_stamp", f"is {row.text('time_stamp')!r}; it must be like 00:01:30") from error
    return float(sum(part * 60**i for i, part in enumerate(reversed(parts))))


def _group(task: str) -> str:
    if task in _CONTEXT:
        return "contextual"
    return "omni-source" if task in _OMNI else "real-time"
