"""Disks that fail, files and catalogs that are damaged, the wrong model, two writers: each says so, nothing is lost."""

import gc
import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rekv.engine import Session
from rekv.errors import RekvError, StoreError
from rekv.store.catalog import FILE
from rekv.store.files import Files
from rekv.store.folder import SINK
from rekv.store.segment import Segment
from tests.store.faults import (
    ENCODE,
    FRAMES,
    FailingFiles,
    append_rest,
    ask,
    assert_intact,
    frames_of,
    made,
    open_session,
    true_blocks,
)
from tests.support import tiny_model


@pytest.fixture(scope="module")
def truth() -> list[torch.Tensor]:
    return true_blocks(len(FRAMES))


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (6, 6))


def append_against(session: Session, until: int) -> None:
    """Append to a store that refuses: what was encoded stays in memory each time."""
    while session.memory.frames < until:
        before = session.memory.frames
        with suppress(StoreError):
            append_rest(session, min(until, before + 4))
        assert session.memory.frames > before


# -- a full disk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [{}, {"kv": "int8", "max_age": 20.0}], ids=["raw", "int8"])
@pytest.mark.parametrize("passes", [0, 2])
@pytest.mark.parametrize("kind", ["create", "write", "sync", "sync_folder", "unlink"])
def test_full_disk(
    kind: str, passes: int, storage: dict[str, Any], tmp_path: Path, truth: Sequence[torch.Tensor]
) -> None:
    files = FailingFiles(kind)
    memory = tiny_model().session(**ENCODE)
    memory.append(FRAMES[:32])
    with open_session(tmp_path / "session", files=files, **storage) as session:
        append_rest(session, 8)
        files.failing, files.passes = True, passes
        append_against(session, 32)
        if files.failed:
            scope = {"start": 20.0}  # what is not too old
            assert ask(session, **scope).token_ids == ask(memory, **scope).token_ids
        if files.failed and session.keeper is not None and session.keeper.durable < 32:
            with pytest.raises(StoreError, match=r"No space left on device.*nothing is lost"):
                session.flush()
        files.failing = False
        append_rest(session, 48)
    assert files.failed or kind == "unlink"
    there = frames_of(tmp_path / "session")
    assert there == list(range(there[0], 48))
    assert there[0] == 0 if not storage else there[0] <= 28
    if not storage:
        assert_intact(tmp_path / "session", truth)
    with open_session(tmp_path / "session") as again:
        append_rest(again, 52)
    assert frames_of(tmp_path / "session")[-1] == 51


@pytest.mark.parametrize("kind", ["sync", "sync_folder"])
def test_disk_is_full_from_the_start(kind: str, tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    files = FailingFiles(kind)
    files.failing = True
    with open_session(tmp_path / "session", files=files) as session:
        with pytest.raises(StoreError, match="No space left on device"):
            append_rest(session, 8)
        files.failing = False
        append_rest(session, 24)
    assert assert_intact(tmp_path / "session", truth) == 24
    assert [entry.name for entry in tmp_path.iterdir()] == ["session"]


def test_sqlite_finds_the_disk_full(tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    with open_session(tmp_path / "session") as session:
        append_rest(session, 8)
        assert session.keeper is not None
        connection = session.keeper.folder.catalog._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="disk is full"):
            append_rest(session, 80)
        assert ask(session).frames_seen == session.memory.frames
        connection.execute("PRAGMA max_page_count = 1000000")
        append_rest(session, 80)
    assert assert_intact(tmp_path / "session", truth) == 80


def test_files_may_not_grow(tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    """The system's own limit: a write, and making a segment, fail for real."""
    with open_session(tmp_path / "session") as session:
        append_rest(session, 8)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        try:
            with pytest.raises(StoreError, match="too large"):
                append_rest(session, 32)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        append_rest(session, 32)
    assert assert_intact(tmp_path / "session", truth) == 32


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, where this process may make one."""
    if os.geteuid():
        pytest.skip("only root may mount")
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_small_disk_is_full(small_disk: Path, truth: Sequence[torch.Tensor]) -> None:
    path = small_disk / "session"
    with open_session(path) as session:
        append_rest(session, 8)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        with pytest.raises(StoreError, match=r"[Nn]o space|disk is full|disk I/O"):
            append_rest(session, 80)
        assert ask(session).frames_seen == session.memory.frames
        ballast.unlink()
        append_rest(session, 80)
    assert assert_intact(path, truth) == 80


# -- a directory that may only be read ---------------------------------------------------------------------------------


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write to it; root, who always may, becomes someone else for a while."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = not os.geteuid()
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user reaches."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_read_only_directory(public: Path) -> None:
    path = made(public / "session", 24)
    expected = ask(open_session(path))
    with read_only(public):
        with pytest.raises(OSError, match="denied"):
            (path / "new").touch()
        reader = open_session(path)
        assert ask(reader).token_ids == expected.token_ids
        with pytest.raises(StoreError, match="permission"):
            reader.append(FRAMES[24:28])
        assert ask(reader).token_ids == expected.token_ids


@pytest.mark.parametrize("also", ["-wal", "-shm"])
def test_read_only_directory_of_a_writer_that_was_killed(also: str, public: Path) -> None:
    """What is committed may still lie beside the catalog, in its log."""
    path = public / "session"
    session = open_session(path)
    append_rest(session, 24)
    shutil.copytree(path, public / "copy")
    session.close()
    if also == "-wal":
        (public / "copy" / f"{FILE}-shm").unlink()
    with read_only(public):
        assert ask(open_session(public / "copy")).frames_seen == 24


# -- damaged segments --------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x5A
    path.write_bytes(data)


def flip_in(tensor: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        place = Segment(Files(), path).places[tensor]
        flip(path, place.start + place.nbytes // 2)

    damage.__name__ = tensor
    return damage


DAMAGES = [
    truncate,
    Path.unlink,
    flip_in("layer.0.blocks"),
    flip_in("layer.2.blocks"),
    flip_in("crc"),
    flip_in("offset"),
    flip_in("size"),
]


@pytest.mark.parametrize("codec", ["raw", "int8"])
@pytest.mark.parametrize("opened_before", [True, False])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_segment(damage: Callable[[Path], None], opened_before: bool, codec: str, tmp_path: Path) -> None:
    path = made(tmp_path / "session", 40, kv=codec)
    reader = open_session(path)
    segment = sorted(path.glob("segment-000002*"))[0]
    affected = set(range(12, 18))
    if opened_before:
        assert len(ask(reader, frames=[0]).retrieval.candidates) == 40
    damage(segment)
    if not opened_before:
        reader = open_session(path)
    elif damage is Path.unlink:
        assert reader.keeper is not None
        reader.keeper.folder._open.clear()  # as if many others had been used since
    answer = ask(reader)
    left_out = set(range(40)) - set(answer.retrieval.union)
    assert left_out
    assert left_out <= affected
    assert any(segment.name in warning for warning in answer.warnings)
    with pytest.raises(Exception, match="frame"):
        ask(reader, frames=sorted(left_out))
    assert set(ask(reader).retrieval.union) == set(range(40)) - left_out


def test_any_byte_may_be_wrong(tmp_path: Path) -> None:
    """Wherever it is: the session answers, and reads no frame that is not as it was stored."""
    rng = np.random.default_rng(0)
    model = tiny_model()
    path = made(tmp_path / "session", 40, kv="int8")
    reader = open_session(path, model)
    blocks = [layer.blocks.read(range(40)) for layer in reader.memory.layers.values()]
    segments = sorted(path.glob("segment-*"))
    for number in range(80):
        segment = segments[number % len(segments)]
        data = segment.read_bytes()
        small = number % 2  # half of them in what describes the blocks, which is little
        flip(segment, int(rng.integers(0, 8192 if small else len(data))))
        try:
            reader = open_session(path, model)
            used = ask(reader).retrieval.union
            for layer, expected in zip(reader.memory.layers.values(), blocks, strict=True):
                assert torch.equal(layer.blocks.read(used), expected[list(used)])
            assert len(used) >= 40 - 6
        finally:
            segment.write_bytes(data)


def test_damaged_sink_is_named(tmp_path: Path) -> None:
    path = made(tmp_path / "session", 8)
    truncate(path / SINK)
    with pytest.raises(StoreError, match="sink"):
        open_session(path)


@pytest.mark.parametrize("damage", [Path.unlink, flip_in("layer.1.blocks"), truncate], ids=lambda d: d.__name__)
@pytest.mark.parametrize("storage", [{"kv": "int8"}, {"thin_after": 5.0, "thin_keep": 2}], ids=["pack", "thin"])
def test_damage_does_not_stop_the_writer(
    storage: dict[str, Any], damage: Callable[[Path], None], tmp_path: Path
) -> None:
    """A segment that is to be packed, or thinned, turns out to be damaged: what comes is written all the same."""
    path = tmp_path / "session"
    with open_session(path, **storage) as session:
        append_rest(session, 14)
        damage(path / "segment-000000.safetensors")
        append_rest(session, 60)
    reader = open_session(path)
    assert reader.memory.frames == 60
    used = ask(reader).retrieval.union
    assert used[-12:] == tuple(range(48, 60))
    assert set(range(12, 60, 2)) <= set(used)


def test_writer_finds_damage_and_records_it(tmp_path: Path) -> None:
    path = made(tmp_path / "session", 40)
    with open_session(path) as session:
        append_rest(session, 44)
        flip_in("layer.0.blocks")(path / "segment-000001.safetensors")
        warnings = ask(session).warnings
        assert len(warnings) == 1
    assert open_session(path).memory.table.gone == set(range(44)) - set(ask(open_session(path)).retrieval.union)


# -- the catalog -------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes to the catalog and does not come to an end."""
    other = sqlite3.connect(path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_catalog_is_locked_for_a_moment(tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    with open_session(tmp_path / "session") as session:
        append_rest(session, 8)
        with locked(tmp_path / "session"):
            append_rest(session, 16, flush=False)
            flushing = threading.Thread(target=session.flush)
            flushing.start()
            flushing.join(0.3)
            assert flushing.is_alive()
            assert ask(open_session(tmp_path / "session")).frames_seen == 8
        flushing.join(20)
        assert not flushing.is_alive()
    assert assert_intact(tmp_path / "session", truth) == 16


def test_catalog_stays_locked(tmp_path: Path, truth: Sequence[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.store.catalog.BUSY_SECONDS", 0.2)
    with open_session(tmp_path / "session") as session:
        append_rest(session, 8)
        with locked(tmp_path / "session"):
            with pytest.raises(StoreError, match="locked by another program"):
                append_rest(session, 16)
            assert ask(session).frames_seen == 12
        append_rest(session, 16)
    assert assert_intact(tmp_path / "session", truth) == 16


def made_and_gone(path: Path, frames: int) -> Path:
    """As after the process that wrote it: SQLite's log is back in the catalog."""
    made(path, frames)
    gc.collect()
    assert not (path / f"{FILE}-wal").exists()
    return path


@pytest.mark.parametrize("begin", [0, 4096], ids=["header", "pages"])
def test_damaged_catalog(begin: int, tmp_path: Path) -> None:
    path = made_and_gone(tmp_path / "session", 24)
    data = bytearray((path / FILE).read_bytes())
    data[begin:] = bytes(byte ^ 0x5A for byte in data[begin:])
    (path / FILE).write_bytes(data)
    with pytest.raises(StoreError, match="verify --repair"):
        open_session(path)


def test_any_byte_of_the_catalog_may_be_wrong(tmp_path: Path) -> None:
    """SQLite keeps no checksums: what it does not notice itself must not end in an error that nobody understands."""
    rng = np.random.default_rng(0)
    model = tiny_model()
    path = made_and_gone(tmp_path / "session", 24)
    data = (path / FILE).read_bytes()
    used = [i for i in range(len(data)) if data[i]]
    for i in rng.choice(used, 100, replace=False):
        flip(path / FILE, int(i))
        with suppress(RekvError):
            ask(open_session(path, model))
        (path / FILE).write_bytes(data)


def test_empty_catalog(tmp_path: Path) -> None:
    path = made(tmp_path / "session", 8)
    (path / FILE).write_bytes(b"")
    with pytest.raises(StoreError, match="verify --repair"):
        open_session(path)
