"""Results in the forms that others read: the published harness's results.csv, EgoSchema's submission."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rekv.errors import DataError
from rekv.evaluation.choices import letters, likeliest, right
from rekv.evaluation.run import Run
from rekv.evaluation.scoring import chosen

_FALLBACK = "A"  # of the published harness, where no option can be read


def submission(run: Run) -> Path:
    """Write submission.csv (q_uid, answer: the number of the option) of EgoSchema; return where.

    Where the text chooses no option, the likeliest letter is taken; in paper mode "A", as published.
    """
    rows = []
    for record in run.records.values():
        for question in record.questions:
            choice = chosen(run.cell, question)
            if choice not in letters(question.get("choices", ())):
                choice = None if run.cell.paper else likeliest(question.get("logprobs", ()))
            rows.append({"q_uid": record.video, "answer": ord(choice or _FALLBACK) - ord("A")})
    return _write(run.folder / "submission.csv", rows)


def published_csv(run: Run) -> Path:
    """Write results.csv with the columns of the published harness, which its own scripts read; return where."""
    rows = [
        _row(run, record.video, question)
        for record in run.records.values()
        for question in record.questions
        if "text" in question
    ]
    return _write(run.folder / "results.csv", rows)


def _row(run: Run, video: str, question: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"video_id": video, "question": question["question"]}
    if choices := question.get("choices"):
        answer = question["answer"] if question["answer"] is not None else choices[0]
        correct, choice = min(right(choices, answer)), chosen(run.cell, question) or ""
        row |= {"choices": choices, "answer": answer, "correct_choice": correct}
        row |= {"pred_answer": _line(question), "pred_choice": choice, "qa_acc": 100.0 * (choice == correct)}
    else:
        row |= {"answer": question["answer"], "pred_answer": _line(question)}
    if tasks := question.get("tasks"):
        row["task"] = tasks[0]
    return row | {"retrieve_size": run.cell.retrieve_size, "chunk_size": run.cell.chunk_size}


def _line(question: Mapping[str, Any]) -> str:
    return str(question["text"]).replace("\n", "")


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if not rows:
        raise DataError(f"{path.parent} has no answers to write to {path.name}")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path
