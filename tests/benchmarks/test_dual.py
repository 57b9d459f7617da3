"""The dual encoder's benchmark, small: what it measures has the shape and the sense that it promises."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.script import script


def test_report(tmp_path: Path) -> None:
    path = tmp_path / "dual.json"
    run = script("dual.py", "--frames", 200, "--streams", 2, "--seeds", 1, 2, "--json", path)
    assert run.returncode == 0, run.stderr
    report = json.loads(path.read_text())
    assert set(report["by_type"]) == {"color", "shape", "digit", "where", "size", "motion", "exist"}
    assert set(report["by_seed"]) == {"1", "2"}
    for part in (report["by_type"], report["by_seed"]):
        assert sum(one["questions"] for one in part.values()) == report["questions"]
        right = sum(one["recall"] * one["questions"] for one in part.values())
        assert right / report["questions"] == pytest.approx(report["recall"], abs=1e-3)
    low, high = report["ci95"]
    assert low < report["recall"] <= high
    assert report["recall"] > 0.8
    assert "seed 2" in run.stdout


def test_what_cannot_be_measured_is_said() -> None:
    run = script("dual.py", "--frames", 100)
    assert run.returncode == 1
    assert "at least" in run.stderr
