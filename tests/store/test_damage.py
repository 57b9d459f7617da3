"""Segments and catalogs that are damaged, or locked: what is whole is used, the rest is named, nothing stops."""

import gc
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rekv.errors import RekvError, StoreError
from rekv.store.catalog import FILE, bump
from rekv.store.files import Files
from rekv.store.segment import Segment
from rekv.store.verify import verify
from tests.store.faults import append_rest, ask, assert_intact, made, open_session
from tests.support import tiny_model

pytestmark = pytest.mark.usefixtures("_small_segments")


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


@pytest.mark.parametrize("codec", ["raw", "int8"])
@pytest.mark.parametrize("opened_before", [True, False])
def test_a_slot_of_the_catalog_is_wrong(opened_before: bool, codec: str, tmp_path: Path) -> None:
    """Where it points lies another frame, which is whole: it must not be taken for the one that was asked for."""
    path = made(tmp_path / "session", 40, kv=codec)
    reader = open_session(path)
    if opened_before:
        ask(reader, frames=[7])
    with closing(sqlite3.connect(path / FILE)) as sql, sql:
        sql.execute("UPDATE frames SET slot = 4 WHERE id = 8")  # was 2: now it is that of frame 10
        bump(sql, "frames_changed")
    if not opened_before:
        reader = open_session(path)
    for _ in range(2):
        answer = ask(reader)
        assert answer.retrieval.union == tuple(frame for frame in range(40) if frame != 8)
        assert [warning for warning in answer.warnings if "other frames where [8] should lie" in warning]
    assert [(problem.kind, problem.frames) for problem in verify(path).problems] == [("tables", (8,))]


@pytest.mark.parametrize("slot", [4, 99])
def test_a_frame_in_the_wrong_slot_is_not_packed_as_another(slot: int, tmp_path: Path) -> None:
    path = made(tmp_path / "session", 24)
    with closing(sqlite3.connect(path / FILE)) as sql, sql:
        sql.execute("UPDATE frames SET slot = ? WHERE id = 8", (slot,))
        sql.execute("UPDATE segments SET sealed = 0")
    with open_session(path, thin_after=5.0, thin_keep=2) as session:
        append_rest(session, 60)
    there = open_session(path).memory.table.there(range(60))
    assert 8 not in there
    assert {6, 10} <= set(there)
    assert verify(path).problems == []


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
