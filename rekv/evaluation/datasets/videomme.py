"""Video-MME (arXiv 2405.21075), without subtitles: short, medium and long videos."""

from collections.abc import Iterator
from pathlib import Path

from rekv.evaluation.datasets.base import Dataset, find_file, grouped, lettered, unlettered
from rekv.evaluation.rows import read_rows
from rekv.evaluation.schema import Question, Video


class VideoMME(Dataset):
    name = "videomme"
    title = "Video-MME without subtitles"
    annotations = "videomme/test_mc.json"
    release = "its table: test-00000-of-00001.parquet, or the same as .json or .jsonl"
    source = "https://huggingface.co/datasets/lmms-lab/Video-MME"
    hub = ("lmms-lab/Video-MME", ("videomme/*.parquet",))

    def convert(self, release: Path) -> list[Video]:
        return grouped(self._questions(find_file(release, "test*.parquet", "*.jsonl", "*.json")))

    def _questions(self, file: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        for row in read_rows(file):
            id, choices = row.text("videoID"), unlettered(row.texts("options"))
            question = Question(
                row.text("question"),
                lettered(row, row.text("answer"), choices, "answer"),
                tuple(choices),
                (f"{row.text('duration')}/{row.text('task_type')}",),
            )
            yield id, self.path(f"{id}.mp4"), None, question
