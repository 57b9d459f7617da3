"""OVO-Bench (arXiv 2501.05510): tracing back, seeing the present, and waiting for what is to come, kept apart.

The forward tasks are asked again and again while the answer comes up; their wording is ours, the meaning the
benchmark's.
"""

from collections.abc import Iterator
from pathlib import Path

from rekv.evaluation.datasets.base import Dataset, find_file, grouped
from rekv.evaluation.rows import Row, read_rows
from rekv.evaluation.schema import Question, Video

_BACKWARD = {"EPM", "ASI", "HLD"}
_FORWARD = {"REC", "SSR", "CRR"}

_COUNT = "How many times in all did people in the video {activity} so far? Answer with one number only."
_STEP = 'Is the person in the video doing this step of the task right now: "{step}"? Answer only Yes or No.'
_ENOUGH = (
    'Can this question be answered from what the video has shown so far: "{question}"? Look at the latest moments '
    "above all. Answer only Yes or No."
)


class OVOBench(Dataset):
    name = "ovobench"
    title = "OVO-Bench"
    annotations = "ovobench/ovo_bench.json"
    mode = "streaming"
    open_metric = "count"
    release = "ovo_bench_new.json"
    source = "https://github.com/JoeLeelyf/OVO-Bench"
    hub = ("JoeLeelyf/OVO-Bench", ("ovo_bench_new.json",))

    def convert(self, release: Path) -> list[Video]:
        return grouped(
            (row.text("video"), self.path(row.text("video")), None, question)
            for row in read_rows(find_file(release, "ovo_bench_new.json"))
            for question in _questions(row)
        )


def _questions(row: Row) -> Iterator[Question]:
    task = row.text("task")
    if task in _FORWARD:
        yield from (_forward(task, row, moment) for moment in row.rows("test_info"))
        return
    choices, place = row.texts("options"), row.number("gt")
    if place not in range(len(choices)):
        raise row.wrong("gt", f"is {place:g}; there are {len(choices)} options")
    group = "backward" if task in _BACKWARD else "real-time"
    yield Question(
        row.text("question"), choices[int(place)], tuple(choices), (f"{group}/{task}",), end=row.number("realtime")
    )


def _forward(task: str, row: Row, moment: Row) -> Question:
    if task == "REC":
        text, answer = _COUNT.format(activity=row.text("activity")), f"{moment.number('count'):g}"
    else:
        asked = moment.text("step") if task == "SSR" else row.text("question")
        text = _STEP.format(step=asked) if task == "SSR" else _ENOUGH.format(question=asked)
        answer = "Yes" if moment.number("type") else "No"
    return Question(text, answer, tasks=(f"forward/{task}",), end=moment.number("realtime"))
