"""The needle benchmark, small: what it measures has the shape and the sense that it promises."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.script import script

TYPES = {"color", "shape", "digit", "where", "size", "motion", "order", "exist"}
HARD = ("digit", "where", "size", "motion", "order", "exist", "when", "times", "before")
STREAMS = 4


def small(folder: Path, *arguments: object) -> dict[str, Any]:
    """A run of four streams of the shortest length, with one question of each type."""
    path = folder / "needle.json"
    run = script(
        "needle.py", "--frames", 128, "--per-type", 1, "--questions", STREAMS * 8 - 3, "--json", path, *arguments
    )
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(path.read_text())
    return report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("needle")


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return small(folder, "--full-streams", 1, "--retrieve-size", 8, "--plot", folder / "needle.png")


def test_every_method_has_its_figures(report: dict[str, Any]) -> None:
    assert report["set"] == "base"
    assert report["frames"] == 128
    assert report["retrieve_size"] == 8
    assert report["seeds"]
    assert set(report["methods"]) == {"internal", "recent", "uniform", "full", "oracle"}
    for name, found in report["methods"].items():
        streams = 1 if name == "full" else STREAMS
        assert found["questions"] == 8 * streams
        assert set(found["per_type"]) == TYPES
        assert all(one["questions"] == streams for one in found["per_type"].values())
        low, high = found["ci95"]
        assert 0 <= low <= found["accuracy"] <= high <= 1
        by_type = sum(one["accuracy"] for one in found["per_type"].values()) / len(TYPES)
        assert found["accuracy"] == pytest.approx(by_type, abs=1e-3)


def test_retrieval_finds_what_has_left_the_window(report: dict[str, Any]) -> None:
    methods = report["methods"]
    assert methods["internal"]["accuracy"] > methods["recent"]["accuracy"] + 0.3
    assert methods["internal"]["past"]["accuracy"] > methods["recent"]["past"]["accuracy"] + 0.3
    assert methods["internal"]["recall"] > 0.8


def test_recall_is_known_where_frames_are_given(report: dict[str, Any]) -> None:
    """Nothing in the last frames is asked for; oracle and full read something of every evidence range."""
    methods = report["methods"]
    assert methods["recent"]["recall"] == 0
    assert methods["oracle"]["recall"] == methods["oracle"]["recall_all"] == 1
    assert methods["full"]["recall"] == methods["full"]["recall_all"] == 1


def test_a_second_run_finds_the_same(report: dict[str, Any], tmp_path: Path) -> None:
    """Also one that measures less."""
    again = small(tmp_path, "--retrieve-size", 8, "--methods", "internal,oracle")
    assert list(again["methods"]) == ["internal", "oracle"]
    for name, found in again["methods"].items():
        before = report["methods"][name]
        assert {key: value for key, value in found.items() if "ms_" not in key} == {
            key: value for key, value in before.items() if "ms_" not in key
        }


def test_the_plot_is_a_picture(report: dict[str, Any], folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with image.open(folder / "needle.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 5


def test_the_hard_set_has_its_own_types(tmp_path: Path) -> None:
    path, plot = tmp_path / "hard.json", tmp_path / "hard.png"
    words = ("--set", "hard", "--frames", 520, "--questions", 9, "--methods", "internal,oracle")
    run = script("needle.py", *words, "--json", path, "--plot", plot)
    assert run.returncode == 0, run.stderr
    report = json.loads(path.read_text())
    assert report["set"] == "hard"
    for found in report["methods"].values():
        assert found["questions"] == 9
        assert list(found["per_type"]) == list(HARD)
    assert report["methods"]["oracle"]["recall_all"] == 1
    assert all(type in run.stdout for type in HARD)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_more_groups_of_questions_and_other_retrievers(tmp_path: Path) -> None:
    names = ["internal", "recent:4", "auto", "fusion+recent1", "internal+phrases"]
    path = tmp_path / "groups.json"
    words = ("--frames", 200, "--per-type", 1, "--questions", 8, "--extra", 3, "--methods", ",".join(names))
    run = script("needle.py", *words, "--json", path)
    assert run.returncode == 0, run.stderr
    report = json.loads(path.read_text())
    assert list(report["methods"]) == names
    for name, found in report["methods"].items():
        assert set(found["per_group"]) == {"present", "past", "order", "counting", "absent"}
        assert found["per_group"]["present"]["questions"] == found["per_group"]["counting"]["questions"] == 3
        assert sum(one["questions"] for one in found["per_group"].values()) == found["questions"]
        assert ("decided" in found["per_group"]["past"]) == (name == "auto")
        assert 0 <= found["doubt"]["auc"] <= 1
    gain = report["paired"]["auto"]["internal"]["present"]
    one, other = (report["methods"][name]["per_group"]["present"]["accuracy"] for name in ("auto", "internal"))
    assert gain["gain"] == pytest.approx(one - other, abs=1e-3)
    assert gain["ci95"][0] <= gain["gain"] <= gain["ci95"][1]
    assert report["methods"]["recent:4"]["per_group"]["present"]["recall"] == 1


@pytest.mark.parametrize("method", ["intrnal", "internal+", "internal+often", "internal:x", "internal+recent"])
def test_what_is_no_method_is_said(method: str) -> None:
    run = script("needle.py", "--methods", method)
    assert run.returncode == 2


def test_what_cannot_be_measured_is_said() -> None:
    run = script("needle.py", "--frames", 100)
    assert run.returncode == 1
    assert "at least" in run.stderr
