"""Each benchmark's original release, in small, becomes the schema; what is malformed is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rekv.cli import main
from rekv.errors import ConfigError, DataError
from rekv.evaluation.datasets import find, names
from rekv.evaluation.schema import Question, Video, read, write
from tests.evaluation.conftest import noise
from tests.support import install


def convert(name: str, folder: Path, files: dict[str, Any]) -> list[Video]:
    """Write a release, convert it, and read back what `rekv data prepare` would write."""
    for file, content in files.items():
        path = folder / "release" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    dataset = find(name)
    videos = dataset.convert(folder / "release")
    write(videos, folder / dataset.annotations)
    assert read(folder / dataset.annotations) == videos
    return videos


def test_mlvu(tmp_path: Path) -> None:
    row = {
        "video": "movie101_66.mp4",
        "duration": 246,
        "question": "What color is the coat?",
        "candidates": ["Yellow", "Red", "Green", "Blue"],
        "answer": "Yellow",
        "question_type": "plotQA",
    }
    summary = {"video": "s.mp4", "duration": 9, "question": "Summarise.", "answer": "...", "question_type": "summary"}
    files = {"json/1_plotQA.json": [row, {**row, "question": "Who?"}], "json/9_summary.json": [summary]}
    (video,) = convert("mlvu", tmp_path, files)
    assert (video.id, video.path) == ("movie101_66", "data/mlvu/videos/1_plotQA/movie101_66.mp4")
    assert video.questions[0] == Question(row["question"], "Yellow", tuple(row["candidates"]), ("plotQA",))
    assert len(video.questions) == 2


def test_qaego4d(tmp_path: Path) -> None:
    row = {
        "video_id": "c1",
        "sample_id": "c1_0",
        "question": "Where did I put the cup?",
        "answer": "on the table",
        "wrong_answers": ["in the sink", "on the shelf", "in the bag"],
        "moment_start_frame": 300,
        "moment_end_frame": 390,
    }
    (video,) = convert("qaego4d", tmp_path, {"annotations.QaEgo4D_test.json": [row]})
    (question,) = video.questions
    assert sorted(question.choices) == sorted(["on the table", *row["wrong_answers"]])
    assert question.windows == ((10.0, 13.0),)
    again = find("qaego4d").convert(tmp_path / "release")
    assert again[0].questions[0].choices == question.choices, "the order of choices does not change"


def test_egoschema(tmp_path: Path) -> None:
    row = {"q_uid": "u1", "google_drive_id": "g", "question": "What is C doing?"}
    row |= {f"option {i}": f"thing {i}" for i in range(5)}
    questions = [row, {**row, "q_uid": "u2"}]
    videos = convert("egoschema", tmp_path, {"questions.json": questions, "subset_answers.json": {"u1": 3}})
    assert [video.questions[0].answer for video in videos] == ["thing 3", None]
    assert videos[1].path == "data/egoschema/videos/u2.mp4"


def test_activitynet_qa(tmp_path: Path) -> None:
    asked = [{"video_name": "1QIUV7WYKXg", "question": "is the athlete running", "question_id": "v_1QIUV7WYKXg_1"}]
    answered = [{"answer": "yes", "type": 3, "question_id": "v_1QIUV7WYKXg_1"}]
    (video,) = convert("activitynet_qa", tmp_path, {"test_q.json": asked, "test_a.json": answered})
    assert video.path == "data/activitynet_qa/videos/v_1QIUV7WYKXg.mp4"
    assert video.questions == (Question("is the athlete running", "yes", tasks=("3",)),)


@pytest.mark.parametrize("answer", [{"answer": "two", "right_answer": "B"}, {"right_answer": "B"}])
def test_cgbench(tmp_path: Path, answer: dict[str, str]) -> None:
    row = {
        "qid": 1,
        "video_uid": "abc",
        "question": "How many?",
        "choices": ["one", "two", "three"],
        "clue_intervals": [[10, 20], [30, 31]],
        "duration": 1800,
        "sub_category": "counting",
        **answer,
    }
    (video,) = convert("cgbench", tmp_path, {"cgbench.json": [row]})
    assert video.duration == 1800.0
    assert video.questions[0] == Question(
        "How many?", "two", ("one", "two", "three"), ("counting",), ((10.0, 20.0), (30.0, 31.0))
    )


def test_rvs_times_count_from_where_the_clip_begins(tmp_path: Path) -> None:
    clips = [{"video_id": "e1", "original_video": "o", "start_time": 600, "end_time": 4200}]
    asked = {"id": 7, "video_id": "e1", "question": "What now?", "answer": "a cup", "answer_type": "scene"}
    files = {"vstream-realtime/rvs_ego.json": clips}
    files["vstream-realtime/test_qa_ego4d.json"] = [{**asked, "start_time": 610, "end_time": 660}]
    (video,) = convert("rvs_ego", tmp_path, files)
    assert (video.path, video.duration) == ("data/rvs/ego/videos/e1.npy", 3600.0)
    assert video.questions == (Question("What now?", "a cup", tasks=("scene",), start=10.0, end=60.0),)


def test_rvs_movie_counts_shots(tmp_path: Path) -> None:
    clips = [{"video_id": "m1", "start_shot": "shot_0100", "end_shot": "shot_0400"}]
    asked = {"id": 7, "video_id": "m1", "question": "Who?", "answer": "him"}
    files = {"rvs_movie.json": clips}
    files["test_qa_movienet.json"] = [{**asked, "start_time": "shot_0110", "end_time": "shot_0130"}]
    (video,) = convert("rvs_movie", tmp_path, files)
    assert (video.questions[0].start, video.questions[0].end) == (10.0, 30.0)


def test_streamingbench(tmp_path: Path) -> None:
    real = {
        "task_type": "Object Recognition",
        "question": "What is on the table right now?",
        "time_stamp": "00:01:30",
        "answer": "B",
        "options": ["A. A cup.", "B. A map.", "C. A hat.", "D. Nothing."],
    }
    odd = {**real, "time_stamp": "00:12450"}
    sequential = {**real, "task_type": "Sequential Question Answering", "options": ["Two.", "Six.", "Seven.", "Four."]}
    proactive = {"task_type": "Proactive Output", "question": "Say it.", "time_stamp": "00:00:20"}

    def clip(path: str, *questions: dict[str, Any]) -> dict[str, Any]:
        return {"time": "[0:00:00 - 0:02:00]", "video_path": path, "questions": list(questions)}

    files: dict[str, Any] = {
        "questions_real.json": [
            clip("./videos/sample_1_real.mp4", real),
            clip("./videos/sample_1_real.mp4", proactive),
        ],
        "questions_sqa.json": [[clip("./videos/sample_9_sqa.mp4", sequential)]],
    }
    files["questions_omni.json"] = [clip("./videos/sample_2.mp4", odd)]
    first, third, second = convert("streamingbench", tmp_path, files)
    assert third.questions[0].end == 12450.0
    assert first.path == "data/streamingbench/videos/sample_1_real.mp4"
    assert first.questions == (
        Question(
            real["question"],
            "A map.",
            ("A cup.", "A map.", "A hat.", "Nothing."),
            ("real-time/Object Recognition",),
            end=90.0,
        ),
    )
    assert second.questions[0].tasks == ("contextual/Sequential Question Answering",)
    assert second.questions[0].answer == "Six."


def test_ovobench_keeps_its_three_parts_apart(tmp_path: Path) -> None:
    common = {"video": "COIN/a.mp4", "question": "What?", "options": ["x", "y"], "gt": 1, "realtime": 88.4}
    moments = {"test_info": [{"realtime": 26, "step": "cut", "type": 0}, {"realtime": 30, "step": "cut", "type": 1}]}
    counted = {"activity": "jump", "test_info": [{"realtime": 17, "count": 2}]}
    rows = [
        {"id": 0, "task": "EPM", **common},
        {"id": 1, "task": "OCR", **common},
        {"id": 2, "task": "SSR", "video": "COIN/a.mp4", **moments},
        {"id": 3, "task": "REC", "video": "COIN/a.mp4", **counted},
        {"id": 4, "task": "CRR", "video": "b.mp4", "question": "Why?", "test_info": [{"realtime": 5, "type": 1}]},
    ]
    first, second = convert("ovobench", tmp_path, {"ovo_bench_new.json": rows})
    assert first.path == "data/ovobench/videos/COIN/a.mp4"
    assert [q.tasks for q in first.questions] == [
        ("backward/EPM",),
        ("real-time/OCR",),
        ("forward/SSR",),
        ("forward/SSR",),
        ("forward/REC",),
    ]
    assert [(q.answer, q.end) for q in first.questions] == [
        ("y", 88.4),
        ("y", 88.4),
        ("No", 26.0),
        ("Yes", 30.0),
        ("2", 17.0),
    ]
    assert "jump" in first.questions[4].text
    assert "Why?" in second.questions[0].text


def test_videomme(tmp_path: Path) -> None:
    row = {
        "video_id": "001",
        "videoID": "fFjv93ACGo8",
        "duration": "short",
        "task_type": "Counting Problem",
        "question": "How many?",
        "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. Equal."],
        "answer": "C",
    }
    (video,) = convert("videomme", tmp_path, {"test.jsonl": json.dumps(row) + "\n" + json.dumps(row) + "\n"})
    assert video.path == "data/videomme/videos/fFjv93ACGo8.mp4"
    assert video.questions[0].answer == "Berries."
    assert video.questions[0].tasks == ("short/Counting Problem",)
    assert len(video.questions) == 2


def test_lvbench(tmp_path: Path) -> None:
    qa = {
        "uid": "0",
        "question": "What year is it?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633",
        "answer": "D",
        "question_type": ["key information retrieval", "reasoning"],
        "time_reference": "00:15-00:19",
    }
    entry = {"key": "Cm73ma6Ibcs", "type": "cartoon", "video_info": {"duration_minutes": 60}, "qa": [qa]}
    (video,) = convert("lvbench", tmp_path, {"video_info.meta.jsonl": json.dumps(entry)})
    assert video.duration == 3600.0
    assert video.questions == (
        Question(
            "What year is it?",
            "1633",
            ("1636", "1366", "1363", "1633"),
            ("key information retrieval", "reasoning"),
            ((15.0, 19.0),),
        ),
    )


def test_longvideobench(tmp_path: Path) -> None:
    row = {
        "id": "x_0",
        "video_id": "x",
        "video_path": "x.mp4",
        "question": "In the frame with ..., what?",
        "candidates": ["a", "b", "c", "d"],
        "correct_choice": 1,
        "duration_group": 600,
        "question_category": "T2E",
        "duration": 500.2,
    }
    (video,) = convert("longvideobench", tmp_path, {"lvb_val.json": [row]})
    assert video.questions[0].answer == "b"
    assert video.questions[0].tasks == ("600 s/T2E",)


def test_egotempo(tmp_path: Path) -> None:
    row = {
        "question_id": "27470817_368.5_403.5_0",
        "clip_id": "27470817_368.5_403.5",
        "question_type": "object-specific action",
        "question": "What does the person pick up?",
        "answer": "The spray.",
    }
    (video,) = convert("egotempo", tmp_path, {"egotempo_openQA.json": {"info": {}, "annotations": [row]}})
    assert video.duration == 35.0
    assert video.questions[0].answer == "The spray."


@pytest.mark.parametrize(
    ("name", "file", "content", "told"),
    [
        ("mlvu", "1_plotQA.json", [{"candidates": ["a", "b"]}], "1_plotQA.json: entry 0: video is missing"),
        ("cgbench", "cgbench.json", [{"video_uid": "v", "choices": ["a"], "right_answer": "D"}], "right_answer is 'D'"),
        ("videomme", "test.json", [{"videoID": "v", "options": 3}], "entry 0: options is 3; it must be a list"),
        ("videomme", "test.jsonl", "{}\n{", "line 2 is not JSON"),
        ("ovobench", "ovo_bench_new.json", [{"task": "EPM", "options": ["a", "b"], "gt": 2}], "gt is 2"),
        (
            "ovobench",
            "ovo_bench_new.json",
            [{"task": "REC", "video": "v", "activity": "run", "test_info": [{"count": 1}]}],
            "entry 0, test_info 0: realtime is missing",
        ),
        ("lvbench", "video_info.meta.jsonl", '{"key": "k", "qa": [{"question": "no options"}]}', "has no options"),
        ("egotempo", "egotempo_openQA.json", {"annotations": [{"clip_id": "x"}]}, "annotations 0: question is missing"),
        ("egoschema", "questions.json", [{"q_uid": "u", "option 0": "a"}], "entry 0: option 1 is missing"),
        ("longvideobench", "lvb_val.json", {"a": 1}, "is an object; it must be a list"),
        ("streamingbench", "questions_real.json", [{"questions": []}], "entry 0: video_path is missing"),
        ("activitynet_qa", "test_q.json", [], "test_a.json"),
    ],
)
def test_malformed_releases_are_named(tmp_path: Path, name: str, file: str, content: Any, told: str) -> None:
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError) as raised:
        find(name).convert(tmp_path)
    assert told in str(raised.value)


@pytest.mark.parametrize("name", [name for name in names() if name != "needle"])
def test_an_empty_folder_says_what_is_wanted(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="name the folder"):
        find(name).convert(tmp_path)


def test_an_unknown_dataset_has_a_neighbour() -> None:
    with pytest.raises(ConfigError, match="did you mean 'qaego4d'"):
        find("qa_ego4d")


# -- from another package ------------------------------------------------------------------------------------------


def test_the_dataset_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    code = re.search(r"```python\n(\"\"\"my_package.+?)```", page, re.DOTALL)
    point = re.search(r'\[project\.entry-points\."rekv\.datasets"\]\n(.+?)\n', page)
    assert code
    assert point
    install(tmp_path, "kitchen", code[1], "rekv.datasets", point[1].replace('"', ""), monkeypatch)
    assert names()[-1] == "kitchen"
    rows = [{"id": "a", "question": "Where is the cup?", "answer": "table", "asked": 12.5}]
    (found,) = convert("kitchen", tmp_path, {"rows.json": rows})
    question = Question("Where is the cup?", "table", end=12.5)
    assert found == Video(0, "a", "data/kitchen/videos/a.mp4", None, (question,))
    noise(tmp_path / "data/kitchen/videos/a.npy", 20)
    written = tmp_path / "data/kitchen/test.json"
    written.parent.mkdir(exist_ok=True)
    written.write_text((tmp_path / "kitchen/test.json").read_text().replace("a.mp4", "a.npy"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["eval", "--dataset", "kitchen", "--retrieve-size", "2"])
    assert "| kitchen | internal 2 | 1 | streaming | contains |" in result.stdout, result.output
    with pytest.raises(DataError, match="entry 0"):
        convert("kitchen", tmp_path, {"rows.json": [{"id": "a"}]})


@pytest.mark.parametrize("code", ["raise OSError(1)", "Kitchen = int", "class Kitchen: name = 'cellar'"])
def test_a_package_that_is_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    install(tmp_path, "kitchen", code, "rekv.datasets", "kitchen = my_package.kitchen:Kitchen", monkeypatch)
    with pytest.raises(ConfigError, match=r"the dataset 'kitchen'.* my_package\.kitchen:Kitchen"):
        find("kitchen")
    result = CliRunner().invoke(main, ["data", "list"])
    assert result.exit_code == 0, result.output
    assert "mlvu" in result.stdout
    assert "kitchen" in result.stderr
