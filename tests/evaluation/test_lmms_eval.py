"""rekv as a model of lmms-eval: its own command on a task of needle films, and what the adapter makes of requests.

Skipped without lmms-eval, which cannot be installed by `make setup`: see docs/evaluation.md.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rekv.engine import Session
from rekv.errors import ConfigError, DataError, VideoError
from rekv.sources import video as open_video
from tests.evaluation.conftest import Run, lines

pytest.importorskip("lmms_eval")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, at import

YAML = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {docs}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function needles.visual
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 32, temperature: 0, until: ["\\n"]}}
process_results: !function needles.results
metric_list: [{{metric: score, aggregation: mean, higher_is_better: true}}]
"""
FUNCTIONS = """
def visual(doc):
    return [doc["video"]]

def results(doc, results):
    return {"score": float(results[0] == doc["answer"])}
"""
# The command of lmms-eval, which counts what is encoded.
COMMAND = """
import sys
from lmms_eval.__main__ import cli_evaluate
from rekv.engine import Session
append, counts = Session.append, []
Session.append = lambda *args: counts.append(append(*args)) or counts[-1]
cli_evaluate()
print("ENCODED", *counts, file=sys.stderr)
"""


@pytest.fixture
def tasks(needles: Path, tmp_path: Path) -> Path:
    """Two tasks on the needle films: their questions in order, and of one film and the other by turns."""
    entries = json.loads((needles / "needle/test_oe.json").read_text())
    docs = [
        {"video": str(needles.parent / entry["video_path"]), "question": turn["question"], "answer": turn["answer"]}
        for entry in entries
        for turn in entry["conversations"]
    ]
    half = len(docs) // 2
    by_turns = [doc for pair in zip(docs[:half], docs[half:], strict=True) for doc in pair]
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "needles.py").write_text(FUNCTIONS)
    for task, part in (("in_order", docs), ("by_turns", by_turns)):
        file = folder / f"{task}.json"
        file.write_text(json.dumps(part))
        (folder / f"{task}.yaml").write_text(YAML.format(task=task, docs=file))
    return folder


def lmms_eval(
    tasks: Path, out: Path, *more: str, processes: int = 1
) -> tuple[list[int], dict[str, Any], Callable[[str], list[Any]]]:
    """Frames of each encoding, the results, and the samples of a task."""
    script = tasks / "command.py"
    script.write_text(COMMAND)
    several = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes)[: 5 * (processes > 1)]
    args = ("retriever=internal", "retrieve_size=8", "recent_frames=1", "sample_fps=0.5", "pretrained=tiny")
    command = ["--model", "rekv", "--model_args", ",".join(args), "--include_path", tasks, "--output_path", out]
    done = subprocess.run(
        [sys.executable, *map(str, [*several, script, *command]), "--log_samples", *more],
        env={**os.environ, "HF_HOME": str(out / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    counts = [count for line in done.stderr.splitlines() if line.startswith("ENCODED") for count in line.split()[1:]]
    (results,) = out.rglob("*_results.json")

    def samples(task: str) -> list[Any]:
        return lines(results.with_name(results.name.replace("_results.json", f"_samples_{task}.jsonl")))

    return list(map(int, counts)), json.loads(results.read_text()), samples


def test_a_task_runs_through_the_command_and_compares_with_a_run_of_rekv(
    tasks: Path, needles: Path, tmp_path: Path, run: Run
) -> None:
    alike = ("--recent-frames", 1, "--sample-fps", 0.5, "--retrieve-size", 8)
    where = ("--dataset", "needle", "--data", needles, "--out", tmp_path / "r")
    assert run("eval", *where, "--retriever", "internal,recent", *alike).exit_code == 0
    (recent,) = tmp_path.glob("r/**/*-recent-recent_frames1")
    assert run("report", recent, "--lmms-eval", tmp_path / "logs").exit_code == 0
    (baseline,) = tmp_path.glob("logs/tiny/*_samples_needle.jsonl")

    encoded, results, samples = lmms_eval(
        tasks, tmp_path / "out", "--tasks", "by_turns,in_order", "--baseline", str(baseline)
    )
    assert encoded == [100, 100], "each film once, for both tasks"
    (internal,) = tmp_path.glob("r/**/8-0.5-recent_frames1")
    ours = [question for record in lines(internal / "results.jsonl")[1:] for question in record["questions"]]
    theirs = samples("in_order")
    assert [sample["input"] for sample in theirs] == [question["question"] for question in ours]
    assert [sample["filtered_resps"] for sample in theirs] == [question["text"] for question in ours]
    turns = [sample["filtered_resps"] for sample in samples("by_turns")]
    assert [*turns[::2], *turns[1::2]] == [question["text"] for question in ours]
    found = results["results"]["in_order"]
    assert found["score,none"] == np.mean([question["text"] == question["answer"] for question in ours])
    assert found["paired_baseline_score"] == 100 * np.mean([sample["score"] for sample in lines(baseline)])
    assert results["config"]["model_backend"] == "rekv.evaluation.lmms_eval.ReKV (simple)"
    assert results["efficiency"]["overall"]["total_output_tokens"] > 0


@pytest.mark.slow
def test_processes_share_a_task(tasks: Path, tmp_path: Path) -> None:
    _, one, answers = lmms_eval(tasks, tmp_path / "one", "--tasks", "by_turns")
    encoded, two, shared = lmms_eval(tasks, tmp_path / "two", "--tasks", "by_turns", processes=2)
    assert encoded == [100, 100], "every other question, and so one film each"
    assert two["results"] == one["results"]
    told = {sample["doc_id"]: sample["filtered_resps"] for sample in shared("by_turns")}
    assert told == {sample["doc_id"]: sample["filtered_resps"] for sample in answers("by_turns")}


# -- the adapter, request by request ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(needles: Path) -> Path:
    return sorted((needles / "needle/videos").iterdir())[0]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The sessions that frames were appended to."""
    append, sessions = Session.append, list[Session]()

    def counted(session: Session, *args: Any) -> int:
        sessions.append(session)
        return append(session, *args)

    monkeypatch.setattr(Session, "append", counted)
    return sessions


def model(docs: Sequence[Any], **settings: Any) -> Any:
    from rekv.evaluation.lmms_eval import ReKV

    adapter = ReKV(**{"sample_fps": 0.2, "retrieve_size": 4, "recent_frames": 1, "max_new_tokens": 4, **settings})
    adapter.task_dict = {"t": {"test": docs}}
    return adapter


def request(place: int, text: str = "Which color was the diamond?", padding: bool = False, **given: Any) -> Any:
    from lmms_eval.api.instance import Instance

    metadata: dict[str, Any] = {"task": "t", "doc_id": place, "repeats": 1}
    if padding:
        metadata["__padding_only__"] = True
    arguments = (text, given, lambda doc: doc, place, "t", "test")
    return Instance("generate_until", arguments, 0, metadata)


def texts(adapter: Any, *requests: Any) -> list[str]:
    return [answer.text for answer in adapter.generate_until(list(requests))]


def test_it_is_found_by_name() -> None:
    from lmms_eval.models import get_model

    from rekv.evaluation.lmms_eval import ReKV

    assert get_model("rekv") is ReKV


def test_pictures_are_a_video_of_their_own(film: Path, made: list[Session]) -> None:
    pictures = [Image.fromarray(frame.image) for frame in open_video(film, sample_fps=0.2)]
    adapter = model([[str(film)], pictures, list(pictures), pictures[:1], pictures[0].convert("RGBA"), None])
    answers = texts(adapter, *(request(place) for place in range(6)))
    assert answers[1] == answers[2] == answers[0]
    assert answers[4] == answers[3]
    assert [session.memory.frames for session in made] == [40, 40, 1, 1, 0], "equal lists are one video"
    assert made[1].memory.times == made[0].memory.times


def test_answers_come_in_the_order_of_requests(film: Path, made: list[Session]) -> None:
    other = film.parent / sorted(path.name for path in film.parent.iterdir())[1]
    adapter = model([[str(film)], [str(other)]])
    questions = ["Which color was the diamond?", "Which green thing did you see?", "What time did the clock show?"]
    alone = [[texts(adapter, request(place, text))[0] for text in questions] for place in (0, 1)]
    made.clear()
    mixed = texts(adapter, *(request(place, text) for text in questions for place in (0, 1)))
    assert mixed == [alone[place][i] for i in range(3) for place in (0, 1)]
    assert len(made) == 2


def test_what_only_pads_is_not_answered(film: Path, made: list[Session]) -> None:
    adapter = model([[str(film)]])
    assert texts(adapter, request(0, padding=True)) == [""]
    assert not made
    assert texts(adapter, request(0), request(0, padding=True))[1] == ""


def test_memory_beyond_a_budget_lies_on_disk(film: Path, made: list[Session]) -> None:
    whole = texts(model([[str(film)]]), request(0))
    bounded = texts(model([[str(film)]], ram=6e5, frames_per_call=4), request(0))
    assert whole == bounded
    assert made[0].keeper is None
    assert made[1].keeper is not None
    assert not made[1].keeper.path.exists(), "gone afterwards"


def test_a_task_says_where_answers_end(film: Path) -> None:
    adapter = model([[str(film)]], max_new_tokens=1)
    (whole,) = adapter.generate_until([request(0, max_new_tokens=6)])
    (short,) = adapter.generate_until([request(0)])
    assert short.token_counts.output_tokens == 1 < whole.token_counts.output_tokens
    assert texts(adapter, request(0, max_new_tokens=6, until=[whole.text[2:]])) == [whole.text[:2]]


def test_sampled_answers_differ_by_repetition_and_repeat_with_the_run(film: Path) -> None:
    hot: dict[str, Any] = {"temperature": 8.0, "do_sample": True, "max_new_tokens": 6}
    asked = request(0, **hot)
    first = texts(model([[str(film)]]), *[asked] * 4)
    assert len(set(first)) > 1
    assert texts(model([[str(film)]]), *[asked] * 4) == first
    assert texts(model([[str(film)]], seed=1), *[asked] * 4) != first
    assert len(set(texts(model([[str(film)]]), *[request(0, temperature=8.0, do_sample=False)] * 3))) == 1


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {}),
        ({"max_new_tokens": 16, "image_aspect_ratio": "pad"}, {"max_new_tokens": 16}),
        ({"until": ["\n\n", ""]}, {"stop": ("\n\n",)}),
        ({"until": "\n"}, {"stop": ("\n",)}),
        ({"until": None, "top_p": 0.9, "temperature": 0, "num_beams": 1}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9}, {"temperature": 0.0}),
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}),
        ({"do_sample": True, "top_p": None}, {"temperature": 1.0}),
    ],
)
def test_generation_settings(given: dict[str, Any], settings: dict[str, Any]) -> None:
    from rekv.evaluation.lmms_eval import asking

    assert asking(given, "t") == settings


def test_what_cannot_be_done_is_refused(film: Path) -> None:
    adapter = model([[str(film), str(film)], [{"array": 1}], [str(film.with_name("gone.mp4"))], [str(film)]])
    with pytest.raises(DataError, match="question 0 of the task 't' shows 2 of str"):
        texts(adapter, request(0))
    with pytest.raises(DataError, match="shows 1 of dict"):
        texts(adapter, request(1))
    with pytest.raises(VideoError, match=r"gone.mp4: no such file"):
        texts(adapter, request(2))
    with pytest.raises(ConfigError, match="--gen_kwargs num_beams=1"):
        texts(adapter, request(3, num_beams=5))
    with pytest.raises(ConfigError, match="'t' compares the likelihoods"):
        adapter.loglikelihood([request(3)])
    with pytest.raises(ConfigError, match="several rounds"):
        adapter.generate_until_multi_round([request(3)])
    with pytest.raises(ConfigError, match="no setting 'retreive_size'"):
        model([], retreive_size=4)
    with pytest.raises(ConfigError, match="no retriever 'intrenal'"):
        model([], retriever="intrenal")
    with pytest.raises(ConfigError, match="ram=8e9"):
        model([], ram="8GiB")


def test_a_damaged_video_costs_its_own_answers(film: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"no film")
    adapter = model([[str(film)], [str(damaged)]])
    alone = texts(adapter, request(0))
    assert texts(adapter, request(0), request(1), request(1), request(0)) == [*alone, "", "", *alone]
    assert "damaged.mp4" in caplog.text
    assert "its 2 questions get no answer" in caplog.text


def test_the_memory_of_the_model_is_given_back(film: Path) -> None:
    adapter = model([[str(film)]])
    adapter.clean()
    assert not hasattr(adapter, "model")
