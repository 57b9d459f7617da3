"""Workers: they share a queue, are replaced when they are lost, and answer as this process does."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from rekv.cluster import Cluster, require_ray, workers
from rekv.cluster.connection import _settings, _spill
from rekv.errors import ClusterError, ConfigError
from rekv.evaluation.datasets.needle import make
from tests.evaluation.conftest import FILM, Run
from tests.evaluation.working import die, kill, kill_once, load, refuse, use, warn

if TYPE_CHECKING:
    from rekv.cluster.crew import Workers  # imports Ray, which is to be set up first

TRIES = 3


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One cluster of this machine for this file: `workers` uses what it finds, and leaves it alone."""
    from rekv.cluster.connection import _connected

    with _connected(None):
        import ray

        yield ray
    assert not ray.is_initialized()
    names = [process.name() for process in psutil.Process().children(recursive=True)]
    assert not [name for name in names if name.startswith(("ray", "gcs"))], "nothing is left behind"


class Told:
    """What was told of progress."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def __call__(self, more: float) -> None:
        self.all.append(more)


@pytest.mark.usefixtures("ray")
def test_workers_that_cannot_load_end_the_work(caplog: pytest.LogCaptureFixture) -> None:
    with workers(Cluster(1), die) as crew, pytest.raises(ClusterError, match="one after the other"):
        crew.one(use, 0.0, Told())
    assert len(caplog.records) == TRIES - 1


@pytest.mark.usefixtures("ray")
def test_too_few_gpus_are_told_before_anything_waits() -> None:
    told = "2 workers with 64 GPUs each do not fit"
    with pytest.raises(ClusterError, match=told), workers(Cluster(2, gpus_per_worker=64), load):
        pass


def test_what_spills_over_lies_where_temporary_files_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that path is: Ray's own files go elsewhere then, to a place that may be small."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with _settings(None) as settings, _spill(None) as folder:
        assert folder is not None
        assert Path(folder).parent == tmp_path
        assert Path(settings["_temp_dir"]).parent != tmp_path
    assert not Path(folder).exists()


def test_a_part_of_a_gpu_lies_on_one() -> None:
    """Eight GPUs have room for eight workers with 0.6 of one each, not for thirteen."""
    from rekv.cluster.crew import _fit

    assert [_fit(8, gpus) for gpus in (0.3, 0.5, 0.6, 1, 3)] == [24, 16, 8, 8, 2]
    assert _fit(0, 0.5) == 0


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_where_nothing_listens_is_told_at_once(address: str) -> None:
    with pytest.raises(ClusterError, match=f"no Ray cluster at {address}"), workers(Cluster(1, address=address), load):
        pass


@pytest.fixture(scope="module")
def crew(ray: Any) -> "Iterator[Workers[list[int]]]":
    with workers(Cluster(2, threads=1), load) as crew:
        while len({result[0] for _, result in crew.run(use, [0.2] * 4, Told()) if isinstance(result, tuple)}) < 2:
            pass  # until both have loaded
        yield crew
    assert ray.is_initialized(), "it is not ours to end"


def test_what_a_worker_warns_of_is_told_here(crew: "Workers[list[int]]", caplog: pytest.LogCaptureFixture) -> None:
    found = list(crew.run(warn, ["one", "two"], Told()))
    assert {item for item, _ in found} == {"one", "two"}
    told = [(record.name, record.getMessage()) for record in caplog.records]
    assert sorted(told) == [("rekv.some.where", "it says one"), ("rekv.some.where", "it says two")]


def test_a_queue_is_shared(crew: "Workers[list[int]]") -> None:
    told = Told()
    seconds = [3.0, *[0.2] * 6]
    found = list(crew.run(use, seconds, told))
    assert sorted(item for item, _ in found) == sorted(seconds)
    places = [result[0] for _, result in found if not isinstance(result, ClusterError)]
    assert len(set(places)) == 2
    assert sorted(map(places.count, set(places))) == [1, 6], "while one does what is long, the other does the rest"
    assert sum(told.all) == pytest.approx(sum(seconds))
    assert max(told.all) < 3, "what is long is told in parts"
    ((_, again),) = crew.run(use, [0.1], told)
    assert not isinstance(again, ClusterError)
    assert again[1] > 1, "it was loaded once"
    assert again[2] == "1", "as many threads as were asked for"


def test_a_lost_worker_is_replaced(
    crew: "Workers[list[int]]", tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    told = Told()
    with caplog.at_level(logging.WARNING, "rekv"):
        assert crew.one(kill_once, tmp_path / "marker", told) == "done"
    assert [record.getMessage() for record in caplog.records] == ["a worker was lost at work; another one is started"]
    assert min(told.all) == -5.0, "what was lost is taken back"
    assert sum(told.all) == 5.0
    assert capfd.readouterr() == ("", ""), "Ray says nothing of its own"


def test_what_loses_its_worker_again_and_again_is_a_failure(crew: "Workers[list[int]]") -> None:
    found = dict(crew.run(kill, [False, True], Told()))
    assert found[False] == "done"
    assert isinstance(found[True], ClusterError)
    assert f"{TRIES} workers were lost over this" in str(found[True])
    assert crew.one(kill, False, Told()) == "done", "the others work on"


def test_what_is_raised_there_is_raised_here(crew: "Workers[list[int]]") -> None:
    with pytest.raises(ConfigError) as caught:
        crew.one(refuse, 7, Told())
    assert str(caught.value) == "7 is too much"


def test_who_asks_can_stop(crew: "Workers[list[int]]") -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    begun = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        crew.one(use, 60.0, stop)
    assert time.perf_counter() - begun < 5


def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ClusterError, match="no Ray cluster at nowhere"), workers(Cluster(2, address="nowhere"), load):
        pass


def test_without_ray_it_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, needles: Path, run: Run) -> None:
    monkeypatch.setattr("rekv.cluster.connection.find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"pip install 'rekv\[cluster\]'"):
        require_ray()
    result = run("eval", "--dataset", "needle", "--data", needles, "--num-chunks", 2)
    assert result.exit_code == 1
    assert "pip install 'rekv[cluster]'" in result.stderr


# -- an evaluation -------------------------------------------------------------------------------------------------


def at_work(driver: psutil.Process) -> Sequence[psutil.Process]:
    """Workers of this process that have a video at hand."""
    return [process for process in driver.children(recursive=True) if "_Actor.work" in "".join(process.cmdline())]


def until(condition: Callable[[], object], running: subprocess.Popen[str]) -> None:
    while not condition():
        assert running.poll() is None, "it ended before it could be disturbed"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_resumed_and_a_worker_killed_it_gives_the_same_file(tmp_path: Path, run: Run) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    assert len(list(make(data, 3, FILM))) == 3
    options = ["--dataset", "needle", "--data", data, "--retriever", "internal,recent", "--retrieve-size", 4]
    command = [sys.executable, "-m", "rekv", "eval", *map(str, options), "--out", str(out), "--num-chunks", "2"]
    results = out / "tiny/needle/4-1.0/results.jsonl"

    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True)
    until(lambda: results.exists() and len(results.read_text().splitlines()) >= 2, first)
    left = psutil.Process(first.pid).children(recursive=True)
    left = [process for process in left if not process.name().endswith("Agent")]  # which follow within a minute
    first.kill()
    first.wait()
    gone, alive = psutil.wait_procs(left, 30)
    assert gone
    assert not alive, "workers end with the command, even when it is killed"
    assert len(results.read_text().splitlines()) < 4

    second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: at_work(psutil.Process(second.pid)), second)
    at_work(psutil.Process(second.pid))[0].kill()
    said, told = second.communicate()
    assert second.returncode == 0, told
    assert said.startswith("# Evaluation")
    assert "WARNING: a worker was lost at work; another one is started" in told
    assert "raylet" not in said + told

    assert run("eval", *options, "--out", tmp_path / "here", "-q").exit_code == 0
    for name in ("4-1.0", "4-1.0-recent"):
        ours, theirs = (folder / "tiny/needle" / name / "results.jsonl" for folder in (tmp_path / "here", out))
        assert ours.read_text() == theirs.read_text()
