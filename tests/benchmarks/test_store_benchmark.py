"""The store benchmark, small: what it reports has the shape and the sense that it promises."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "store.py"
FRAMES = 700
FRAME_BYTES = 4 * 2 * 2 * 16 * 32 * 4  # of the built-in model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("store")
    place = folder / "place"
    place.mkdir()
    words = "all --shapes builtin --rounds 1 --share 0.02 --lengths 100 300 --questions 2 --frames".split()
    command = [sys.executable, SCRIPT, *words, FRAMES, "--place", place]
    command += ["--json", folder / "store.json", "--plot", folder / "store.png"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert list(place.iterdir()) == []
    assert "int4" in done.stdout
    return json.loads((folder / "store.json").read_text()), folder / "store.png"


def test_rates(run: tuple[dict[str, Any], Path]) -> None:
    found = run[0]["rates"]["builtin"]
    assert found["block_bytes"] * 4 == FRAME_BYTES
    assert found["frames_written"] == 163
    for what in ("write", "cold", "warm"):
        assert found[what]["store_gb_per_s"] > 0
        assert len(found[what]["ratios"]) == 1
        assert found[what]["ratio"] > 0
    parts = [value for key, value in found["write"].items() if key.startswith("share_")]
    assert sum(parts) == pytest.approx(1, abs=0.01)


def test_length(run: tuple[dict[str, Any], Path]) -> None:
    for budget in ("index_in_ram", "index_on_disk"):
        for state in ("cold", "warm"):
            found = run[0]["length"][budget][state]
            assert list(found) == ["100", "300"]
            assert found["100"]["ratio"] == 1
            assert all(one["first_token_ms"] > one["question_ms"] > one["load_ms"] > 0 for one in found.values())


def test_memory(run: tuple[dict[str, Any], Path]) -> None:
    bounded, unlimited = (run[0]["memory"][name] for name in ("bounded", "unlimited"))
    assert bounded["budget_mb"] == pytest.approx(FRAMES * FRAME_BYTES / 10 / 1e6, abs=0.1)
    assert unlimited["budget_mb"] is None
    for one in (bounded, unlimited):
        assert one["curve"][-1][0] == FRAMES
        assert one["kv_mb"] == pytest.approx(FRAMES * FRAME_BYTES / 1e6, abs=0.1)
        assert one["start_mb"] < one["most_mb"] <= one["vm_hwm_mb"]
    assert run[1].read_bytes().startswith(b"\x89PNG")


def test_bytes(run: tuple[dict[str, Any], Path]) -> None:
    found = run[0]["bytes"]
    by_codec = [found["builtin"][codec]["bytes_per_frame"] for codec in ("raw", "int8", "int4")]
    assert by_codec[0] > FRAME_BYTES
    assert by_codec == sorted(by_codec, reverse=True)
    assert 0 < found["skipped_share"] < 1
