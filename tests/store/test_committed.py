"""A catalog that has lost its write-ahead log: no frame that was committed goes for it, whatever is done next."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import torch

from rekv.errors import StoreError
from rekv.store.catalog import FILE
from rekv.store.committed import noted_frames
from rekv.store.files import Files
from rekv.store.names import COMMITTED, segment_files
from rekv.store.retention import pin
from rekv.store.segment import WRITTEN, Segment
from rekv.store.verify import verify
from tests.store.faults import append_rest, ask, assert_intact, open_session

ROOT = Path(__file__).parents[2]
KILLED = """
import os, sys
from pathlib import Path
from rekv.store import writer
from rekv.store.catalog import Catalog
from tests.store.faults import append_rest, open_session
writer.SEGMENT_SLOTS = (6, 6)
session = open_session(Path(sys.argv[1]), kv=sys.argv[3])
append_rest(session, int(sys.argv[2]))
os._exit(9)
"""
COMMITS = 40


def killed(path: Path, frames: int = COMMITS, kv: str = "raw") -> Path:
    """A session whose process died when all was durable, and before SQLite put its log away."""
    run = subprocess.run([sys.executable, "-c", KILLED, str(path), str(frames), kv], cwd=ROOT, timeout=120)
    assert run.returncode == 9
    assert (path / f"{FILE}-wal").stat().st_size > 0
    return path


def without_log(path: Path) -> None:
    (path / f"{FILE}-wal").unlink()
    (path / f"{FILE}-shm").unlink(missing_ok=True)


def damaged_log(path: Path, share: float = 0.125) -> None:
    log = path / f"{FILE}-wal"
    with open(log, "r+b") as file:
        file.seek(int(log.stat().st_size * share))
        file.write(os.urandom(64))
    (path / f"{FILE}-shm").unlink(missing_ok=True)


def mostly_whole_log(path: Path) -> None:
    damaged_log(path, 0.75)


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return killed(tmp_path_factory.mktemp("dead") / "session")


@pytest.fixture
def path(dead: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dead, tmp_path / "session"))


pytestmark = pytest.mark.usefixtures("_small_segments")
LOSSES = pytest.mark.parametrize("lose", [without_log, damaged_log, mostly_whole_log])


def states(path: Path) -> list[list[int]]:
    return [Segment(Files(), path / file).table("state").tolist() for file in segment_files(path)]


@LOSSES
def test_what_a_lost_log_held_is_found_and_taken_in_again(
    lose: Callable[[Path], None], path: Path, truth: Sequence[torch.Tensor]
) -> None:
    lose(path)
    found = verify(path)
    assert not found.ok
    (problem,) = found.problems
    assert (problem.kind, problem.file) == ("catalog", FILE)
    assert problem.frames == tuple(range(COMMITS - len(problem.frames), COMMITS))
    assert f"{len(problem.frames)} whole frames" in problem.message
    assert "are not in the catalog" in problem.message
    mended = verify(path, repair=True)
    assert (mended.ok, mended.frames) == (True, COMMITS)
    assert verify(path).problems == []
    assert assert_intact(path, truth) == COMMITS
    with open_session(path) as session:
        append_rest(session, 44)
    assert assert_intact(path, truth) == 44
    assert verify(path).problems == []


@LOSSES
def test_nobody_writes_over_what_a_lost_log_held(
    lose: Callable[[Path], None], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lose(path)
    before = states(path)
    session = open_session(path)
    assert "committed frames are not in the catalog" in caplog.text
    with pytest.raises(StoreError, match=r"frames in it are not in its catalog.*`rekv verify session --repair`"):
        append_rest(session, 44)
    assert states(path) == before
    assert sum(map(sum, before)) == COMMITS * WRITTEN
    verify(path, repair=True)
    assert ask(open_session(path)).frames_seen == COMMITS


def test_the_number_is_lost_as_well(path: Path) -> None:
    """Or was never noted, by an older rekv: then all that is whole counts as committed."""
    without_log(path)
    (path / COMMITTED).write_bytes(b"nonsense")
    assert noted_frames(path) is None
    with pytest.raises(StoreError, match="40 frames in it are not in its catalog"):
        append_rest(open_session(path), 44)
    assert len(verify(path).problems[0].frames) == COMMITS
    assert verify(path, repair=True).frames == COMMITS
    assert noted_frames(path) == COMMITS


def test_a_session_of_an_older_rekv_goes_on(path: Path, truth: Sequence[torch.Tensor]) -> None:
    (path / COMMITTED).unlink()
    assert verify(path).problems == []
    with open_session(path) as session:
        append_rest(session, 44)
    assert noted_frames(path) == 44
    assert assert_intact(path, truth) == 44


def test_what_was_never_committed_is_no_problem_and_is_dropped(path: Path, truth: Sequence[torch.Tensor]) -> None:
    """A process that is killed leaves frames that it wrote last, up to a second of them: in full segments too."""
    session = open_session(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rekv.store.writer.COMMIT_SECONDS", 1000.0)
        append_rest(session, 52, flush=False)
        keeper = session.keeper
        assert keeper is not None
        while keeper.written < 52:
            keeper.wait_for_room()
        tail = Path(shutil.copytree(path, path.with_name("tail")))
        for file in segment_files(tail):
            segment = Segment(Files(), tail / file, writable=True)
            ids = segment.table("frame")
            segment.write_table("state", 0, [WRITTEN if i or not n else 0 for n, i in enumerate(ids)])
            segment.sync()
    session.close()
    report = verify(tail)
    assert (report.ok, report.frames) == (True, COMMITS)
    with open_session(tail) as session:
        append_rest(session, 48)
    assert assert_intact(tail, truth) == 48


def test_a_segment_that_was_packed_is_not_removed_for_a_lost_log(tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    """The catalog names a file that is gone; what took its place looks like an orphan."""
    path = tmp_path / "session"
    with open_session(path, kv="int8") as session:
        append_rest(session, 12)
    old = sqlite3.connect(path / FILE)
    backup = sqlite3.connect(tmp_path / "old")
    old.backup(backup)
    old.close()
    backup.close()
    with open_session(path) as session:
        append_rest(session, COMMITS)
    packed = [file for file in segment_files(path) if file.endswith("-001.safetensors")]
    assert len(packed) > 2
    for suffix in ("-wal", "-shm"):
        (path / f"{FILE}{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "old", path / FILE)
    with pytest.raises(StoreError, match="--repair"):
        append_rest(open_session(path), 44)
    assert not verify(path).ok
    assert verify(path, repair=True).frames == COMMITS
    assert verify(path).problems == []
    assert ask(open_session(path)).frames_seen == COMMITS


def test_only_the_packing_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "session"
    with open_session(path, kv="int8") as session:
        append_rest(session, COMMITS)
    with closing(sqlite3.connect(path / FILE)) as sql, sql:
        sql.execute("UPDATE segments SET file = 'segment-000000.safetensors', codec = 'raw', sealed = 0 WHERE id = 0")
    packed = path / "segment-000000-001.safetensors"
    assert packed.exists()
    with open_session(path) as session:
        append_rest(session, 44)
    assert packed.exists(), "it may be all that is left of those frames"
    found = verify(path)
    assert {problem.kind for problem in found.problems} == {"missing", "catalog"}
    assert verify(path, repair=True).frames == 44
    assert verify(path).problems == []


def test_frames_that_are_nowhere_any_more_are_let_go(path: Path) -> None:
    without_log(path)
    for file in segment_files(path):
        (path / file).unlink()
    found = verify(path)
    assert "40 frames that came last are in neither" in found.problems[0].message
    assert verify(path, repair=True).ok
    assert verify(path).problems == []
    with open_session(path) as session:
        append_rest(session, 8)


def test_what_the_old_catalog_alone_knew_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "session"
    with open_session(path) as session:
        append_rest(session, 20)
    pin(path, 2.0, 5.0)
    with closing(sqlite3.connect(path / FILE)) as sql, sql:
        sql.execute("INSERT OR REPLACE INTO thumbnails VALUES (3, x'ff')")
        sql.execute("INSERT INTO sources (path, bytes, start, shift, first) VALUES ('a.mp4', 7, 0.0, 0.0, 0)")
    with closing(sqlite3.connect(path / FILE)) as sql, sql:
        for table in ("frames", "segments"):
            sql.execute(f"DELETE FROM {table}")
        sql.execute("UPDATE meta SET value = '0' WHERE key = 'frames'")
    mended = verify(path, repair=True)
    assert (mended.ok, mended.frames) == (True, 20)
    with closing(sqlite3.connect(path / FILE)) as sql:
        assert sql.execute("SELECT start, until FROM pins").fetchall() == [(2.0, 5.0)]
        assert sql.execute("SELECT jpeg FROM thumbnails WHERE frame = 3").fetchall() == [(b"\xff",)]
        assert sql.execute("SELECT path, bytes FROM sources").fetchall() == [("a.mp4", 7)]
        assert sql.execute("SELECT count(*) FROM meta WHERE key = 'limits'").fetchone() == (1,)
