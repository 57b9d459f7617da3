"""QAEgo4D (Bärmann and Waibel, 2022), with the wrong answers of GroundVQA (arXiv 2312.06505): where did I put it?"""

import random
from collections.abc import Iterator
from pathlib import Path

from rekv.evaluation.datasets.base import Dataset, find_file, grouped
from rekv.evaluation.rows import Row, read_rows
from rekv.evaluation.schema import Question, Video

_FPS = 30  # of Ego4D's canonical clips, in which moments are given as frames


class QAEgo4D(Dataset):
    name = "qaego4d"
    title = "QAEgo4D test, multiple choice"
    annotations = "qaego4d/test_mc.json"
    release = "annotations.QaEgo4D_test.json with `wrong_answers`, as GroundVQA has it"
    source = "https://github.com/Becomebright/GroundVQA"

    def convert(self, release: Path) -> list[Video]:
        return grouped(self._questions(find_file(release, "annotations.QaEgo4D_test*.json", "*QaEgo4D*test*.json")))

    def _questions(self, file: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        for row in read_rows(file):
            id = row.text("video_id")
            start, end = row.number("moment_start_frame") / _FPS, row.number("moment_end_frame") / _FPS
            question = Question(
                row.text("question"), row.text("answer"), _choices(row), windows=((min(start, end), max(start, end)),)
            )
            yield id, self.path(f"{id}.mp4"), row.number("duration") if row.has("duration") else None, question


def _choices(row: Row) -> tuple[str, ...]:
    """The answers in an order drawn from the question's own id: the same whoever converts."""
    choices = [row.text("answer"), *row.texts("wrong_answers")]
    random.Random(row.text("sample_id")).shuffle(choices)
    return tuple(choices)
