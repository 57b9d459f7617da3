"""LongVideoBench (arXiv 2407.15754), without subtitles: questions that refer to a moment of the video."""

from collections.abc import Iterator
from pathlib import Path

from rekv.evaluation.datasets.base import Dataset, find_file, grouped
from rekv.evaluation.rows import Row, read_rows
from rekv.evaluation.schema import Question, Video


class LongVideoBench(Dataset):
    name = "longvideobench"
    title = "LongVideoBench validation, without subtitles"
    annotations = "longvideobench/val_mc.json"
    release = "lvb_val.json"
    source = "https://huggingface.co/datasets/longvideobench/LongVideoBench"
    hub = ("longvideobench/LongVideoBench", ("lvb_val.json",))

    def convert(self, release: Path) -> list[Video]:
        return grouped(self._questions(find_file(release, "lvb_val.json", "lvb_test*.json")))

    def _questions(self, file: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        for row in read_rows(file):
            choices = tuple(row.texts("candidates"))
            task = f"{row.text('duration_group')} s/{row.text('question_category')}"
            question = Question(row.text("question"), _answer(row, choices), choices, (task,))
            yield row.text("video_id"), self.path(row.text("video_path")), row.number("duration"), question


def _answer(row: Row, choices: tuple[str, ...]) -> str | None:
    """None in the test set, whose answers are not published."""
    if not row.has("correct_choice"):
        return None
    place = row.number("correct_choice")
    if place not in range(len(choices)):
        raise row.wrong("correct_choice", f"is {place:g}; there are {len(choices)} candidates")
    return choices[int(place)]
