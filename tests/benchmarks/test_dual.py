"""The dual encoder's benchmark, small: what it measures has the shape and the sense that it promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "dual.py"


def test_report(tmp_path: Path) -> None:
    path = tmp_path / "dual.json"
    command = [sys.executable, SCRIPT, "--frames", 200, "--streams", 2, "--seeds", 1, 2, "--json", path]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240)
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
    run = subprocess.run([sys.executable, SCRIPT, "--frames", "100"], capture_output=True, text=True, timeout=240)
    assert run.returncode == 1
    assert "at least" in run.stderr
    assert "Traceback" not in run.stderr
