"""Packing, thinning and removing that fail are made up for; frames that can be read again are not dropped."""

import errno
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import pytest
import torch

from rekv.store.catalog import FILE, Catalog
from rekv.store.files import Buffer
from rekv.store.retention import pin
from rekv.store.verify import verify
from tests.store.faults import FailingFiles, append_rest, ask, assert_intact, frames_of, open_session
from tests.store.support import keeper_of

pytestmark = pytest.mark.usefixtures("_small_segments")

THIN = {"thin_after": 10.0, "thin_keep": 2}


class NoRoomToPack(FailingFiles):
    """New segments fit on it, but not those that take the place of others."""

    def __init__(self) -> None:
        super().__init__("pack")

    def create(self, path: Path, size: int) -> int:
        if path.stem.count("-") == 2:  # its name says that it was rewritten
            self._fail("pack", path)
        return super().create(path, size)


class SilentSegment(FailingFiles):
    """The first segment cannot be read from it."""

    def __init__(self) -> None:
        super().__init__("silent", errno.EIO)
        self._silent: set[int] = set()

    def open(self, path: Path, *, writable: bool = False) -> int:
        descriptor = super().open(path, writable=writable)
        (self._silent.add if path.name == "segment-000000.safetensors" else self._silent.discard)(descriptor)
        return descriptor

    def read(self, descriptor: int, buffers: Sequence[Buffer], offset: int, *, wait: bool = True) -> int:
        if descriptor in self._silent:
            self._fail("silent")
        return super().read(descriptor, buffers, offset, wait=wait)


def codecs(path: Path) -> list[str]:
    with closing(Catalog(path, writable=False)) as catalog:
        return [row.codec for row in catalog.segments()]


def test_packing_that_failed_is_done_at_the_close(tmp_path: Path) -> None:
    """Frames are safe meanwhile, and whoever encodes is not held up."""
    path, files = tmp_path / "session", NoRoomToPack()
    files.failing = True
    with open_session(path, files=files, kv="int8") as session:
        append_rest(session, 52)
        assert files.failed
        assert frames_of(path) == list(range(52))
        assert set(codecs(path)) == {"raw"}
        files.failing = False
    assert codecs(path)[:3] == ["int8"] * 3
    assert verify(path).problems == []


def test_packing_that_failed_is_tried_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, files = tmp_path / "session", NoRoomToPack()
    files.failing = True
    with open_session(path, files=files, kv="int8") as session:
        append_rest(session, 32)
        failed = files.failed
        assert failed
        append_rest(session, 36)  # the last segment had room for them: nothing else calls for packing
        assert files.failed == failed
        append_rest(session, 44)
        files.failing = False
        monkeypatch.setattr("rekv.store.writer.TIDY_AGAIN_SECONDS", 0.0)
        before = codecs(path)
        append_rest(session, 48)
        assert len(codecs(path)) == len(before)
        deadline = monotonic() + 30  # it is done after the frames are durable
        while codecs(path)[:3] != ["int8"] * 3 and monotonic() < deadline:
            sleep(0.01)
        assert codecs(path)[:3] == ["int8"] * 3


def test_a_close_whose_packing_fails_loses_nothing(tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    path, files = tmp_path / "session", NoRoomToPack()
    files.failing = True
    with open_session(path, files=files, kv="int8") as session:
        append_rest(session, 40)
    assert files.failed
    assert assert_intact(path, truth) == 40
    assert verify(path).problems == []
    with open_session(path) as again:
        append_rest(again, 60)
    assert "int8" in codecs(path)


def test_a_full_disk_gets_room_by_removing_though_packing_fails(tmp_path: Path) -> None:
    path, files = tmp_path / "session", NoRoomToPack()
    with open_session(path, files=files) as session:
        append_rest(session, 40)
        size = keeper_of(session).folder.bytes()
    files.failing = True
    with open_session(path, files=files, disk=size // 2, **THIN) as session:
        append_rest(session, 60)
        assert files.failed
        assert frames_of(path)[0] >= 30
        assert keeper_of(session).folder.bytes() <= size


def test_what_is_too_old_is_removed_though_packing_fails(tmp_path: Path) -> None:
    path, files = tmp_path / "session", NoRoomToPack()
    files.failing = True
    with open_session(path, files=files, max_age=30.0, kv="int8") as session:
        append_rest(session, 4)
        pin(path, 2.0, 3.0)  # its segment is not removed altogether: there is something to pack before the others
        append_rest(session, 80)
        assert files.failed
        there = frames_of(path)
        assert there[:6] == list(range(6))
        assert 30 < there[6] <= 50


def test_a_file_that_cannot_be_removed_is_removed_later(tmp_path: Path) -> None:
    """Its frames are known to be elsewhere at once."""
    path, files = tmp_path / "session", FailingFiles("unlink", errno.EACCES)
    files.failing = True
    with open_session(path, files=files, max_age=20.0) as session:
        append_rest(session, 60)
        assert files.failed
        answer = ask(session)
        assert (answer.retrieval.union, answer.warnings) == (tuple(frames_of(path)), ())
        assert answer.retrieval.union[0] > 0
        files.failing = False
    assert verify(path).problems == []


@pytest.mark.parametrize("storage", [{"kv": "int8"}, THIN, {}], ids=["pack", "thin", "seal"])
def test_frames_that_can_be_read_again_are_kept(storage: dict[str, object], tmp_path: Path) -> None:
    """They were marked as damaged while their disk did not answer."""
    path = tmp_path / "session"
    with open_session(path) as session:
        append_rest(session, 12)
    whole, broken = 2, 4
    with closing(sqlite3.connect(path / FILE)) as sql, sql:
        sql.execute("UPDATE frames SET damaged = 'no answer' WHERE id IN (?, ?)", (whole, broken))
        sql.execute("UPDATE frames SET slot = 0 WHERE id = ?", (broken,))
    with open_session(path, **storage) as session:
        append_rest(session, 48)
    reader = open_session(path)
    there = set(ask(reader).retrieval.union)
    assert whole in there
    assert broken not in there
    assert not [warning for warning in ask(reader).warnings if "no answer" in warning]
    assert verify(path).problems == []


def test_frames_that_cannot_be_read_for_a_moment_are_not_dropped(tmp_path: Path) -> None:
    path, files = tmp_path / "session", SilentSegment()
    with open_session(path) as session:
        append_rest(session, 12)
    with closing(sqlite3.connect(path / FILE)) as sql, sql:
        sql.execute("UPDATE frames SET damaged = 'no answer' WHERE id < 6")
    with open_session(path, files=files, kv="int8") as session:
        append_rest(session, 20)
        files.failing = True
        append_rest(session, 48)
        assert files.failed
        assert frames_of(path) == list(range(48))
        files.failing = False
    assert ask(open_session(path)).retrieval.union == tuple(range(48))
