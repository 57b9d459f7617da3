"""RVS-Ego and RVS-Movie, the online half of VStream-QA (arXiv 2406.08085): open-ended questions during a stream."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from rekv.evaluation.datasets.base import Dataset, find_file, grouped
from rekv.evaluation.rows import Row, read_rows
from rekv.evaluation.schema import Question, Video

_SHOT = re.compile(r"shot_(\d+)")  # MovieNet counts key frames, of which there is one a second here


class _RVS(Dataset):
    mode = "streaming"
    source = "https://huggingface.co/datasets/IVGSZ/VStream-QA"
    asked: ClassVar[str]
    clips: ClassVar[str]

    def convert(self, release: Path) -> list[Video]:
        folder = release if release.name == "vstream-realtime" else release / "vstream-realtime"
        folder = folder if folder.is_dir() else release
        return grouped(self._questions(find_file(folder, self.asked), find_file(folder, self.clips)))

    def _questions(self, asked: Path, clips: Path) -> Iterator[tuple[str, str, float | None, Question]]:
        cut = {row.text("video_id"): row for row in read_rows(clips)}
        for row in read_rows(asked):
            id = row.text("video_id")
            if id not in cut:
                raise row.wrong("video_id", f"is {id!r}, which {clips.name} does not list")
            first, last = (_time(cut[id], f"{which}_time", f"{which}_shot") for which in ("start", "end"))
            start, end = (_time(row, f"{which}_time") - first for which in ("start", "end"))
            if not 0 <= start <= end:
                raise row.wrong("start_time", f"and end_time are not within the clip, which begins at {first:g} s")
            tasks = (row.text("answer_type"),) if row.has("answer_type") else ()
            question = Question(row.text("question"), row.text("answer"), tasks=tasks, start=start, end=end)
            yield id, self.path(f"{id}.npy"), last - first, question


def _time(row: Row, *names: str) -> float:
    for name in names:
        value = row.raw(name)
        if isinstance(value, str) and (shot := _SHOT.search(value)):
            return float(shot[1])
    return row.seconds(*names)


class RVSEgo(_RVS):
    name = "rvs_ego"
    title = "RVS-Ego"
    annotations = "rvs/ego/ego4d_oe.json"
    release = "vstream-realtime/test_qa_ego4d.json and rvs_ego.json"
    hub = ("IVGSZ/VStream-QA", ("vstream-realtime/test_qa_ego4d.json", "vstream-realtime/rvs_ego.json"))
    asked, clips = "test_qa_ego4d.json", "rvs_ego.json"


class RVSMovie(_RVS):
    name = "rvs_movie"
    title = "RVS-Movie"
    annotations = "rvs/movie/movienet_oe.json"
    release = "vstream-realtime/test_qa_movienet.json and rvs_movie.json"
    hub = ("IVGSZ/VStream-QA", ("vstream-realtime/test_qa_movienet.json", "vstream-realtime/rvs_movie.json"))
    asked, clips = "test_qa_movienet.json", "rvs_movie.json"
