"""Runs on disk: resumed at the video, failures kept, the same file whatever happened on the way."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rekv.engine import Model
from rekv.errors import ConfigError, DataError
from rekv.evaluation import runner
from rekv.evaluation.cell import Cell, Grid
from rekv.evaluation.report import label
from rekv.evaluation.run import COSTS, RESULTS, Run, find_runs
from rekv.evaluation.runner import Plan, make
from rekv.evaluation.unit import Outcome, Work, answer
from tests.evaluation.conftest import annotate, cell, noise
from tests.support import SPOKEN, tiny_model

VIDEOS = 4


class Silent:
    """Watches nothing; may be told to stop after some videos."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.left = stop_after
        self.videos: list[int] = []

    def begin(self, cells: Sequence[Cell], videos: int, seconds: float) -> None:
        self.videos.append(videos)

    def encoded(self, seconds: float) -> None: ...

    def answered(self, outcome: Outcome) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A benchmark of four videos, two questions each."""
    entries = []
    for i in range(VIDEOS):
        noise(tmp_path / f"data/needle/videos/v{i}.npy", 8, seed=i)
        asked = [{"question": f"w{7 + n}", "answer": "w1", "temporal_windows": [[2, 4]]} for n in range(2)]
        path = f"data/needle/videos/v{i}.npy"
        entries.append({"video_id": f"v{i}", "video_path": path, "duration": 8, "conversations": asked})
    annotate(tmp_path / "data/needle/test_oe.json", entries)
    return tmp_path / "data"


def cells() -> list[Cell]:
    return [cell(retriever=name, retrieve_size=size) for name in ("internal", "recent") for size in (2, 4)]


def results(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob(RESULTS))}


def test_a_run_that_was_stopped_goes_on_to_the_same_file(model: Model, data: Path, tmp_path: Path) -> None:
    make(model, cells(), Plan(data, tmp_path / "whole"), Silent())
    with pytest.raises(KeyboardInterrupt):
        make(model, cells(), Plan(data, tmp_path / "resumed"), Silent(stop_after=2))
    assert results(tmp_path / "whole") != results(tmp_path / "resumed")
    watcher = Silent()
    make(model, cells(), Plan(data, tmp_path / "resumed"), watcher)
    assert watcher.videos == [2], "two were left"
    assert results(tmp_path / "whole") == results(tmp_path / "resumed")
    assert len(results(tmp_path / "whole")) == 4
    run = Run.read(tmp_path / "resumed" / cells()[0].folder)
    assert [len(run.processes), len(run.records), len(run.costs)] == [2, VIDEOS, VIDEOS]
    again = Silent()
    make(model, cells(), Plan(data, tmp_path / "resumed"), again)
    assert again.videos == [0]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_half_a_line_is_no_result(model: Model, data: Path, tmp_path: Path, cut: int) -> None:
    """A process that was killed while it wrote, at any byte."""
    make(model, [cell()], Plan(data, tmp_path / "out"), Silent())
    file = tmp_path / "out" / cell().folder / RESULTS
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    costs = file.with_name(COSTS)
    costs.write_bytes(costs.read_bytes()[:-3])
    watcher = Silent()
    make(model, [cell()], Plan(data, tmp_path / "out"), watcher)
    assert watcher.videos == [1]
    assert file.read_bytes() == whole
    assert sorted(Run.read(file.parent).costs) == list(range(VIDEOS))


def test_results_that_come_in_any_order_give_the_same_file(
    model: Model, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    make(model, cells(), Plan(data, tmp_path / "whole"), Silent())

    def backwards(model: Model, works: Sequence[Work], progress: Any) -> Any:
        return (answer(model, work, progress) for work in reversed(works))

    monkeypatch.setattr(runner, "in_process", backwards)
    make(model, cells(), Plan(data, tmp_path / "other"), Silent())
    assert results(tmp_path / "whole") == results(tmp_path / "other")


def test_a_cell_that_was_added_asks_only_what_is_missing(model: Model, data: Path, tmp_path: Path) -> None:
    plan = Plan(data, tmp_path / "out")
    make(model, cells()[:2], plan, Silent())
    before = results(tmp_path / "out")
    make(model, cells(), plan, Silent())
    after = results(tmp_path / "out")
    assert len(after) == 4
    assert before.items() <= after.items()


def test_failures_are_kept_and_tried_again(model: Model, data: Path, tmp_path: Path) -> None:
    film = data / "needle/videos/v2.npy"
    film.rename(tmp_path / "away.npy")
    (run,) = make(model, [cell()], Plan(data, tmp_path / "out"), Silent())
    assert run.records[2].failed
    assert not any(run.records[i].failed for i in (0, 1, 3))
    assert "no such file" in json.loads((run.folder / RESULTS).read_text().splitlines()[3])["error"]
    (tmp_path / "away.npy").rename(film)
    watcher = Silent()
    (run,) = make(model, [cell()], Plan(data, tmp_path / "out"), watcher)
    assert watcher.videos == [1]
    make(model, [cell()], Plan(data, tmp_path / "whole"), Silent())
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_run_of_other_settings_is_not_mixed_in(model: Model, data: Path, tmp_path: Path) -> None:
    """Settings that are not in the folder's name."""
    make(model, [cell()], Plan(data, tmp_path / "out"), Silent())
    with pytest.raises(ConfigError, match="a run with n_local 40, not 80: choose another --out"):
        make(model, [cell(n_local=80)], Plan(data, tmp_path / "out"), Silent())


def test_a_run_on_other_data_is_not_mixed_in(model: Model, data: Path, tmp_path: Path) -> None:
    plan = Plan(data, tmp_path / "out")
    make(model, [cell()], plan, Silent())
    file = data / "needle/test_oe.json"
    file.write_text(file.read_text().replace("w1", "w2"))
    with pytest.raises(ConfigError, match=r"sha256 .* --fresh"):
        make(model, [cell()], plan, Silent())
    (run,) = make(model, [cell()], Plan(data, tmp_path / "out", fresh=True), Silent())
    assert len(run.records) == VIDEOS
    assert len(Run.read(run.folder).processes) == 1


def test_other_versions_are_told_and_noted(
    model: Model, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(model, [cell()], Plan(data, tmp_path / "out"), Silent(stop_after=1))
    monkeypatch.setattr("torch.version.cuda", "99")
    with caplog.at_level(logging.WARNING):
        (run,) = make(model, [cell()], Plan(data, tmp_path / "out"), Silent())
    assert "begun with other versions" in caplog.text
    assert [process["cuda"] for process in Run.read(run.folder).processes][1] == "99"


def test_a_run_says_how_it_was_made(model: Model, data: Path, tmp_path: Path) -> None:
    (run,) = make(model, [cell()], Plan(data, tmp_path / "out"), Silent())
    head = json.loads((run.folder / RESULTS).read_text().splitlines()[0])
    assert head["cell"] == cell().as_json()
    assert {"rekv", "git", "torch", "transformers", "python", "cpu", "gpu"} <= head["environment"].keys()
    assert head["data"]["videos"] == VIDEOS
    assert {"started", "argv"} <= run.processes[0].keys() if run.processes else True
    assert {"started", "argv", "torch"} <= Run.read(run.folder).processes[0].keys()


def test_runs_are_found_below_a_folder(model: Model, data: Path, tmp_path: Path) -> None:
    make(model, cells(), Plan(data, tmp_path / "out"), Silent())
    assert {run.cell for run in find_runs([tmp_path / "out"])} == set(cells())
    with pytest.raises(DataError, match="there is no run"):
        find_runs([data])


@pytest.mark.parametrize("text", ["", "{}\n", '{"format": 99}\n', "no JSON\n"])
def test_files_that_are_no_runs(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULTS).write_text(text)
    (tmp_path / COSTS).write_text("")
    with pytest.raises(DataError, match=RESULTS):
        Run.read(tmp_path)


def test_a_cell_of_before_there_were_packed_weights_is_read() -> None:
    data = cell().as_json()
    assert data.pop("weights") is None
    assert Cell.from_json(data) == cell()
    assert cell(weights="int4").folder != cell().folder
    assert cell(weights="int4").encoding != cell().encoding


def test_a_cell_of_another_version_is_refused() -> None:
    data = cell().as_json()
    del data["choose"]
    with pytest.raises(ConfigError, match="another version of rekv: it differs in choose"):
        Cell.from_json(data)


# -- the grid ------------------------------------------------------------------------------------------------------


def test_folders_are_named_as_published() -> None:
    published = cell(model="llava_ov_7b", dataset="qaego4d", retrieve_size=64, sample_fps=0.5)
    assert published.folder == "llava_ov_7b/qaego4d/64-0.5"
    other = cell(model="org/name", dataset="qaego4d", retriever="recent", retrieve_size=64, chunk_size=2, paper=True)
    assert other.folder == "org--name/qaego4d/64-1.0-recent-chunk_size2-paper"
    searched = cell(query="phrases", min_gap=2.0, shared_picks=True, mode="streaming", retrieve_size=64)
    assert searched.folder == "tiny/needle/64-1.0-queryphrases-min_gap2.0-shared_picks-streaming"


def test_a_grid_has_no_cell_twice(model: Model) -> None:
    grid = Grid(["needle"], ("internal", "full", "recent"), (4, 8), (1, 2))
    found = [(c.retriever, c.retrieve_size, c.chunk_size) for c in grid.cells(model, "tiny")]
    internal = [("internal", size, chunk) for size in (4, 8) for chunk in (1, 2)]
    assert found == [*internal, ("full", 0, 1), ("recent", 4, 1), ("recent", 8, 1)]


def test_memory_policies_make_a_grid_and_baselines_have_none(model: Model) -> None:
    grid = Grid(
        ["needle"], ("internal", "full", "stock"), (4, 8), policies=(None, "value-norm:0.5"), retrieve_tokens=64
    )
    cells = grid.cells(model, "tiny")
    found = [(c.retriever, c.policy, c.retrieve_tokens) for c in cells]
    assert found == [
        ("internal", None, 64),
        ("internal", "value-norm:0.5", 64),
        ("full", None, None),
        ("stock", None, None),
        ("stock", None, None),
    ]
    assert len({c.encoding for c in cells}) == 2
    assert cells[1].folder == "tiny/needle/64-0.5-retrieve_tokens64-policyvalue-norm-0.5"
    assert [label(c) for c in cells] == [
        "internal 64 tokens",
        "internal 64 tokens value-norm:0.5",
        "full",
        "stock 4",
        "stock 8",
    ]


def test_the_paper_has_its_own_lengths(model: Model) -> None:
    def lengths(dataset: str, *, paper: bool) -> int:
        return Grid([dataset], paper=paper).cells(model, "tiny")[0].max_new_tokens

    assert (lengths("activitynet_qa", paper=True), lengths("rvs_ego", paper=True)) == (1024, 256)
    assert lengths("rvs_ego", paper=False) == SPOKEN


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        (Grid(["needle"], ("nearest",)), "no retriever 'nearest'"),
        (Grid(["needle"], retrieve_sizes=(3,), chunk_sizes=(2,)), "chunk_size is 2"),
        (Grid(["needle"], limit=0), "limit is 0"),
        (Grid(["needle"], ("external",)), "chooses by a dual encoder"),
        (Grid(["needle"], min_gap=-1.0), "min_gap is -1"),
        (Grid(["needle"], policies=("pol:2",)), "no memory policy 'pol'"),
        (Grid(["needle"], frame_tokens=0), "frame_tokens is 0"),
        (Grid(["needle"], retrieve_tokens=0), "retrieve_tokens is 0"),
        (Grid(["nodle"]), "did you mean 'needle'"),
    ],
)
def test_grids_that_cannot_be(model: Model, grid: Grid, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        grid.cells(model, "tiny")
