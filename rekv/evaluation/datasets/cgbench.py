"""CG-Bench (arXiv 2412.12075): long videos, multiple choice, with the spans that show each answer."""

from collections.abc import Iterator
from pathlib import Path

from rekv.evaluation.datasets.base import Dataset, find_file, grouped, lettered
from rekv.evaluation.rows import read_rows
from rekv.evaluation.schema import Question, Video


class CGBench(Dataset):
    name = "cgbench"
    title = "CG-Bench, multiple choice"
    annotations = "cgbench/full_mc.json"
    release = "cgbench.json"
    source = "https://huggingface.co/datasets/CG-Bench/CG-Bench"
    hub = ("CG-Bench/CG-Bench", ("cgbench.json",))

    def convert(self, release: Path) -> list[Video]:
        return grouped(self._questions(find_file(release, "cgbench.json")))

    def _questions(self, file: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        for row in read_rows(file):
            id, choices = row.text("video_uid"), row.texts("choices")
            answer = row.text("answer") if row.has("answer") else ""
            if answer not in choices:
                answer = lettered(row, row.text("right_answer"), choices, "right_answer")
            question = Question(
                row.text("question"),
                answer,
                tuple(choices),
                (row.text("sub_category"),) if row.has("sub_category") else (),
                tuple(row.spans("clue_intervals")) if row.has("clue_intervals") else (),
            )
            yield id, self.path(f"{id}.mp4"), row.number("duration"), question
