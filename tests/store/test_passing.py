"""Errors that pass: what cannot be read for the moment is left out of one answer, and is never taken for damaged."""

import errno
import os
from pathlib import Path

import pytest
import torch

from rekv.engine import Session
from rekv.store.folder import OPEN_SEGMENTS, SessionFolder
from tests.store.faults import FailingFiles, append_rest, ask, made, open_session
from tests.store.support import keeper_of, small_segments
from tests.support import pictures

EVERYTHING = tuple(range(40))
TABLES = 3 * 7  # reads of a question before the first block: three tables of each segment


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A session in seven segments."""
    small_segments(monkeypatch, 6)
    return made(tmp_path / "session", len(EVERYTHING))


def damaged(path: Path) -> list[int]:
    folder = SessionFolder(path)
    try:
        return [row.id for row in folder.catalog.frames() if row.damaged]
    finally:
        folder.close()


def assert_left_out_once(session: Session, files: FailingFiles, frames: tuple[int, ...]) -> None:
    """The next answer lacks some of the frames, and says why; the one after it lacks none."""
    files.failing = True
    answer = ask(session)
    assert files.failed
    left_out = set(frames) - set(answer.retrieval.union)
    assert left_out
    assert len(left_out) <= 6
    assert any(os.strerror(files.error) in warning for warning in answer.warnings)
    files.failing = False
    again = ask(session)
    assert (again.retrieval.union, again.warnings) == (frames, ())
    assert again.token_ids == ask(open_session(keeper_of(session).path)).token_ids


@pytest.mark.parametrize("passes", [0, TABLES + 1], ids=["tables", "blocks"])
def test_a_block_cannot_be_read_for_a_moment(passes: int, path: Path) -> None:
    files = FailingFiles("read", errno.EIO)
    files.most, files.passes = 1, passes
    reader = open_session(path, files=files)
    assert_left_out_once(reader, files, EVERYTHING)
    assert damaged(path) == []


@pytest.mark.parametrize("passes", [0, TABLES + 1], ids=["tables", "blocks"])
def test_a_writer_does_not_record_what_passes(passes: int, path: Path) -> None:
    files = FailingFiles("read", errno.EIO)
    files.most, files.passes = 1, passes
    with open_session(path, files=files) as session:
        session.append(())
        assert_left_out_once(session, files, EVERYTHING)
        assert damaged(path) == []
        append_rest(session, 48)
        assert ask(session).retrieval.union == tuple(range(48))


def test_too_many_files_are_open_for_a_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.store.folder.OPEN_SEGMENTS", 1)
    files = FailingFiles("open", errno.EMFILE)
    files.most = 1
    with open_session(path, files=files) as session:
        session.append(())
        assert_left_out_once(session, files, EVERYTHING)
    assert damaged(path) == []


@pytest.mark.parametrize("kind", ["open", "read"])
def test_a_segment_cannot_be_read_while_the_session_is_opened(kind: str, path: Path) -> None:
    """Its representative keys are read when it is asked, so that the right frames are found."""
    expected = ask(open_session(path), retrieve_size=5)
    files = FailingFiles(kind, errno.EIO)
    files.most, files.failing = 1, True
    reader = open_session(path, files=files)
    assert files.failed
    assert reader.memory.table.gone or reader.memory.table.oldest
    answer = ask(reader, retrieve_size=5)
    assert (answer.retrieval.frames, answer.token_ids) == (expected.retrieval.frames, expected.token_ids)
    assert answer.warnings == ()
    assert ask(reader).retrieval.union == EVERYTHING


def test_what_is_damaged_for_good_stays_left_out_beside_what_passes(path: Path) -> None:
    segment = sorted(path.glob("segment-*"))[0]
    files = FailingFiles("read", errno.EIO)
    reader = open_session(path, files=files)
    data = bytearray(segment.read_bytes())
    data[-8192:] = bytes(8192)  # the last blocks, of the last layer
    segment.write_bytes(data)
    files.most, files.passes, files.failing = 1, TABLES + 2, True  # blocks of a segment that is whole
    both = ask(reader)
    assert files.failed
    assert any(os.strerror(errno.EIO) in warning for warning in both.warnings)
    after = ask(reader)
    assert after.warnings
    assert set(after.warnings) < set(both.warnings)
    lost = set(EVERYTHING) - set(after.retrieval.union)
    assert lost
    assert lost <= set(range(6))


def test_the_segment_that_is_written_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others are opened: opened twice, the one would not know what the other has written."""
    many = OPEN_SEGMENTS + 2
    stream = pictures(many + 4)
    small_segments(monkeypatch, 1)
    with open_session(tmp_path / "session") as session:
        session.append(stream[:many])
    small_segments(monkeypatch, 6)
    with open_session(tmp_path / "session") as session:
        session.append(())
        for frames in (range(many, many + 2), range(many + 2, many + 4)):
            session.append([stream[frame] for frame in frames])
            session.flush()
            if frames.start == many:
                for layer in session.memory.layers.values():
                    layer.blocks.forget(range(many))
                assert len(ask(session, retrieve_size=many + 2).retrieval.union) == many + 2  # read from all others
            for i, layer in session.memory.layers.items():
                rows = [torch.empty(layer.blocks.shape) for _ in frames]
                keeper_of(session).read(i, frames, rows)
                assert torch.equal(torch.stack(rows), layer.blocks.read(frames))
