"""Runs as lmms-eval logs its own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rekv.errors import DataError
from rekv.evaluation.lmms_logs import lmms_logs
from rekv.evaluation.unit import Record
from tests.evaluation.conftest import lines
from tests.evaluation.test_report import example, made


def test_samples_and_results(tmp_path: Path) -> None:
    run = example(tmp_path / "run")
    run.records = dict(reversed(run.records.items()))  # as videos were done, not as they are numbered
    (file,) = lmms_logs([run], tmp_path / "logs")
    assert file == tmp_path / "logs/tiny/3-1.0-qaego4d_samples_qaego4d.jsonl"
    samples = lines(file)
    assert [sample["doc_id"] for sample in samples] == list(range(6))
    assert [sample["video"] for sample in samples] == ["v0"] * 3 + ["v1"] * 2 + ["v2"]
    assert [sample["score"] for sample in samples] == [1, 1, 0, 0, 0, 0]
    first, failed = samples[0], samples[4]
    assert {"target": "A", "filtered_resps": "A) red", "input": "which?", "accuracy": 1.0}.items() <= first.items()
    assert failed["filtered_resps"] == ""
    assert failed["error"] == "ValueError: too long"
    assert samples[0]["doc_hash"] == samples[1]["doc_hash"] != samples[3]["doc_hash"], "video and question"
    results = json.loads((file.parent / "3-1.0-qaego4d_results.json").read_text())
    assert results["results"]["qaego4d"]["accuracy,none"] == pytest.approx(2 / 6)
    assert results["n-samples"] == {"qaego4d": {"original": 6, "effective": 6}}
    assert results["config"]["cell"]["retrieve_size"] == 3


def test_each_dataset_has_results_of_its_own(tmp_path: Path) -> None:
    """Of one model at one size, as a grid over datasets makes them."""
    runs = [example(tmp_path / "a"), example(tmp_path / "b")]
    runs[1].cell = replace(runs[1].cell, dataset="mlvu")
    files = lmms_logs(runs, tmp_path / "logs")
    for file, dataset in zip(files, ("qaego4d", "mlvu"), strict=True):
        results = json.loads(
            file.with_name(file.name.replace(f"_samples_{dataset}.jsonl", "_results.json")).read_text()
        )
        assert list(results["results"]) == [dataset]


def test_what_is_not_published_has_no_score(tmp_path: Path) -> None:
    unknown: dict[str, Any] = {"question": "why?", "answer": None, "text": "because"}
    records = [Record(i, f"v{i}", [unknown]) for i in range(3)]
    (file,) = lmms_logs([made(tmp_path / "run", records)], tmp_path)
    assert [(sample["target"], "score" in sample) for sample in lines(file)] == [(None, False)] * 3


def test_lmms_eval_reads_them(tmp_path: Path) -> None:
    pytest.importorskip("lmms_eval")
    from lmms_eval.baselines import load_baseline

    (file,) = lmms_logs([example(tmp_path / "run")], tmp_path / "logs")
    scores, results = load_baseline(str(file), "qaego4d")
    assert scores == {0: 1.0, 1: 1.0, 2: 0.0, 3: 0.0, 4: 0.0, 5: 0.0}
    assert results is not None
    assert results["model_name"] == "tiny"


def test_runs_that_cannot_be_told_apart_or_numbered(tmp_path: Path) -> None:
    run = example(tmp_path / "a")
    with pytest.raises(DataError, match="would both be"):
        lmms_logs([run, example(tmp_path / "b", n_local=50)], tmp_path / "logs")
    del run.records[1]
    with pytest.raises(DataError, match="has 2 of 3 videos"):
        lmms_logs([run], tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
