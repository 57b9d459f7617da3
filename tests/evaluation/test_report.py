"""From what was answered to tables: scores by the run's rules, breakdowns, costs, what is missing, plots, exports."""

import csv
from pathlib import Path
from typing import Any

import pytest

from rekv.errors import ConfigError, DataError
from rekv.evaluation.costs import Costs
from rekv.evaluation.export import published_csv, submission
from rekv.evaluation.plots import draw
from rekv.evaluation.published import FIGURES, figures_of
from rekv.evaluation.report import as_csv, markdown
from rekv.evaluation.run import Run
from rekv.evaluation.scoring import scores
from rekv.evaluation.summary import summarize
from rekv.evaluation.unit import Record
from tests.evaluation.conftest import cell

COLOURS = ["red", "blue", "red"]


def choice(text: str, answer: str | None = "red", task: str = "colour", **more: Any) -> dict[str, Any]:
    asked = {"question": "which?", "answer": answer, "choices": COLOURS, "tasks": [task], "text": text}
    return {**asked, "logprobs": [-3.0, -0.1, -2.0], **more}


def made(folder: Path, records: list[Record], *, sha: str = "0", **changes: Any) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    head = {
        "cell": cell(**{"dataset": "qaego4d"} | changes).as_json(),
        "data": {"sha256": sha, "videos": 3},
        "environment": {"rekv": "1", "torch": "2"},
    }
    costs = {
        record.index: Costs(10, 2.0, 1.0, 1 << 20, (0.2, 0.1), (0.5, 0.4), 1 << 30, None)
        for record in records
        if record.error is None
    }
    return Run(folder, head, {record.index: record for record in records}, costs)


def example(folder: Path, **changes: Any) -> Run:
    grounding = {"recall": 0.5, "precision": 0.25, "f1": 1 / 3, "hit": 1.0}
    records = [
        Record(0, "v0", [choice("A) red", grounding=grounding), choice("C"), choice("B", task="size")]),
        Record(1, "v1", [choice("I cannot tell"), {**choice(""), "error": "ValueError: too long"}]),
        Record(2, "v2", [{"question": "?", "answer": "red", "choices": COLOURS, "error": "gone"}], "gone"),
    ]
    del records[1].questions[1]["text"], records[1].questions[1]["logprobs"]
    return made(folder, records, **changes)


def values(run: Run) -> list[float | None]:
    return [score.value for score in scores(run, {})]


def test_choices_are_scored_by_the_rule_of_the_run(tmp_path: Path) -> None:
    run = example(tmp_path / "a")
    assert values(run) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0], "red is listed twice: A and C are right"
    assert values(example(tmp_path / "b", choose="likelihood")) == [0.0] * 6
    assert values(example(tmp_path / "c", paper=True)) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0], "the first that is equal"
    found = scores(run, {})
    assert [score.choice for score in found] == ["A", "C", "B", None, None, None]
    assert [score.failed for score in found] == [None] * 4 + ["ValueError: too long", "gone"]


@pytest.mark.parametrize(
    ("dataset", "metric", "value"),
    [("needle", "exact", 0.0), ("ovobench", "count", 1.0), ("rvs_ego", "token_f1", 2 / 3)],
)
def test_open_answers_are_scored_as_the_dataset_says(tmp_path: Path, dataset: str, metric: str, value: float) -> None:
    """Where a judge is wanted and there is none, the fallback is named as such."""
    run = made(tmp_path / "a", [Record(0, "v", [{"question": "?", "answer": "cup", "text": "a red cup"}])])
    run = Run(run.folder, {**run.head, "cell": cell(dataset=dataset).as_json()}, run.records, run.costs)
    (score,) = scores(run, {})
    assert (score.metric, score.value) == (metric, pytest.approx(value))


def test_summary(tmp_path: Path) -> None:
    found = summarize(example(tmp_path / "a"))
    assert found.score is not None
    assert (found.score.mean, found.score.n, found.score.clusters) == (pytest.approx(2 / 6), 6, 3)
    assert found.answered is not None
    assert found.answered.mean == 0.5
    assert found.by_likelihood is not None
    assert (found.by_likelihood.mean, found.by_likelihood.n) == (0.0, 4)
    assert (len(found.failed), dict(found.lost), found.unread) == (2, {"v2": "gone"}, 1)
    assert {name: (e.mean, e.n) for name, e in found.tasks.items()} == {"colour": (0.5, 4), "size": (0.0, 1)}
    assert found.grounding["recall"].mean == 0.5
    cost = found.cost
    assert (cost.first_token_ms, cost.encode_fps, cost.peak_ram) == (pytest.approx(150), 5.0, 1 << 30)
    assert cost.bytes_per_hour == 3600 * (1 << 20)


def test_the_report_says_it_all(tmp_path: Path) -> None:
    first, second = example(tmp_path / "a"), example(tmp_path / "b", retriever="recent")
    second.records[0].questions[2]["text"] = "A"
    text = markdown([summarize(first), summarize(second)])
    assert "| tiny | qaego4d | internal 3 | 1 | offline | accuracy | 33.3 [" in text
    assert "| 6 | 2 | 150 ms | 5 frames/s | 1.00 GiB |" in text
    assert "| colour | 4 | 50.0 | 50.0 |" in text
    assert "| tiny qaego4d recent 3 | tiny internal 3 | +16.7 [" in text
    assert "- tiny qaego4d internal 3: v1, question 1: ValueError: too long" in text
    assert "- tiny qaego4d internal 3: v2: gone" in text
    assert "no choice could be read from 1 answers" in text
    assert "rekv 1, torch 2" in text


def test_answers_that_were_cut_are_told(tmp_path: Path) -> None:
    said = {"question": "what?", "answer": "a hat", "text": "a hat of", "cut": True}
    run = made(tmp_path / "a", [Record(0, "v0", [said, {**said, "cut": False}, choice("A", cut=True)])])
    found = summarize(run)
    assert found.cut == 1  # a choice is read from what there is
    assert "1 open-ended answers were cut at 4 tokens (--max-new-tokens)" in markdown([found])


def test_groups_are_kept_apart(tmp_path: Path) -> None:
    questions = [choice("A", task="backward/EPM"), choice("B", task="forward/REC"), choice("A", task="backward/ASI")]
    found = summarize(made(tmp_path / "a", [Record(0, "v", questions)]))
    assert {name: e.mean for name, e in found.groups.items()} == {"backward": 1.0, "forward": 0.0}
    assert "| backward | 2 | 100.0 |" in markdown([found])


def test_runs_on_other_data_are_not_compared(tmp_path: Path) -> None:
    text = markdown([summarize(example(tmp_path / "a")), summarize(example(tmp_path / "b", sha="1"))])
    assert "Compared question by question" not in text


def test_what_is_not_finished_is_said(tmp_path: Path) -> None:
    text = markdown([summarize(made(tmp_path / "a", [Record(0, "v0", [choice("A")])]))])
    assert "not finished, 2 of 3 videos are missing" in text


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    run = made(tmp_path / "a", [Record(0, "v", [choice("A")])], model="llava_ov_7b")
    text = markdown([summarize(run)])
    assert "| llava_ov_7b | qaego4d | internal 3 | accuracy | 100.0 | 56 | arXiv 2503.00540 (ICLR 2025) |" in text
    assert all(figure.source for figure in FIGURES)
    assert {(f.retriever, f.metric, f.value) for f in figures_of("llava_ov_0.5b", "qaego4d")} >= {
        ("stock", "accuracy", 42.6),
        ("internal", "accuracy", 50.0),
        ("internal", "recall", 63.4),
        ("oracle", "recall", 100.0),
    }


def test_the_published_script_divides_tasks_by_all_questions(tmp_path: Path) -> None:
    questions = [
        choice("A", task="plotQA"),
        choice("B", task="plotQA"),
        choice("A", task="ego"),
        choice("B", task="ego"),
    ]
    run = made(tmp_path / "a", [Record(0, "v", questions)], dataset="mlvu", paper=True)
    text = markdown([summarize(run)])
    assert "ego 25.00, plotQA 25.00" in text, "as published"
    assert "| ego | 2 | 50.0 |" in text, "and as it is"


def test_csv_has_a_row_per_run(tmp_path: Path) -> None:
    found = [summarize(example(tmp_path / "a")), summarize(example(tmp_path / "b", retriever="recent"))]
    rows = list(csv.DictReader(as_csv(found).splitlines()))
    assert [row["retriever"] for row in rows] == ["internal", "recent"]
    assert float(rows[0]["score"]) == pytest.approx(1 / 3)
    assert float(rows[0]["score_low"]) < 1 / 3 < float(rows[0]["score_high"])


# -- files for others ----------------------------------------------------------------------------------------------


def unknown(text: str, **changes: Any) -> dict[str, Any]:
    return choice(text, answer=None, **changes)


@pytest.mark.parametrize(
    ("paper", "last"), [(False, "1"), (True, "0")], ids=["the likeliest letter", "A, as published"]
)
def test_submission(tmp_path: Path, paper: bool, last: str) -> None:
    records = [Record(i, f"u{i}", [unknown(text)]) for i, text in enumerate(("C) red", "B", "I cannot tell"))]
    run = made(tmp_path / "a", records, dataset="egoschema", paper=paper)
    assert list(csv.reader(submission(run).read_text().splitlines())) == [
        ["q_uid", "answer"],
        ["u0", "2"],
        ["u1", "1"],
        ["u2", last],
    ]
    assert summarize(run).score is None, "nothing is known of the truth"
    assert "| egoschema |" in markdown([summarize(run)])


def test_the_published_harness_reads_our_results(tmp_path: Path) -> None:
    rows = list(csv.DictReader(published_csv(example(tmp_path / "a", paper=True)).read_text().splitlines()))
    assert list(rows[0]) == [
        "video_id",
        "question",
        "choices",
        "answer",
        "correct_choice",
        "pred_answer",
        "pred_choice",
        "qa_acc",
        "task",
        "retrieve_size",
        "chunk_size",
    ]
    assert [(row["pred_choice"], row["qa_acc"]) for row in rows] == [
        ("A", "100.0"),
        ("C", "0.0"),
        ("B", "0.0"),
        ("I", "0.0"),
    ]
    with pytest.raises(DataError, match="no answers"):
        published_csv(made(tmp_path / "b", []))


# -- plots ---------------------------------------------------------------------------------------------------------


def test_plots(tmp_path: Path) -> None:
    found = [
        summarize(example(tmp_path / f"{size}-{chunk}", retrieve_size=size, chunk_size=chunk))
        for size in (4, 8)
        for chunk in (1, 2)
    ]
    found.append(summarize(example(tmp_path / "full", retriever="full", retrieve_size=0)))
    written = {path.name for path in draw(found, tmp_path / "plots")}
    assert written == {
        "qaego4d-frames.png",
        "qaego4d-latency.png",
        "qaego4d-memory.png",
        "qaego4d-recall-tiny-internal.png",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "plots").iterdir())
    with pytest.raises(ConfigError, match="nothing to plot"):
        draw([summarize(made(tmp_path / "x", [Record(0, "v", [unknown("A")])]))], tmp_path / "none")
