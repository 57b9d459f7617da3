"""EgoTempo (arXiv 2503.13646): open-ended questions that take the whole clip to answer."""

from collections.abc import Iterator
from pathlib import Path

from rekv.evaluation.datasets.base import Dataset, find_file, grouped
from rekv.evaluation.rows import Row, read_json
from rekv.evaluation.schema import Question, Video


class EgoTempo(Dataset):
    name = "egotempo"
    title = "EgoTempo"
    annotations = "egotempo/test_oe.json"
    release = "egotempo_openQA.json"
    source = "https://github.com/google-research-datasets/egotempo"

    def convert(self, release: Path) -> list[Video]:
        return grouped(self._questions(find_file(release, "egotempo_openQA.json")))

    def _questions(self, file: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        for row in Row(read_json(file), str(file)).rows("annotations"):
            id = row.text("clip_id").removesuffix(".mp4")
            question = Question(row.text("question"), row.text("answer"), tasks=(row.text("question_type"),))
            yield id, self.path(f"{id}.mp4"), _duration(row, id), question


def _duration(row: Row, id: str) -> float:
    """Of a clip: its id is the video's, where it begins and where it ends, in seconds."""
    try:
        start, end = map(float, id.rsplit("_", 2)[1:])
    except ValueError as error:
        raise row.wrong("clip_id", f"is {id!r}; it must end in _START_END, in seconds") from error
    return end - start
