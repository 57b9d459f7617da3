"""Verify: every kind of damage is found and named, repair loses nothing but it, and the session goes on."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Any

import pytest

from rekv.engine import Model, Session
from rekv.errors import StoreError
from rekv.store.catalog import FILE, Catalog
from rekv.store.files import Files
from rekv.store.info import info
from rekv.store.names import SINK
from rekv.store.segment import Segment
from rekv.store.store import Store
from rekv.store.verify import Report, verify
from tests.support import pictures, record, tiny_model

FRAMES = 30  # in calls of 4; the window holds 13
SLOTS = 8
MORE = 10


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def session(model: Model, store: Path, name: str = "lobby", **settings: Any) -> Session:
    return model.session(name, store=store, n_local=40, frames_per_call=4, sample_fps=1.0, **settings)


@pytest.fixture(scope="module")
def made(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session in four segments, the last with room left."""
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch, session(model, store) as made:
        patch.setattr("rekv.store.writer.SEGMENT_SLOTS", (SLOTS, SLOTS))
        made.append(pictures(FRAMES))
    return store / "lobby"


@pytest.fixture
def path(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be damaged."""
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (SLOTS, SLOTS))
    shutil.copytree(made, tmp_path / "lobby")
    return tmp_path / "lobby"


def flip(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def segment(path: Path, number: int) -> Path:
    return path / f"segment-{number:06d}.safetensors"


def flip_in(path: Path, number: int, tensor: str, slot: int) -> None:
    """Change a bit of what is stored for a slot (in tables that have layers, for the first layer)."""
    place = Segment(Files(), segment(path, number)).places[tensor]
    row = place.row // SLOTS if tensor in ("offset", "size", "crc", "index_crc") else place.row
    flip(segment(path, number), place.start + slot * row)


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    """What lies in the folder, but for what SQLite keeps beside a catalog while it is read."""
    return {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns)
        for file in path.iterdir()
        if not file.name.endswith(("-wal", "-shm"))
    }


def kinds(report: Report) -> dict[str, tuple[int, ...]]:
    return {problem.kind: problem.frames for problem in report.problems}


def assert_goes_on(model: Model, path: Path, frames: int = FRAMES, lost: tuple[int, ...] = ()) -> None:
    """After a repair: it is sound, answers from the frames that are left, and takes more."""
    again = verify(path)
    assert (again.ok, again.problems) == (True, [])
    assert again.frames == frames - len(lost)
    with session(model, path.parent) as opened:
        answer = opened.ask("w7 w8", retrieve_size=FRAMES)
        assert lost or answer.warnings == ()
        assert answer.retrieval.union == tuple(i for i in range(frames) if i not in lost)
        opened.append(pictures(FRAMES + MORE)[frames:])
        opened.flush()
        assert opened.ask("w7 w8", retrieve_size=FRAMES + MORE).retrieval.union == tuple(
            i for i in range(FRAMES + MORE) if i not in lost
        )
    after = verify(path)
    assert (after.ok, after.problems, after.frames) == (True, [], FRAMES + MORE - len(lost))


def assert_goes_on_exactly(model: Model, path: Path, frames: int = FRAMES) -> None:
    """It goes on as if nothing had happened, to the bit."""
    truth = model.session(n_local=40, frames_per_call=4, sample_fps=1.0)
    truth.append(pictures(FRAMES + MORE)[:frames])
    with session(model, path.parent) as opened:
        record(opened).assert_equal(record(truth))
        rest = pictures(FRAMES + MORE)[frames:]
        record(opened, rest).assert_equal(record(truth, rest))


def test_a_sound_session_is_sound(path: Path) -> None:
    before = contents(path)
    seen: list[tuple[int, int]] = []
    report = verify(path, progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert report.problems == report.repaired == []
    assert report.frames == FRAMES
    with closing(Catalog(path, writable=False)) as catalog:
        segments = catalog.segments()
    one = Segment(Files(), path / segments[0].file)
    assert report.bytes == FRAMES * sum(layer.nbytes + 4 * layer.width for layer in one.layout)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (FRAMES * one.layers, FRAMES * one.layers)
    assert contents(path) == before
    dumps(asdict(report))


def test_what_is_not_a_session_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(StoreError, match="is not a session"):
            verify(path)


# -- damage of segments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ("layer.2.blocks", "blocks"),
        ("crc", "blocks"),
        ("layer.1.index", "index"),
        ("index_crc", "index"),
        ("frame", "tables"),
        ("time", "tables"),
        ("size", "blocks"),
    ],
)
def test_a_flipped_bit_costs_its_frame_alone(model: Model, path: Path, tensor: str, kind: str) -> None:
    flip_in(path, 1, tensor, 3)
    before = contents(path)
    found = verify(path)
    assert not found.ok
    assert kinds(found) == {kind: (SLOTS + 3,)}
    assert found.problems[0].file == segment(path, 1).name
    assert contents(path) == before
    mended = verify(path, repair=True)
    assert mended.ok
    assert mended.problems == found.problems
    assert mended.repaired == ["1 frame is marked as damaged, and left out from now on"]
    assert_goes_on(model, path, lost=(SLOTS + 3,))


@pytest.mark.parametrize("frame", [FRAMES - 1, FRAMES - 5])
def test_a_damaged_frame_of_the_window_does_not_stop_the_session(model: Model, path: Path, frame: int) -> None:
    flip_in(path, frame // SLOTS, "layer.0.blocks", frame % SLOTS)
    assert verify(path, repair=True).ok
    assert_goes_on(model, path, lost=(frame,))


def test_a_frame_that_is_whole_again_is_used_again(model: Model, path: Path) -> None:
    flip_in(path, 0, "layer.0.blocks", 2)
    verify(path, repair=True)
    flip_in(path, 0, "layer.0.blocks", 2)  # back
    assert kinds(verify(path)) == {"marked": (2,)}
    assert verify(path, repair=True).ok
    assert_goes_on_exactly(model, path)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("how", ["missing", "header", "empty", "foreign"])
def test_a_lost_segment_costs_its_frames(model: Model, path: Path, number: int, how: str) -> None:
    file = segment(path, number)
    if how == "missing":
        file.unlink()
    elif how == "header":
        flip(file, 20)
    elif how == "empty":
        file.write_bytes(b"")
    else:
        with session(model, path.parent, "other") as other:
            other.append(pictures(FRAMES, seed=1))
        shutil.copy(segment(path.parent / "other", number), file)
    lost = tuple(range(number * SLOTS, min((number + 1) * SLOTS, FRAMES)))
    found = verify(path)
    assert kinds(found) == {"missing" if how == "missing" else "header": lost}
    assert verify(path, repair=True).ok
    assert_goes_on(model, path, lost=lost)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("number", [1, 3])
def test_a_cut_segment_gets_its_size_again(model: Model, path: Path, number: int, share: float) -> None:
    file = segment(path, number)
    size = file.stat().st_size
    header = Segment(Files(), file).places["frame"].start
    os.truncate(file, header + int((size - header) * share))
    found = verify(path)
    lost = tuple(sorted({frame for problem in found.problems for frame in problem.frames}))
    assert lost
    assert {problem.kind for problem in found.problems} == {"truncated"}
    assert verify(path, repair=True).ok
    assert file.stat().st_size == size
    assert_goes_on(model, path, lost=lost)


def test_cutting_off_what_was_not_used_costs_nothing(model: Model, path: Path) -> None:
    last = segment(path, 3)
    os.truncate(last, last.stat().st_size - SLOTS - 1)  # the states, and a byte of a slot that is free
    assert kinds(verify(path)) == {"truncated": ()}
    assert verify(path, repair=True).ok
    (path / FILE).unlink()
    verify(path, repair=True)  # the states are back: the catalog is made from them
    assert_goes_on_exactly(model, path, frames=FRAMES)


def test_orphans_are_removed(path: Path) -> None:
    shutil.copy(segment(path, 0), segment(path, 7))
    found = verify(path)
    assert found.ok
    assert [(problem.kind, problem.file) for problem in found.problems] == [("orphan", segment(path, 7).name)]
    assert verify(path, repair=True).ok
    assert not segment(path, 7).exists()
    assert verify(path).problems == []


def test_a_lost_sink_is_reported_and_not_mended_without_a_model(path: Path) -> None:
    (path / SINK).write_bytes(b"nothing")
    for repair in (False, True):
        report = verify(path, repair=repair)
        assert not report.ok
        assert kinds(report) == {"sink": ()}


# -- damage of the catalog -------------------------------------------------------------------------------------


def scribble(path: Path) -> None:
    (path / FILE).write_bytes(os.urandom(8192))


def empty(path: Path) -> None:
    (path / FILE).write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path / FILE, (path / FILE).stat().st_size // 2)


def forget_the_session(path: Path) -> None:
    with closing(sqlite3.connect(path / FILE)) as sql, sql:
        sql.execute("DELETE FROM meta")


def remove(path: Path) -> None:
    (path / FILE).unlink()


@pytest.mark.parametrize("damage", [scribble, empty, cut, forget_the_session, remove])
def test_a_catalog_is_made_anew(model: Model, path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    found = verify(path)
    assert not found.ok
    assert kinds(found) == {"catalog": ()}
    mended = verify(path, repair=True)
    assert mended.ok
    assert mended.frames == FRAMES
    assert (path / f"{FILE}.damaged-1").exists() == (damage is not remove)
    assert not [file for file in path.iterdir() if file.name.startswith(".")]
    assert_goes_on_exactly(model, path)


def test_a_new_catalog_does_without_the_sink_to_know_whose_session_it_is(path: Path) -> None:
    sink = (path / SINK).read_bytes()
    remove(path)
    (path / SINK).unlink()
    assert not verify(path, repair=True).ok
    (path / SINK).write_bytes(sink)
    assert verify(path).ok


def test_a_session_without_a_catalog_is_not_overlooked(model: Model, path: Path) -> None:
    remove(path)
    store = Store(path.parent)
    assert store.names() == ["lobby"]
    for use in (store.find, store.open, lambda name: session(model, path.parent, name)):
        with pytest.raises(StoreError, match="`rekv verify lobby --repair` makes it anew"):
            use("lobby")
    assert verify(path, repair=True).ok
    remove(path)
    store.remove("lobby")
    assert store.names() == []


def test_a_new_catalog_does_not_believe_an_impossible_span(path: Path) -> None:
    for number, slot in ((0, 3), (3, 5)):
        part = Segment(Files(), segment(path, number), writable=True)
        part.write_table("until", slot, [float("inf")])
        part.sync()
    remove(path)
    assert verify(path, repair=True).ok
    with closing(Catalog(path, writable=False)) as catalog:
        assert all(row.until == row.time for row in catalog.frames())


def test_looking_leaves_no_lock(path: Path) -> None:
    (path / "lock").unlink(missing_ok=True)
    assert info(Store(path.parent), "lobby").writing is False
    assert not (path / "lock").exists()


def test_a_session_of_which_nothing_is_left_is_refused(path: Path) -> None:
    for file in path.iterdir():
        if file.name != "lock":
            file.write_bytes(b"")
    with pytest.raises(StoreError, match=r"nothing left .* restore it from a copy"):
        verify(path, repair=True)


@pytest.mark.parametrize("frame", [FRAMES - 1, FRAMES - 2])
def test_a_new_catalog_ends_with_the_last_whole_call(model: Model, path: Path, frame: int) -> None:
    """As after a power cut: the last call's frames 28 and 29 are not both there."""
    flip_in(path, 3, "layer.0.blocks", frame % SLOTS)
    remove(path)
    assert verify(path, repair=True).frames == FRAMES - 2
    assert_goes_on_exactly(model, path, frames=FRAMES - 2)


def test_a_new_catalog_keeps_what_comes_after_a_damaged_frame(model: Model, path: Path) -> None:
    flip_in(path, 1, "layer.0.blocks", 0)
    segment(path, 2).unlink()
    remove(path)
    mended = verify(path, repair=True)
    assert mended.ok
    assert kinds(mended)["blocks"] == (SLOTS,)
    assert_goes_on(model, path, lost=(SLOTS, *range(2 * SLOTS, 3 * SLOTS)))


@pytest.mark.parametrize("settings", [{"kv": "int8"}, {"thin_after": 5.0, "thin_keep": 3}], ids=["packed", "thinned"])
def test_rewritten_segments_take_the_others_place(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (SLOTS, SLOTS))
    path = tmp_path / "lobby"
    with session(model, tmp_path, **settings) as made:
        for frames in (pictures(16), pictures(24)[16:]):
            made.append(frames)
            made.flush()
        shutil.copy(segment(path, 0), tmp_path / "old")
        for start in range(24, 44, 4):
            made.append(pictures(44)[start : start + 4])
            made.flush()
    rewritten = path / "segment-000000-001.safetensors"
    assert rewritten.exists()
    before = verify(path)
    with closing(Catalog(path, writable=False)) as catalog:
        rows = [(row.id, row.segment, row.slot, row.time) for row in catalog.frames()]
    shutil.copy(tmp_path / "old", segment(path, 0))  # as if the power had gone before it was removed
    remove(path)
    mended = verify(path, repair=True)
    assert mended.ok
    assert mended.frames == before.frames
    assert not segment(path, 0).exists()
    with closing(Catalog(path, writable=False)) as catalog:
        assert [(row.id, row.segment, row.slot, row.time) for row in catalog.frames()] == rows
    assert verify(path).problems == []


def test_a_half_written_segment_takes_nobodys_place(model: Model, path: Path) -> None:
    half = path / "segment-000000-001.safetensors"
    shutil.copy(segment(path, 0), half)
    flip_in(path, 0, "layer.0.blocks", 0)
    whole = segment(path, 0).read_bytes()
    shutil.copy(half, segment(path, 0))
    half.write_bytes(whole)  # the newer one is damaged
    remove(path)
    assert verify(path, repair=True).ok
    assert not half.exists()
    assert_goes_on_exactly(model, path)


# -- catalogs that are not damaged -----------------------------------------------------------------------------


def test_a_locked_catalog_is_not_taken_for_a_damaged_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.store.catalog.BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(path / FILE, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        for repair in (False, True):
            with pytest.raises(StoreError, match="locked by another program"):
                verify(path, repair=repair)
        other.execute("ROLLBACK")
    assert not list(path.glob("*.damaged*"))


def test_a_newer_catalog_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path / FILE)) as sql:
        sql.execute("PRAGMA user_version = 99")
    for repair in (False, True):
        with pytest.raises(StoreError, match="newer rekv"):
            verify(path, repair=repair)
