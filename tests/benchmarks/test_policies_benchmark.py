"""The benchmark of memory policies, small: what it measures has the shape and the sense that it promises."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.script import script


def test_accuracy_against_bytes(tmp_path: Path) -> None:
    report, plot = tmp_path / "policies.json", tmp_path / "policies.png"
    policies = ("value-norm:1", "value-norm:0.5", "random:0.25", "redundancy:0.9")
    sizes = ("--frames", 200, "--questions", 16)
    run = script("policies.py", *sizes, "--policies", *policies, "--json", report, "--plot", plot)
    assert run.returncode == 0, run.stderr
    found = json.loads(report.read_text())["policies"]
    assert list(found) == ["none", *policies]
    assert [found[name]["bytes"] for name in ("none", *policies[:3])] == [1, 1, 0.5, 0.25]
    assert 1 / 16 <= found["redundancy:0.9"]["bytes"] < 1
    for one in found.values():
        assert one["questions"] == 16
        difference = (one["won"] - one["lost"]) / 16
        assert one["accuracy"] == pytest.approx(found["none"]["accuracy"] + difference, abs=1e-3)
    same = {key: value for key, value in found["none"].items() if key != "bytes"}
    assert {key: value for key, value in found["value-norm:1"].items() if key != "bytes"} == same
    assert plot.stat().st_size > 10_000
