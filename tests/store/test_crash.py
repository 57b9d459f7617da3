"""What a killed process and a power cut leave of a session: every committed frame, and nothing that is torn."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rekv.errors import StoreError
from rekv.store.catalog import FILE
from rekv.store.files import Files
from rekv.store.names import SINK
from tests.store.faults import PER_CALL, PowerDisk, append_rest, assert_intact, open_session

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "crash.py"


def test_kill_9(tmp_path: Path) -> None:
    """At any instant, and inside file operations; `benchmarks/crash.py` says how."""
    path = tmp_path / "crash.json"
    command = [sys.executable, SCRIPT, "--rounds", 12, "--json", path]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    report = json.loads(path.read_text())
    assert report["problems"] == []
    assert (report["rounds"], report["opened"]) == (12, 12)
    assert (report["committed_frames_lost"], report["answers_differ"], report["ends_differ"]) == (0, 0, 0)
    assert report["committed_frames"] > 100, "processes die too early to have committed anything"
    assert sum(kills for place, kills in report["killed"].items() if place.startswith("in ")) >= 3


# -- power cuts --------------------------------------------------------------------------------------------------------


class Cuts(PowerDisk):
    """Keeps what may be left if the power is cut just before some of the operations."""

    def __init__(self, path: Path, into: Path, every: int, seed: int) -> None:
        super().__init__()
        self.folder, self.into, self.every = path, into, every
        self.rng = random.Random(seed)
        self.operations = 0
        self.cuts: list[Path] = []

    def _step(self) -> None:
        self.operations += 1
        if self.operations % self.every or not (self.folder / FILE).exists():
            return
        cut = self.into / f"cut-{self.operations}"
        cut.mkdir()
        shutil.copy(self.folder / SINK, cut)
        copy_catalog(self.folder, cut)
        self.cut(cut, self.rng)
        self.cuts.append(cut)

    def write(self, descriptor: int, buffers: Sequence[memoryview], offset: int) -> None:
        super().write(descriptor, buffers, offset)
        self._step()

    def sync(self, descriptor: int) -> None:
        self._step()
        super().sync(descriptor)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._step()


def copy_catalog(folder: Path, to: Path) -> None:
    """The catalog's committed state, as SQLite would find it again."""
    source, target = sqlite3.connect(folder / FILE), sqlite3.connect(to / FILE)
    source.backup(target)
    source.close()
    target.execute("PRAGMA journal_mode = WAL")
    target.close()


@pytest.mark.usefixtures("_small_segments")
@pytest.mark.parametrize("every", [5, 11])
def test_power_cut_takes_no_committed_frame(every: int, tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    path = tmp_path / "session"
    disk = Cuts(path, tmp_path, every, seed=every)
    with open_session(path, files=disk) as session:
        append_rest(session, 40)
    assert len(disk.cuts) > 20
    found = [assert_intact(cut, truth) for cut in disk.cuts]
    assert found == sorted(found)
    assert len(set(found)) > 5
    for cut in disk.cuts[:: len(disk.cuts) // 4]:  # and it goes on
        with open_session(cut) as session:
            append_rest(session, 44)
        assert assert_intact(cut, truth) == 44


@pytest.mark.usefixtures("_small_segments")
def test_power_cut_while_segments_are_thinned(tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    """Files are made, swapped in and removed: the catalog never names one that may be missing, or not whole."""
    path = tmp_path / "session"
    disk = Cuts(path, tmp_path, every=3, seed=0)
    with open_session(path, files=disk, thin_after=5.0, thin_keep=3) as session:
        append_rest(session, 48)
    gaps = 0
    for cut in disk.cuts:
        reader = open_session(cut)
        there = reader.memory.table.there(range(reader.memory.frames))
        for i, layer in reader.memory.layers.items():
            assert torch.equal(layer.blocks.read(there), truth[i][list(there)])
        gaps = max(gaps, reader.memory.frames - len(there))
    assert gaps > 10, "nothing was thinned"


class Unsynced(PowerDisk):
    """A disk whose syncs do nothing."""

    def sync(self, descriptor: int) -> None:
        Files.sync(self, descriptor)


@pytest.mark.usefixtures("_small_segments")
def test_without_syncs_a_power_cut_is_seen(tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    """So the tests above can fail."""
    disk = Unsynced()
    with open_session(tmp_path / "session", files=disk) as session:
        append_rest(session, 16)
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(tmp_path / "session" / SINK, cut)
    copy_catalog(tmp_path / "session", cut)
    disk.cut(cut, random.Random(0))
    with pytest.raises(StoreError, match=r"cannot be read|not those that were written"):
        assert_intact(cut, truth)


def test_a_commit_comes_after_the_sync_of_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever SQLite commits, nothing that was written to a segment waits for a sync."""
    from rekv.store import catalog

    disk = PowerDisk()
    pending: list[int] = []  # writes, and files without a durable name, at each commit
    connect = catalog._connect

    def traced(statement: str) -> None:
        if statement == "COMMIT":
            pending.append(sum(len(writes) for writes in disk.cached.values()) + len({*disk.durable} - disk.named))

    def traced_connect(path: Path, writable: bool) -> sqlite3.Connection:
        connection = connect(path, writable)
        if writable:
            connection.set_trace_callback(traced)
        return connection

    monkeypatch.setattr("rekv.store.catalog._connect", traced_connect)
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (6, 6))
    with open_session(tmp_path / "session", files=disk, kv="int8") as session:
        append_rest(session, 40)
    assert len(pending) > 40 // PER_CALL
    assert set(pending) == {0}
