"""`rekv ingest --from-list`: an archive, each video into a session of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from rekv.cli import main
from rekv.errors import ConfigError
from rekv.ingestion import archive
from rekv.store.store import Store
from rekv.world import demo_story, render_film
from tests.cli.conftest import Run
from tests.cli.terminal import stop
from tests.cli.test_ingest import assert_same, rows, told

LENGTHS = {"lobby": 150, "yard": 40, "gate": 30}  # seconds


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    scene = demo_story(1).scene
    for name, seconds in LENGTHS.items():
        render_film(folder / f"{name}.mp4", replace(scene, n_frames=seconds), width=64, height=48, fps=1)
    return folder


@pytest.fixture
def listed(films: Path, tmp_path: Path) -> Path:
    """A list with a line of each kind."""
    gate = json.dumps({"name": "gate.2", "source": str(films / "gate.mp4")})
    lines = ["# an archive", str(films / "lobby.mp4"), "", f"back\t{films / 'yard.mp4'}", gate]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "list.txt"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(scope="module")
def whole(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store into which each was read by itself, in one go."""
    store = tmp_path_factory.mktemp("whole")
    for name, session in {"lobby": "lobby", "yard": "back", "gate": "gate.2"}.items():
        args = ("ingest", films / f"{name}.mp4", "--session", session, "--store", store, "-q")
        assert CliRunner().invoke(main, [str(arg) for arg in args]).exit_code == 0
    return store


def assert_all_same(store: Path, whole: Path) -> None:
    assert Store(store).names() == ["back", "gate.2", "lobby"]
    for name in Store(store).names():
        assert_same(store, name, name, whole)


def test_each_video_becomes_a_session(run: Run, listed: Path, store: Path, whole: Path) -> None:
    result = run("ingest", "--from-list", listed, "--store", store, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    found = [(report["session"], report["status"], report["frames_read"]) for report in said]
    assert found == [("lobby", "finished", 150), ("back", "finished", 40), ("gate.2", "finished", 30)]
    assert "3 videos: 3 read now (220 frames), 0 already there." in result.stderr
    assert_all_same(store, whole)
    again = run("ingest", "--from-list", listed, "--store", store)
    assert again.exit_code == 0
    assert "Loading" not in again.stderr, "nothing is left to do"
    assert "3 videos: 0 read now (0 frames), 3 already there." in again.stderr


def test_failures_are_told_at_the_end_and_tried_again(run: Run, films: Path, tmp_path: Path, store: Path) -> None:
    broken, lost = tmp_path / "broken.mp4", tmp_path / "lost.mp4"
    broken.write_bytes((films / "yard.mp4").read_bytes()[:100])
    listed = tmp_path / "list.txt"
    listed.write_text(f"{broken}\n{lost}\n{films / 'gate.mp4'}\n")
    result = run("ingest", "--from-list", listed, "--store", store, "--json")
    assert result.exit_code == 1
    assert [report["status"] for report in json.loads(result.stdout)] == ["failed", "failed", "finished"]
    assert "2 videos failed; the same command tries again:" in result.stderr
    assert f"{lost}: VideoError: " in result.stderr
    assert Store(store).names() == ["gate"]
    for film in (broken, lost):
        film.write_bytes((films / "yard.mp4").read_bytes())
    result = run("ingest", "--from-list", listed, "--store", store)
    told(result, 0, "3 videos: 2 read now (80 frames), 1 already there.")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a/x.mp4", "b/y.mp4", "c/X.mkv"], "lines 1, 3: all are to be session 'x'"),
        (["a b.mp4"], "line 1: 'a b' cannot name a session"),
        (["../up\tx.mp4"], "line 1: '../up' cannot name a session"),
        (['{"name": "x"}'], 'line 1: needs "source"'),
        (["{oops"], "line 1: "),
        (["# nothing"], "lists no video"),
    ],
)
def test_lists_that_cannot_be(run: Run, tmp_path: Path, store: Path, lines: list[str], message: str) -> None:
    (tmp_path / "list.txt").write_text("\n".join(lines))
    told(run("ingest", "--from-list", tmp_path / "list.txt", "--store", store), 2, message)
    assert not store.exists()


def test_a_session_of_another_video_is_not_continued(run: Run, films: Path, tmp_path: Path, store: Path) -> None:
    (tmp_path / "list.txt").write_text(f"a\t{films / 'gate.mp4'}\n")
    assert run("ingest", films / "yard.mp4", "--session", "a", "--store", store).exit_code == 0
    refused = run("ingest", "--from-list", tmp_path / "list.txt", "--store", store)
    told(refused, 2, "line 1: the store has a session 'a', of another video")
    assert len(rows(store, "a")) == 40


def test_the_rest_is_read_by_what_read_the_others(run: Run, films: Path, tmp_path: Path, store: Path) -> None:
    """Their model and dtype, unless others are named; where they differ, one has to be."""
    listed = tmp_path / "list.txt"
    listed.write_text(f"a\t{films / 'gate.mp4'}\nb\t{films / 'gate.mp4'}\n")
    first = ("ingest", films / "gate.mp4", "--store", store, "-q", "--dtype", "bfloat16", "--session", "a")
    assert run(*first).exit_code == 0
    assert run("ingest", "--from-list", listed, "--store", store).exit_code == 0
    assert {Store(store).open(name).meta.model.dtype for name in "ab"} == {"bfloat16"}
    told(run("ingest", "--from-list", listed, "--store", store, "--dtype", "float32"), 1, "2 videos failed")
    listed.write_text("".join(f"{name}\t{films / 'gate.mp4'}\n" for name in "abe"))
    other = ("--sample-fps", 0.25)  # which neither was read at
    told(run("ingest", "--from-list", listed, "--store", store, *other), 1, "2 videos failed")
    assert Store(store).open("e").meta.model.dtype == "bfloat16", "as the two that cannot go on so"
    assert run("ingest", films / "gate.mp4", "--store", store, "-q", "--session", "c").exit_code == 0
    listed.write_text("".join(f"{name}\t{films / 'gate.mp4'}\n" for name in "abcd"))
    told(run("ingest", "--from-list", listed, "--store", store), 2, "say by --dtype how the others are to be read")
    assert "d" not in Store(store).names()


def test_what_was_done_is_told_whatever_ends_it(
    run: Run, films: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{films / 'gate.mp4'}\n{films / 'yard.mp4'}\n{tmp_path / 'lost.mp4'}\n")
    read = archive.read

    def once(model: Any, video: Any, name: str, *args: Any) -> Any:
        if name == "yard":
            raise ConfigError("no room for this")
        return read(model, video, name, *args)

    monkeypatch.setattr(archive, "read", once)
    result = run("ingest", "--from-list", listed, "--store", store, "--json")
    assert result.exit_code == 2
    assert [report["status"] for report in json.loads(result.stdout)] == ["finished", "failed"]
    for text in ("3 videos: 1 read now (30 frames)", "lost.mp4: VideoError", "no room for this"):
        assert text in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "ram"), [((), None), (("--num-chunks", 8), 2 << 30), (("--num-chunks", 8, "--ram", "3GiB"), 3 << 30)]
)
def test_workers_share_the_memory(
    run: Run, listed: Path, store: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], ram: int | None
) -> None:
    found = []

    def made(tasks: Any, *_: Any) -> Any:
        found.extend(task.settings.get("ram") for task in tasks)
        return iter(())

    monkeypatch.setattr("rekv.cli.ingest_list._made", made)
    monkeypatch.setattr("rekv.store.limits.default_ram", lambda: 16 << 30)
    run("ingest", "--from-list", listed, "--store", store, *options)
    assert found
    assert set(found) == {ram}


def test_a_list_from_another_system(films: Path, tmp_path: Path, store: Path) -> None:
    """With a mark of its encoding, its own line ends, and names that hold what Unicode calls ends of lines."""
    listed = tmp_path / "list.txt"
    listed.write_bytes('\ufeff# an archive\r\na\tx\u2028y\rz.mp4\r\n{"name": "b", "source": "z\\u0000"}\r\n'.encode())
    entries = archive.read_list(listed, Store(store))
    assert [(entry.name, entry.path, entry.line) for entry in entries] == [("a", "x\u2028y\rz.mp4", 2), ("b", "z\0", 3)]
    reports = archive.survey(entries, listed, Store(store), {}, {}, None, None).reports
    assert [report.status for report in reports] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("x.mp4", "--from-list", "{list}"), "reads them whole"),
        (("--from-list", "{list}", "--start", 5), "reads them whole"),
        (("--from-list", "nowhere.txt"), "does not exist"),
        (("--session", "x"), "Missing argument 'VIDEO'"),
        (("x.mp4", "--session", "x", "--num-chunks", 2), "go with --from-list"),
    ],
)
def test_mistakes_are_told(run: Run, listed: Path, store: Path, options: tuple[object, ...], message: str) -> None:
    told(run("ingest", *(str(x).format(list=listed) for x in options), "--store", store), 2, message)


@pytest.mark.slow
def test_ctrl_c_and_the_same_command_again(run: Run, listed: Path, store: Path, whole: Path) -> None:
    args = ("ingest", "--from-list", listed, "--store", store)
    stopped = stop(*args, "--json", when=rb"[1-9]\d*x realtime")
    assert stopped.code == 130
    assert b"the same command goes on there" in stopped.told
    assert b"Traceback" not in stopped.told
    assert 0 < len(rows(store, "lobby")) < LENGTHS["lobby"]
    told(run(*args), 0, "3 videos: 3 read now")
    assert_all_same(store, whole)


@pytest.mark.slow
def test_workers_read_an_archive_and_end_with_ctrl_c(run: Run, listed: Path, store: Path, whole: Path) -> None:
    args = ("ingest", "--from-list", listed, "--store", store)
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored, which would be inherited
    try:
        running = subprocess.Popen(
            [sys.executable, "-m", "rekv", *map(str, args), "--num-chunks", "2"],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, ours)
    while "lobby" not in Store(store).names() or not rows(store, "lobby"):
        assert running.poll() is None
        time.sleep(0.02)
    processes = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = running.communicate()
    assert running.returncode == 130, said
    assert "the same command goes on there" in said
    assert "Traceback" not in said
    assert not psutil.wait_procs(processes, 10)[1], "no process is left behind"
    assert len(rows(store, "lobby")) < LENGTHS["lobby"]
    told(run(*args), 0, "3 videos: ")
    assert_all_same(store, whole)
