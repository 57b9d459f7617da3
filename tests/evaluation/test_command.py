"""`rekv data`, `rekv eval`, `rekv report`, end to end on the built-in model."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rekv.evaluation.unit import answer
from tests.evaluation.conftest import Run, annotate, lines, noise
from tests.evaluation.judging import honest, serving


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, as the published README arranges it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scores(out: Path, run: Run) -> dict[str, dict[str, str]]:
    """By retriever and size: the row of the report's CSV."""
    assert run("report", out, "--csv", out / "all.csv").exit_code == 0
    with (out / "all.csv").open() as file:
        return {f"{row['retriever']} {row['retrieve_size']}": row for row in csv.DictReader(file)}


# -- data ----------------------------------------------------------------------------------------------------------


def test_needles_are_made_and_checked(needles: Path, here: Path, run: Run) -> None:
    films = sorted((needles / "needle/videos").iterdir())
    assert len(films) == 2
    assert all(b"avc1" in film.read_bytes() for film in films), "H.264"
    result = run("data", "check", "needle", "--data", needles, "--open")
    assert result.exit_code == 0, result.output
    assert "2 videos, 32 questions\nAll is there." in result.stdout
    assert "needle          here" in run("data", "list", "--data", needles).stdout


def test_making_needles_again_keeps_the_films(here: Path, run: Run) -> None:
    small = ("data", "needle", "--videos", 1, "--frames", 200, "--width", 64, "--height", 48, "--fps", 1)
    assert run(*small).exit_code == 0
    (film,) = (here / "data/needle/videos").iterdir()
    before = film.stat().st_mtime_ns
    assert run(*small).exit_code == 0
    assert film.stat().st_mtime_ns == before
    refused = run("data", "needle", "--videos", 1, "--frames", 20)
    assert refused.exit_code == 2
    assert "need at least" in refused.stderr


def test_check_names_what_is_wrong(here: Path, run: Run) -> None:
    good = {"question": "q", "answer": "a", "choices": ["a", "b"]}
    entries = [
        {"video_id": "v", "video_path": "data/mlvu/videos/v.npy", "duration": 1, "conversations": [good]},
        {"video_id": "w", "video_path": "data/mlvu/videos/w.npy", "conversations": [{**good, "answer": "c"}]},
    ]
    annotate(here / "data/mlvu/dev_debug_mc.json", entries)
    noise(here / "data/mlvu/videos/v.npy", 2)
    result = run("data", "check", "mlvu")
    assert result.exit_code == 1
    assert "dev_debug_mc.json: video 1 (w), question 0: answer is 'c'" in result.stdout
    assert "video 1 (w): there is no data/mlvu/videos/w.npy" in result.stdout
    assert "2 problems" in result.stderr
    missing = run("data", "check", "cgbench")
    assert missing.exit_code == 1
    assert "rekv data prepare cgbench" in missing.stderr


def test_prepare_converts_a_release(here: Path, run: Run) -> None:
    row = {"q_uid": "u1", "question": "What?", **{f"option {i}": f"o{i}" for i in range(5)}}
    annotate(here / "release/questions.json", [row])
    result = run("data", "prepare", "egoschema", "release")
    assert result.exit_code == 0, result.output
    assert "1 video, 1 question" in result.stdout
    assert "not there yet" in result.stderr
    assert (
        json.loads((here / "data/egoschema/full.json").read_text())[0]["video_path"] == "data/egoschema/videos/u1.mp4"
    )


def test_prepare_without_a_network_says_what_to_do(here: Path, run: Run) -> None:
    for name, told in (("qaego4d", "GroundVQA"), ("lvbench", "could not be fetched")):
        result = run("data", "prepare", name)
        assert result.exit_code == 1
        assert told in result.stderr


# -- eval ----------------------------------------------------------------------------------------------------------

GRID = ("--retriever", "internal,external,oracle,recent,uniform,stock", "--retrieve_size", 4, "--retrieve-size", 8)


@pytest.fixture(scope="module")
def evaluated(needles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a grid, by a process of its own that is killed after the first video, and resumed."""
    out = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "rekv", "eval", "--dataset", "needle", "--data", needles, "--out", out, *GRID]
    killed = subprocess.Popen([*map(str, command)], start_new_session=True, stderr=subprocess.DEVNULL)
    waiting = out / "tiny/needle/4-1.0/results.jsonl"
    while killed.poll() is None and not (waiting.exists() and len(waiting.read_text().splitlines()) >= 2):
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it was still at work"
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "# Evaluation" in done.stdout
    return out


@pytest.mark.slow
def test_a_grid_end_to_end(evaluated: Path, run: Run) -> None:
    found = scores(evaluated, run)
    names = {
        f"{name} {size}" for name in ("internal", "external", "oracle", "recent", "uniform", "stock") for size in (4, 8)
    }
    assert found.keys() == names
    assert all((row["videos"], row["questions"], row["failed"]) == ("2", "32", "0") for row in found.values())
    score = {name: float(row["score"]) for name, row in found.items()}
    assert score["oracle 4"] > score["recent 4"] + 0.2, "what shows the answer helps"
    assert score["internal 8"] > score["recent 8"] + 0.2, "so does finding it"
    assert float(found["oracle 8"]["hit"]) == 1.0
    assert float(found["oracle 8"]["precision"]) == 1.0
    assert float(found["recent 8"]["recall"]) == 0.0, "needles are older than the newest frames"
    assert float(found["internal 8"]["hit"]) > float(found["uniform 8"]["hit"])
    for row in found.values():
        assert float(row["first_token_ms"]) > 0
        assert float(row["encode_fps"]) > 0


@pytest.mark.slow
def test_a_run_that_was_killed_gives_the_same_file(evaluated: Path, needles: Path, here: Path, run: Run) -> None:
    """As a run that was not, in one process, of one cell alone."""
    result = run("eval", "--dataset", "needle", "--data", needles, "--retrieve-size", 4, "-q")
    assert result.exit_code == 0, result.output
    whole = lines(here / "results/tiny/needle/4-1.0/results.jsonl")
    resumed = lines(evaluated / "tiny/needle/4-1.0/results.jsonl")
    assert whole[1:] == resumed[1:]
    assert whole[0]["cell"] == resumed[0]["cell"]
    costs = lines(evaluated / "tiny/needle/4-1.0/costs.jsonl")
    assert sum("process" in line for line in costs) == 2


@pytest.mark.slow
def test_reports_and_plots(evaluated: Path, here: Path, run: Run) -> None:
    baseline = evaluated / "tiny/needle/4-1.0-recent"
    result = run("report", evaluated, "--out", "report.md", "--plots", "plots", "--baseline", baseline)
    assert result.exit_code == 0, result.output
    text = (here / "report.md").read_text()
    assert "| tiny needle internal 4 | tiny recent 4 | +" in text
    assert {path.name for path in (here / "plots").iterdir()} == {
        "needle-frames.png",
        "needle-latency.png",
        "needle-memory.png",
    }


def write_streaming(folder: Path) -> None:
    """RVS-Ego with two arrays of frames: one is missing, the other has three questions."""
    noise(folder / "data/rvs/ego/videos/a.npy", 20)
    asked = [{"question": f"q{i}", "answer": "a cup", "start_time": 1, "end_time": 4 * i + 2} for i in range(3)]
    paths = {name: f"data/rvs/ego/videos/{name}.npy" for name in ("a", "gone")}
    entries = [
        {"video_id": name, "video_path": path, "duration": 20, "conversations": asked} for name, path in paths.items()
    ]
    annotate(folder / "data/rvs/ego/ego4d_oe.json", entries)


def test_the_published_command_line(here: Path, run: Run) -> None:
    """Underscores, names and layout as published; a missing video is recorded, told, and ends in an exit code."""
    write_streaming(here)
    command = "--num_chunks 1 --model tiny --dataset rvs_ego --sample_fps 0.5 --n_local 512 --retrieve_size 4"
    result = run("eval", *command.split())
    assert result.exit_code == 3, result.output
    assert "| rvs_ego | internal 4 | 0.5 | streaming | token_f1 |" in result.stdout
    assert "gone: VideoError: " in result.stdout
    assert "3 questions failed" in result.stderr
    head, first, second = lines(here / "results/tiny/rvs_ego/4-0.5/results.jsonl")
    assert head["cell"]["n_local"] == 512
    assert [question["seen"] for question in first["questions"]] == [2, 4, 6]
    assert second["error"].startswith("VideoError")


def test_memory_policies_are_compared(here: Path, run: Run) -> None:
    write_streaming(here)
    settings = ("--dataset", "rvs_ego", "--retrieve-tokens", 32, "--retrieve-size", 2, "--retriever", "internal,stock")
    assert run("eval", *settings, "--policy", "all,value-norm:0.25").exit_code == 3  # a video is missing
    result = run("report", "results", "--csv", "all.csv")
    assert "| stock 2 |" in result.stdout
    assert "| internal 32 tokens |" in result.stdout
    assert "| internal 32 tokens value-norm:0.25 |" in result.stdout
    with (here / "all.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["retriever"] == "internal"]
    size = {row["policy"]: float(row["bytes_per_hour"]) for row in rows}
    assert set(size) == {"", "value-norm:0.25"}
    assert size["value-norm:0.25"] < size[""]
    only = run("eval", *settings, "--policy", "value-norm:0.25", "--only-eval")
    assert "| internal 32 tokens value-norm:0.25 |" in only.stdout
    assert "| stock 2 |" in only.stdout
    assert "| internal 32 tokens |" not in only.stdout


def test_an_interrupted_evaluation_says_that_it_goes_on(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(model: Any, works: Any, progress: Any) -> Iterator[Any]:
        yield answer(model, works[0])
        raise KeyboardInterrupt

    write_streaming(here)
    monkeypatch.setattr("rekv.evaluation.runner.in_process", stopped)
    result = run("eval", "--dataset", "rvs_ego", "--retrieve-size", 4)
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    assert len(lines(here / "results/tiny/rvs_ego/4-1.0/results.jsonl")) == 2


def test_answers_are_judged_over_http(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_streaming(here)
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    options = ("eval", "--dataset", "rvs_ego", "--retrieve-size", 4)
    assert run(*options, "-q").exit_code == 3
    with serving(honest) as server:
        result = run(*options, "--only_eval", "--judge-model", "umpire", "--judge-url", server.url)
    assert result.exit_code == 3
    assert "- judge: umpire, prompt rekv-1" in result.stdout
    assert "| streaming | judge | 0.0 [" in result.stdout
    assert "Judged results/tiny/rvs_ego/4-1.0 with" in result.stderr
    assert len(server.requests) == len({request["messages"][0]["content"] for request in server.requests})
    report = run("report", "results").stdout
    assert "- judge: umpire, prompt rekv-1" in report


def test_choices_without_a_truth_go_to_a_submission(here: Path, run: Run) -> None:
    entries = []
    for i in range(2):
        noise(here / f"data/egoschema/videos/u{i}.npy", 6, seed=i)
        asked = [{"question": "what?", "answer": None, "choices": ["red", "blue", "green", "white", "none"]}]
        path = f"data/egoschema/videos/u{i}.npy"
        entries.append({"video_id": f"u{i}", "video_path": path, "duration": 6, "conversations": asked})
    annotate(here / "data/egoschema/full.json", entries)
    result = run("eval", "--dataset", "egoschema", "--paper", "--retrieve-size", 2)
    assert result.exit_code == 0, result.output
    folder = here / "results/tiny/egoschema/2-1.0-paper"
    rows = [line.split(",") for line in (folder / "submission.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["q_uid", "u0", "u1"]
    assert all(row[1] in "01234" for row in rows[1:])
    assert (folder / "results.csv").read_text().startswith("video_id,question,choices,answer,correct_choice")


def test_runs_of_other_settings_are_not_taken_for_those_asked_for(here: Path, run: Run) -> None:
    write_streaming(here)
    assert (
        run("eval", "--dataset", "rvs_ego", "--retriever", "recent", "--retrieve-size", 2).exit_code == 3
    )  # a video is missing
    result = run("eval", "--dataset", "rvs_ego", "--only-eval", "--retrieve-size", 2)
    assert result.exit_code == 1
    assert "results/tiny/rvs_ego/2-1.0-recent" in result.stderr.replace("\n", "")


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--dataset", "needle"), 1, "`rekv data needle` draws it"),
        (("--dataset", "nodle"), 2, "did you mean 'needle'"),
        (("--dataset", "mlvu"), 1, "rekv data prepare mlvu"),
        (("--dataset", "qaego4d"), 1, "`rekv data prepare qaego4d FOLDER` makes it"),
        (("--dataset", "rvs_ego", "--num-chunks", 0), 2, "0 is not in the range"),
        (("--dataset", "rvs_ego", "--num-chunks", 2, "--gpus-per-worker", -1), 2, "not in the range"),
        (("--dataset", "rvs_ego", "--retrieve-size", "many"), 2, "whole numbers"),
        (("--dataset", "rvs_ego", "--retriever", "nearest"), 2, "no retriever 'nearest'"),
        (("--dataset", "rvs_ego", "--policy", "value-norm:2"), 2, "value-norm"),
        (("--dataset", "rvs_ego", "--policy", "values"), 2, "did you mean 'value-norm'"),
        (("--dataset", "rvs_ego", "--frame-tokens", 4, "--retrieve-size", 2), 2, "a frame of"),
        (("--dataset", "rvs_ego", "--judge-url", "http://x"), 2, "go with --judge-model"),
        (("--dataset", "rvs_ego", "--only-eval"), 1, "there is no run"),
    ],
)
def test_mistakes_are_told(here: Path, run: Run, options: tuple[object, ...], code: int, told: str) -> None:
    write_streaming(here)
    result = run("eval", *options)
    assert (result.exit_code, told in result.stderr) == (code, True), result.output
