"""The near-duplicates benchmark, small: what it measures has the shape and the sense that it promises."""

import json
from pathlib import Path

from rekv.sources.duplicates import DEFAULT_THRESHOLD
from tests.benchmarks.script import script


def test_report(tmp_path: Path) -> None:
    path = tmp_path / "duplicates.json"
    run = script("duplicates.py", "--events", 2, "--sizes", 0.08, "--json", path)
    assert run.returncode == 0, run.stderr
    report = json.loads(path.read_text())
    assert report["threshold"] == DEFAULT_THRESHOLD
    assert [film["frames"] for film in report["films"]] == [40] * 4
    by_threshold = {line["threshold"]: line for line in report["by_threshold"]}
    default = by_threshold[DEFAULT_THRESHOLD]
    assert default["missed"] == {"8% vivid": "0 of 4", "8% faint": "0 of 4"}
    assert 0.5 < min(default["skipped"].values())
    for condition, skipped in default["skipped"].items():
        assert by_threshold[4]["skipped"][condition] <= skipped <= by_threshold[32]["skipped"][condition]
    assert f"threshold {DEFAULT_THRESHOLD:g} (default)" in run.stdout
