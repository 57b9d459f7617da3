"""Disks that are full, or may only be read: each says so, nothing is lost."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from rekv.engine import Session
from rekv.errors import StoreError
from rekv.store.catalog import FILE
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
)
from tests.support import tiny_model

pytestmark = pytest.mark.usefixtures("_small_segments")


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
