"""The published layout: what is read, and how what is malformed is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from rekv.errors import DataError
from rekv.evaluation.schema import Question, Video, parse, read, write
from tests.evaluation.conftest import annotate


def entry(**changes: Any) -> dict[str, Any]:
    question = {"question": "What is red?", "answer": "a ball", **changes}
    return {"video_id": "v1", "video_path": "data/x/videos/v1.mp4", "duration": 12, "conversations": [question]}


def test_all_fields_of_the_published_layout(tmp_path: Path) -> None:
    told = {
        "choices": ["a ball", "a car"],
        "question_type": "plotQA",
        "temporal_windows": [[1, 2.5], [7, 8]],
        "start_time": 3,
        "end_time": 9,
    }
    (video,) = read(annotate(tmp_path / "a.json", [entry(**told)]))
    assert video.duration == 12.0
    assert video.questions == (
        Question("What is red?", "a ball", ("a ball", "a car"), ("plotQA",), ((1.0, 2.5), (7.0, 8.0)), 3.0, 9.0),
    )


def test_types_of_the_published_files(tmp_path: Path) -> None:
    """ActivityNet-QA numbers its types, EgoSchema has no answers."""
    videos = read(annotate(tmp_path / "a.json", [entry(question_type=3), entry(answer=None, choices=["x", "y"])]))
    assert videos[0].questions[0].tasks == ("3",)
    assert videos[1].questions[0].answer is None
    (mlvu,) = read(annotate(tmp_path / "b.json", [entry(choices=["a ball", "", "a car"])]))
    assert mlvu.questions[0].choices == ("a ball", "", "a car"), "one of MLVU's options is empty"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"question": ""}, "question is empty"),
        ({"question": ["a"]}, "question is a list"),
        ({"answer": "a dog", "choices": ["a ball", "a car"]}, "answer is 'a dog', which is not among the choices"),
        ({"choices": "a ball"}, "choices is 'a ball'; it must be a list"),
        ({"choices": ["a ball"]}, "choices has 1 entries"),
        ({"choices": ["a ball", None]}, "choices is missing"),
        ({"temporal_windows": [[3, 1]]}, "temporal_windows holds [3, 1]"),
        ({"temporal_windows": [[1, "x"]]}, "temporal_windows is 'x'; it must be a number"),
        ({"temporal_windows": [4]}, "temporal_windows holds 4"),
        ({"end_time": "soon"}, "end_time is 'soon'"),
        ({"start_time": 5, "end_time": 2}, "end_time is 2"),
        ({"end_time": float("nan")}, "end_time is nan"),
    ],
)
def test_malformed_questions_are_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    path = annotate(tmp_path / "a.json", [entry(), entry(**changes)])
    with pytest.raises(DataError) as raised:
        read(path)
    assert f"{path}: video 1 (v1), question 0: {field}" in str(raised.value)


def test_every_malformed_entry_is_listed(tmp_path: Path) -> None:
    broken = [{"video_id": "x"}, entry(question=None), 7, entry(), {**entry(), "conversations": []}]
    videos, problems = parse(broken, "a.json")
    assert [video.index for video in videos if video.questions] == [3]
    assert [problem.split(":")[1].split(" (")[0] for problem in problems] == [f" video {i}" for i in (0, 1, 2, 4)]
    assert "conversations" in problems[0] + problems[3]


def test_an_answer_must_be_there_or_null(tmp_path: Path) -> None:
    broken = entry()
    del broken["conversations"][0]["answer"]
    with pytest.raises(DataError, match="answer is missing; write null"):
        read(annotate(tmp_path / "a.json", [broken]))


@pytest.mark.parametrize("text", ["", "{", "\xff", "[]", "{}"])
def test_files_that_are_no_benchmark(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.json"):
        read(path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    videos = [
        Video(
            0,
            "ä",
            "data/x/ä.mp4",
            3.5,
            (Question("q", "a", ("a", "b"), ("one", "two"), ((0.0, 1.0),), 0.0, 2.0), Question("r", None)),
        ),
        Video(1, "b", "b.npy", None, (Question("s", "t"),)),
    ]
    write(videos, tmp_path / "below" / "a.json")
    assert read(tmp_path / "below" / "a.json") == videos
    first = json.loads((tmp_path / "below" / "a.json").read_text())[1]["conversations"][0]
    assert set(first) == {"question", "answer"}
