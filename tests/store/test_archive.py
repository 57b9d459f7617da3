"""Export and import: a session in one file is the same session, whatever happens meanwhile; nothing else gets in."""

import io
import os
import shutil
import tarfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from rekv.engine import Model, Session
from rekv.errors import StoreError
from rekv.store.archive import export, import_
from rekv.store.catalog import FILE, Catalog
from rekv.store.files import Files
from rekv.store.names import SINK
from rekv.store.segment import Segment
from rekv.store.store import Store
from rekv.store.verify import verify
from tests.support import pictures, record, tiny_model

FRAMES = 45  # in calls of 4; the window holds 13
MORE = 10


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (8, 8))


def session(model: Model, store: Path, name: str = "lobby", **settings: Any) -> Session:
    return model.session(name, store=store, n_local=40, frames_per_call=4, sample_fps=1.0, **settings)


@pytest.fixture
def store(model: Model, tmp_path: Path) -> Path:
    with session(model, tmp_path / "store") as made:
        made.append(pictures(FRAMES))
    return tmp_path / "store"


@pytest.fixture
def archive(store: Path, tmp_path: Path) -> Path:
    export(store / "lobby", tmp_path / "lobby.tar")
    return tmp_path / "lobby.tar"


def assert_same(
    model: Model, store: Path, name: str, other: Path, frames: int = FRAMES, *, damaged: bool = False
) -> None:
    """Two sessions answer and go on alike, to the bit."""
    with session(model, store) as left, session(model, other, name) as right:
        rest = pictures(FRAMES + MORE)[frames:]
        for more in ((), rest):
            ours, theirs = record(left, more), record(right, more)
            assert torch.equal(ours.encoded, theirs.encoded)
            # Scores of the same frames differ in the last bit if others lie between them, which are left out.
            ours.assert_close(theirs, tolerance=1e-5) if damaged else ours.assert_equal(theirs)
    for path in (store / "lobby", other / name):
        assert verify(path).problems == []


def left_in(*folders: Path) -> list[str]:
    """What was begun and not cleaned up."""
    return [entry.name for folder in folders if folder.exists() for entry in folder.iterdir() if entry.name[0] == "."]


@pytest.mark.parametrize(
    "settings", [{}, {"kv": "int8"}, {"thin_after": 5.0, "thin_keep": 3}, {"max_age": 9.0}], ids=str
)
def test_a_session_comes_back_as_it_was(model: Model, tmp_path: Path, settings: dict[str, Any]) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    with session(model, store, **settings) as made:
        for start in range(0, FRAMES, 4):
            made.append(pictures(FRAMES)[start : start + 4])
            made.flush()
    with closing(Catalog(store / "lobby", writable=True)) as catalog, catalog.transaction() as sql:
        sql.execute("INSERT INTO pins (start, until) VALUES (1.0, 2.0)")
    size = export(store / "lobby", tmp_path / "lobby.tar")
    assert size == (tmp_path / "lobby.tar").stat().st_size
    assert import_(tmp_path / "lobby.tar", Store(other)) == "lobby"
    with (
        closing(Catalog(store / "lobby", writable=False)) as ours,
        closing(Catalog(other / "lobby", writable=False)) as theirs,
    ):
        assert theirs.meta() == ours.meta()
        assert [(f.id, f.time, f.until, f.wall) for f in theirs.frames()] == [
            (f.id, f.time, f.until, f.wall) for f in ours.frames()
        ]
        assert [(s.id, s.codec, s.sealed) for s in theirs.segments()] == [
            (s.id, s.codec, s.sealed) for s in ours.segments()
        ]
        assert theirs.pins() == [(1.0, 2.0)]
        last = ours.frames()[-1].id
        assert theirs.thumbnail(last) == ours.thumbnail(last) is not None
    assert left_in(tmp_path, store, other) == []
    assert_same(model, store, "lobby", other)


def test_it_takes_no_room_for_frames_to_come(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (4096, 4096))
    with session(model, tmp_path) as made:
        made.append(pictures(8))
    full = (tmp_path / "lobby" / "segment-000000.safetensors").stat().st_size
    assert export(tmp_path / "lobby", tmp_path / "lobby.tar") < full / 10


def test_an_unpacked_archive_is_a_session(model: Model, store: Path, archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "other", filter="data")
    assert_same(model, store, "lobby", tmp_path / "other")


def test_it_may_be_given_another_name(model: Model, store: Path, archive: Path) -> None:
    assert import_(archive, Store(store), "hall") == "hall"
    assert_same(model, store, "hall", store)


def test_an_imported_session_can_be_exported_again(model: Model, store: Path, archive: Path, tmp_path: Path) -> None:
    import_(archive, Store(tmp_path / "second"))
    export(tmp_path / "second" / "lobby", tmp_path / "again.tar")
    import_(tmp_path / "again.tar", Store(tmp_path / "third"))
    assert_same(model, store, "lobby", tmp_path / "third")


def test_an_imported_session_can_have_its_catalog_made_anew(
    model: Model, store: Path, archive: Path, tmp_path: Path
) -> None:
    import_(archive, Store(tmp_path / "other"))
    (tmp_path / "other" / "lobby" / FILE).unlink()
    assert verify(tmp_path / "other" / "lobby", repair=True).ok
    assert_same(model, store, "lobby", tmp_path / "other")


def test_damaged_frames_stay_behind(model: Model, store: Path, tmp_path: Path) -> None:
    path = store / "lobby"
    segment = Segment(Files(), path / "segment-000001.safetensors")
    place = segment.places["layer.1.blocks"]
    with open(segment.path, "r+b") as file:
        file.seek(place.start + 3 * place.row)
        file.write(b"damaged")
    with pytest.raises(StoreError, match=r"damaged.*`rekv verify lobby --repair` first"):
        export(path, tmp_path / "lobby.tar")
    assert not (tmp_path / "lobby.tar").exists()
    (path / "segment-000000.safetensors").unlink()
    with pytest.raises(StoreError, match=r"is gone; `rekv verify lobby --repair`"):
        export(path, tmp_path / "lobby.tar")
    assert left_in(tmp_path) == []
    verify(path, repair=True)
    export(path, tmp_path / "lobby.tar")
    import_(tmp_path / "lobby.tar", Store(tmp_path / "other"))
    with session(model, tmp_path / "other") as opened:
        there = tuple(i for i in range(FRAMES) if i >= 8 and i != 11)
        assert opened.ask("w7", retrieve_size=FRAMES).retrieval.union == there
    assert_same(model, store, "lobby", tmp_path / "other", damaged=True)


@pytest.mark.parametrize("settings", [{}, {"kv": "int8", "max_age": 60.0}], ids=str)
def test_a_session_is_exported_while_it_is_written(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Each archive is the session as it was at some encode call, while segments are added, packed and removed."""
    monkeypatch.setattr("rekv.store.writer.COMMIT_SECONDS", 0.0)
    store, stream = tmp_path / "store", pictures(240)
    with session(model, store, **settings) as writing:
        writing.append(stream[:40])
        writing.flush()
        thread = threading.Thread(target=lambda: writing.append(stream[40:]))
        thread.start()
        made = 0
        while thread.is_alive():
            export(store / "lobby", tmp_path / f"{made}.tar")
            made += 1
        thread.join()
        truth = record(writing)
    seen = []
    for i in range(made):
        import_(tmp_path / f"{i}.tar", Store(tmp_path / f"other-{i}"))
        with session(model, tmp_path / f"other-{i}", **settings) as opened:
            frames = opened.memory.frames
            seen.append(frames)
            assert frames % 4 == 0
            if i == made // 2:
                went_on = record(opened, stream[frames:])
                if not settings:  # which segments have been packed when is a matter of time
                    assert went_on.answers == truth.answers
    assert seen == sorted(seen)
    assert 40 < seen[made // 2] < 240


# -- what is not an archive ------------------------------------------------------------------------------------


def assert_refused(archive: Path, tmp_path: Path, match: str) -> None:
    with pytest.raises(StoreError, match=match):
        import_(archive, Store(tmp_path / "other"))
    assert Store(tmp_path / "other").names() == []
    assert left_in(tmp_path / "other") == []


def test_an_existing_name_is_refused(model: Model, store: Path, archive: Path) -> None:
    with pytest.raises(StoreError, match=r"there is a session 'lobby' in .* already; import it under another name"):
        import_(archive, Store(store))
    assert left_in(store) == []
    with pytest.raises(StoreError, match="cannot name a session"):
        import_(archive, Store(store), "../lobby")


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100, bytes(10240)], ids=["empty", "text", "zeros"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert_refused(tmp_path / "file", tmp_path, "is not an archive of a session")
    assert_refused(tmp_path / "none", tmp_path, "No such file")


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.8, 0.95])
def test_a_cut_archive_is_refused(archive: Path, tmp_path: Path, share: float) -> None:
    os.truncate(archive, int(archive.stat().st_size * share))
    assert_refused(archive, tmp_path, "cut short")


@pytest.mark.parametrize("file", ["segment-000002-001.safetensors", FILE])
def test_a_damaged_archive_is_refused(archive: Path, tmp_path: Path, file: str) -> None:
    with tarfile.open(archive) as tar:
        member = tar.getmember(f"lobby/{file}")
    with open(archive, "r+b") as raw:
        raw.seek(member.offset_data + (0 if file == FILE else member.size // 2))
        raw.write(bytes(200))
    assert_refused(archive, tmp_path, "is damaged: ")


def add(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def change(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        member.size = 4 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"evil"))

    return change


@pytest.mark.parametrize(
    "change",
    [
        add("../evil"),
        add("/evil"),
        add("lobby/../../evil"),
        add("lobby/evil.txt"),
        add("lobby/more/catalog.sqlite"),
        add("lobby/catalog.sqlite-wal"),
        add("other/catalog.sqlite"),
        add("lobby/catalog.sqlite"),
        add("lobby/segment-000099.safetensors"),
        add("lobby/segment-000099.safetensors", tarfile.SYMTYPE, "/evil"),
        add("lobby/segment-000099.safetensors", tarfile.LNKTYPE, "lobby/catalog.sqlite"),
        add("lobby", tarfile.DIRTYPE),
    ],
)
def test_foreign_files_are_refused(archive: Path, tmp_path: Path, change: Callable[[tarfile.TarFile], None]) -> None:
    with tarfile.open(archive, "a") as tar:
        change(tar)
    before = sorted(tmp_path.iterdir())
    assert_refused(archive, tmp_path, "is not an archive of|is damaged: ")
    assert sorted({*tmp_path.iterdir()} - {tmp_path / "other"}) == before


def test_a_catalog_that_points_elsewhere_is_refused(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / "lobby", tmp_path / "lobby")
    with closing(Catalog(tmp_path / "lobby", writable=True)) as catalog, catalog.transaction() as sql:
        sql.execute("UPDATE segments SET file = ? WHERE id = 1", (str(store / "lobby" / "segment-000001.safetensors"),))
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        for file in sorted((tmp_path / "lobby").iterdir()):
            if file.name in (FILE, SINK) or (file.suffix == ".safetensors" and "000001" not in file.name):
                tar.add(file, f"lobby/{file.name}")
    assert_refused(tmp_path / "evil.tar", tmp_path, "is no segment's name")


def test_where_nothing_can_be_written_it_says_so(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be exported to .* \(No such file or directory\)"):
        export(store / "lobby", tmp_path / "nowhere" / "lobby.tar")
    with pytest.raises(StoreError, match="is not a session"):
        export(store / "nobody", tmp_path / "lobby.tar")
    assert not (tmp_path / "lobby.tar").exists()
