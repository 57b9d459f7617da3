"""Runs in the form of lmms-eval's own logs, for its tools: `--baseline FILE`, its web page, scripts that read them.

As of lmms-eval 0.7.3 a run is two files beside each other: NAME_results.json and, per task, NAME_samples_TASK.jsonl.
Here each dataset of a run has a NAME of its own.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from rekv.errors import DataError
from rekv.evaluation.judge import stored_verdicts
from rekv.evaluation.run import Run
from rekv.evaluation.scoring import Score, scores, wanted_letters
from rekv.evaluation.summary import summarize


def lmms_logs(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write the runs below `folder`, by model; return the files of samples.

    Questions are numbered through the dataset's file (`doc_id`). A run of lmms-eval itself compares with them where its
    task has the same questions in the same order. Raises `DataError` for a run that is not whole, and for two runs
    that would have one name.
    """
    written: dict[Path, Run] = {}
    for run in runs:
        videos = run.head["data"]["videos"]
        if len(run.records) < videos:
            raise DataError(
                f"{run.folder} has {len(run.records)} of {videos} videos, so that its questions cannot be numbered; "
                f"repeat its command, which goes on with it"
            )
        *parents, name = run.cell.folder.split("/")
        path = folder / parents[0] / f"{name}-{run.cell.dataset}_samples_{run.cell.dataset}.jsonl"
        if path in written:
            raise DataError(f"{written[path].folder} and {run.folder} would both be {path}; name one of them")
        written[path] = run
    for path, run in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in _samples(run)]
        path.write_text("".join(samples), encoding="utf-8")
        results = path.with_name(path.name.replace(f"_samples_{run.cell.dataset}.jsonl", "_results.json"))
        results.write_text(json.dumps(_results(run, len(samples)), indent=2, ensure_ascii=False), encoding="utf-8")
    return list(written)


def _samples(run: Run) -> list[dict[str, Any]]:
    found = sorted(scores(run, stored_verdicts(run)), key=lambda score: score.key)
    return [_sample(run, number, score) for number, score in enumerate(found)]


def _sample(run: Run, number: int, score: Score) -> dict[str, Any]:
    index, place = score.key
    question = run.records[index].questions[place]
    target, choices = question["answer"], question.get("choices")
    if choices and target is not None:
        target = min(wanted_letters(run.cell, choices, target))
    asked = json.dumps([score.video, question["question"], choices], ensure_ascii=False)
    sample = {
        "doc_id": number,
        "target": target,
        "filtered_resps": question.get("text", ""),
        "doc_hash": sha256(asked.encode()).hexdigest(),
        "input": question["question"],
        "video": score.video,
    }
    if score.value is not None:
        sample |= {"score": score.value, score.metric: score.value}
    return sample | ({"error": score.failed} if score.failed is not None else {})


def _results(run: Run, questions: int) -> dict[str, Any]:
    summary, dataset = summarize(run), run.cell.dataset
    figures: dict[str, Any] = {"alias": dataset}
    if summary.score is not None:
        figures |= {
            f"{summary.metric},none": summary.score.mean,
            f"{summary.metric}_ci95_low,none": summary.score.low,
            f"{summary.metric}_ci95_high,none": summary.score.high,
        }
    return {
        "results": {dataset: figures},
        "configs": {dataset: {"task": dataset, "score_key": "score"}},
        "n-samples": {dataset: {"original": questions, "effective": questions}},
        "config": {"model": "rekv", "cell": run.cell.as_json(), "environment": run.head["environment"]},
        "model_name": run.cell.model,
        "date": run.processes[0]["started"] if run.processes else None,
    }
