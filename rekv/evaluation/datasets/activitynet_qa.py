"""ActivityNet-QA (arXiv 1906.02467): short open-ended questions about clips of human activities."""

from collections.abc import Iterator
from pathlib import Path

from rekv.evaluation.datasets.base import Dataset, find_file, grouped
from rekv.evaluation.rows import read_rows
from rekv.evaluation.schema import Question, Video


class ActivityNetQA(Dataset):
    name = "activitynet_qa"
    title = "ActivityNet-QA test"
    annotations = "activitynet_qa/test.json"
    release = "test_q.json and test_a.json"
    source = "https://github.com/MILVLG/activitynet-qa"

    def convert(self, release: Path) -> list[Video]:
        return grouped(self._questions(find_file(release, "test_q.json"), find_file(release, "test_a.json")))

    def _questions(self, asked: Path, answered: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        answers = {row.text("question_id"): row for row in read_rows(answered)}
        for row in read_rows(asked):
            key = row.text("question_id")
            if key not in answers:
                raise row.wrong("question_id", f"is {key!r}, which {answered.name} does not answer")
            answer, id = answers[key], f"v_{row.text('video_name')}"
            question = Question(row.text("question"), answer.text("answer"), tasks=(answer.text("type"),))
            yield id, self.path(f"{id}.mp4"), None, question
