"""EgoSchema (arXiv 2308.09126): three minutes of egocentric video each. Most answers are known to its server only."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rekv.errors import DataError
from rekv.evaluation.datasets.base import Dataset, find_file, grouped
from rekv.evaluation.rows import kind, read_json, read_rows
from rekv.evaluation.schema import Question, Video

_OPTIONS = 5


class EgoSchema(Dataset):
    name = "egoschema"
    title = "EgoSchema, full set"
    annotations = "egoschema/full.json"
    submission = True
    release = "questions.json, and subset_answers.json if there is one"
    source = "https://github.com/egoschema/EgoSchema"

    def convert(self, release: Path) -> list[Video]:
        file = find_file(release, "questions.json")
        answers = file.parent / "subset_answers.json"
        known = read_json(answers) if answers.exists() else {}
        if not isinstance(known, Mapping):
            raise DataError(f"{answers}: is {kind(known)}; it must be an object of question ids")
        return grouped(self._questions(file, known))

    def _questions(self, file: Path, known: Mapping[str, Any]) -> Iterator[tuple[str, str, float | None, Question]]:
        for row in read_rows(file):
            id = row.text("q_uid")
            choices = tuple(row.text(f"option {i}") for i in range(_OPTIONS))
            place = known.get(id)
            if place is not None and place not in range(_OPTIONS):
                raise row.wrong("answer", f"is {kind(place)}; it must be a number from 0 to {_OPTIONS - 1}")
            answer = None if place is None else choices[place]
            yield id, self.path(f"{id}.mp4"), 180.0, Question(row.text("question"), answer, choices)
