"""MLVU (arXiv 2406.04264): long videos of many kinds; its multiple-choice tasks, as the paper uses them."""

from collections.abc import Iterator
from pathlib import Path

from rekv.errors import DataError
from rekv.evaluation.datasets.base import Dataset, grouped
from rekv.evaluation.rows import read_rows
from rekv.evaluation.schema import Question, Video


class MLVU(Dataset):
    name = "mlvu"
    title = "MLVU dev, multiple choice"
    annotations = "mlvu/dev_debug_mc.json"
    release = "its folder `json/`, one file per task: 1_plotQA.json, ..."
    source = "https://huggingface.co/datasets/MLVU/MVLU"
    hub = ("MLVU/MVLU", ("MLVU/json/*.json",))

    def convert(self, release: Path) -> list[Video]:
        files = sorted(release.rglob("[0-9]*_*.json"))
        if not files:
            raise DataError(f"{release} holds no files of MLVU such as 1_plotQA.json; name the folder that does")
        return grouped(row for file in files for row in self._questions(file))

    def _questions(self, file: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        for row in read_rows(file):
            if not row.has("candidates"):
                continue  # open-ended tasks: scene captions, summaries
            video = row.text("video")
            question = Question(
                row.text("question"),
                row.text("answer"),
                tuple(row.texts("candidates")),
                (row.text("question_type"),),
            )
            yield Path(video).stem, self.path(f"{file.stem}/{video}"), row.number("duration"), question
