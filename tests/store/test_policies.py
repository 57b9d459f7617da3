"""Sessions in a store with a memory policy: whole while in the window, then what is kept, as if never interrupted."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from rekv.engine import Model, Session
from rekv.errors import SessionError, StoreError
from rekv.memory.policies import register, registry
from rekv.store.archive import export, import_
from rekv.store.catalog import FILE, Catalog
from rekv.store.files import Files
from rekv.store.retention import pin, prune
from rekv.store.segment import Segment
from rekv.store.store import Store
from rekv.store.verify import verify
from tests.memory.test_policies import LAYERS, TOKEN, TOKENS, Merge, Uneven, same
from tests.store.support import small_segments
from tests.support import pictures, tiny_model

FRAMES = pictures(60)
SLOTS = 6
POLICIES = ("value-norm:0.3", "redundancy:0.05", "merge", "uneven")
QUESTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("w7 w8", {"retrieve_size": 5}),
    ("w30 w2 w5", {"retrieve_size": 40, "recent_frames": 3}),
    ("w41", {"retrieve_size": 4, "start": 20.0, "end": 44.0}),
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch, SLOTS)
    monkeypatch.setattr(registry, "_POLICIES", dict(registry._POLICIES))
    for policy in (Merge, Uneven):
        register(policy)


def session_of(policy: str | None, store: Path | None = None, model: Model | None = None, **settings: Any) -> Session:
    """In a store the session "cam", of which twelve frames are in the window at most."""
    model = model or tiny_model(tokens_per_frame=TOKENS)
    place: dict[str, Any] = {} if store is None else {"name": "cam", "store": store}
    if policy is not None:
        place["policy"] = policy
    return model.session(n_local=160, frames_per_call=4, sample_fps=1.0, **place, **settings)


def made(store: Path, policy: str, frames: int = len(FRAMES), **settings: Any) -> Path:
    with session_of(policy, store, **settings) as session:
        session.append(FRAMES[:frames])
    return store / "cam"


def assert_same_state(one: Session, other: Session) -> None:
    """What is kept, the index and the window are equal to the bit."""
    mine, theirs = one.memory, other.memory
    assert mine.frames == theirs.frames
    frames = range(mine.frames)
    for layer, twin in zip(mine.layers.values(), theirs.layers.values(), strict=True):
        assert layer.kept is not None
        assert twin.kept is not None
        assert (layer.kept.masks(frames) == twin.kept.masks(frames)).all()
        assert all(map(torch.equal, layer.kept.read(frames), twin.kept.read(frames)))
        assert torch.equal(layer.index.rows(frames), twin.index.rows(frames))
        assert (layer.window.first, layer.window.capacity) == (twin.window.first, twin.window.capacity)
        used = mine.tokens - layer.window.first
        assert all(map(torch.equal, layer.window.slots(0, used), twin.window.slots(0, used)))


def assert_same_answers(one: Session, other: Session) -> None:
    for question, settings in QUESTIONS:
        same(one.ask(question, max_new_tokens=5, **settings), other.ask(question, max_new_tokens=5, **settings))


def reduced_segments(folder: Path) -> list[bool]:
    with closing(Catalog(folder, writable=False)) as catalog:
        return [Segment(Files(), folder / row.file).is_reduced for row in catalog.segments()]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cuts", [[], [20], [4, 8, 32, 44]], ids=str)
def test_continuation_is_bit_equal(policy: str, cuts: list[int], tmp_path: Path) -> None:
    for first, last in zip([0, *cuts], [*cuts, len(FRAMES)], strict=True):
        with session_of(policy, tmp_path) as session:
            session.append(FRAMES[first:last])
            session.memory.check_integrity()
    whole = session_of(policy)
    whole.append(FRAMES)
    session = session_of(policy, tmp_path)
    assert_same_answers(session, whole)  # as a reader
    session.append(())
    session.memory.check_integrity()
    assert_same_state(session, whole)
    assert_same_answers(session, whole)


@pytest.mark.parametrize("kv", ["raw", "int8", "int4"])
def test_segments_shrink_when_they_have_left_the_window(kv: str, tmp_path: Path) -> None:
    folder = made(tmp_path, "value-norm:0.3", kv=kv)
    reduced = reduced_segments(folder)
    assert reduced == sorted(reduced, reverse=True)
    assert reduced.count(True) >= 6
    assert not all(reduced)
    whole = TOKENS * TOKEN
    with closing(Catalog(folder, writable=False)) as catalog:
        for row, is_reduced in zip(catalog.segments(), reduced, strict=True):
            segment = Segment(Files(), folder / row.file)
            sizes = segment.table("size")
            with safe_open(folder / row.file, "np") as file:  # type: ignore[no-untyped-call]
                assert file.get_slice("layer.0.blocks").get_shape() is not None
            if kv == "raw":
                assert (sizes == (6 * TOKEN if is_reduced else whole)).all()  # ceil(0.3 * 19)
            elif is_reduced:
                assert (sizes < 6 * TOKEN).all()
    report = verify(folder)
    assert report.ok
    assert report.frames == len(FRAMES)


@pytest.mark.parametrize("kv", ["raw", "int8"])
@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_read_does_not_depend_on_where_it_is(kv: str, policy: str, tmp_path: Path) -> None:
    """A reader with little RAM reads whole and reduced segments, piece by piece; int8 differs by its rounding."""
    made(tmp_path, policy, kv=kv)
    whole, reader = session_of(policy), session_of(policy, tmp_path, ram=40 * LAYERS * TOKENS * TOKEN)
    whole.append(FRAMES)
    for layer, twin in zip(reader.memory.layers.values(), whole.memory.layers.values(), strict=True):
        assert layer.kept is not None
        assert twin.kept is not None
        for picks in (range(60), [59, 3, 40], range(20, 30)):
            ours, theirs = layer.kept.read(picks), twin.kept.read(picks)
            assert torch.equal(ours[1], theirs[1])
            torch.testing.assert_close(ours[0], theirs[0], atol=0 if kv == "raw" else 0.1, rtol=0)
    reader.memory.check_integrity()


def test_budgets_hold_with_a_store(tmp_path: Path) -> None:
    ram = 40 * LAYERS * TOKENS * TOKEN
    session, whole = session_of("uneven", tmp_path, ram=ram), session_of("uneven")
    for done in range(0, 60, 12):
        for one in (session, whole):
            one.append(FRAMES[done : done + 12])
        session.memory.check_integrity()
        assert session.memory.bytes_in_ram <= ram
        assert_same_answers(session, whole)
    session.close()


def test_a_follower_sees_what_is_written(tmp_path: Path) -> None:
    writer, whole = session_of("redundancy:0.05", tmp_path), session_of("redundancy:0.05")
    reader: Session | None = None
    for done in range(0, 60, 12):
        for one in (writer, whole):
            one.append(FRAMES[done : done + 12])
        writer.flush()
        reader = reader or session_of(None, tmp_path) if done == 0 else reader
        assert reader is not None
        assert_same_answers(reader, whole)
    writer.close()
    reader.append(())  # and can go on from there
    assert_same_state(reader, whole)


def test_another_policy_cannot_continue(tmp_path: Path) -> None:
    made(tmp_path, "value-norm:0.3", 20)
    for other in ("value-norm:0.5", None):
        session = tiny_model(tokens_per_frame=TOKENS).session("cam", store=tmp_path, policy=other)
        with pytest.raises(SessionError, match=r"policy value-norm:0\.3 \(now"):
            session.append(FRAMES[20:24])


def test_archives_hold_what_is_kept(tmp_path: Path) -> None:
    folder = made(tmp_path / "one", "uneven", kv="int8")
    export(folder, tmp_path / "cam.tar")
    import_(tmp_path / "cam.tar", Store(tmp_path / "two"))
    assert reduced_segments(tmp_path / "two" / "cam") == reduced_segments(folder)
    one, two = (session_of("uneven", tmp_path / name) for name in ("one", "two"))
    assert_same_answers(one, two)
    for session in (one, two):
        session.append(pictures(80)[60:])
    assert_same_state(one, two)


def test_thinning_and_pins(tmp_path: Path) -> None:
    """Reduced segments are rewritten as they are; whole ones that go on are reduced by it."""
    folder = made(tmp_path, "uneven")
    pin(folder, 0.0, 3.0)
    plain = session_of("uneven")
    plain.append(FRAMES)
    prune(Store(tmp_path), max_age=0.0, thin_keep=3)
    assert verify(folder).ok
    session = session_of("uneven", tmp_path)
    left = session.memory.table.there(range(60))
    assert {0, 1, 2, 3, 6} <= set(left)
    assert {4, 5, 7} & set(left) == set()
    for layer, twin in zip(session.memory.layers.values(), plain.memory.layers.values(), strict=True):
        assert layer.kept is not None
        assert twin.kept is not None
        assert all(map(torch.equal, layer.kept.read(left), twin.kept.read(left)))
    session.append(pictures(80)[60:])
    plain.append(pictures(80)[60:])
    session.memory.check_integrity()
    frames = session.memory.table.there(range(80))[-20:]
    given = {"frames": frames, "max_new_tokens": 4}
    assert session.ask("w3 w9", **given).token_ids == plain.ask("w3 w9", **given).token_ids


@pytest.mark.parametrize("table", ["kept", "layer.1.blocks", "layer.1.index"])
def test_damage_costs_the_frames_it_hits(table: str, tmp_path: Path) -> None:
    folder = made(tmp_path, "uneven")
    with closing(Catalog(folder, writable=False)) as catalog:
        row = catalog.segments()[1]
    place = Segment(Files(), folder / row.file).places[table]
    with open(folder / row.file, "r+b") as file:
        file.seek(place.start)
        byte = file.read(1)[0]
        file.seek(place.start)
        file.write(bytes([byte ^ 0x81]))
    report = verify(folder)
    assert [problem.frames for problem in report.problems] == [(SLOTS,)]
    session = session_of("uneven", tmp_path)
    answer = session.ask("w3", retrieve_size=60, max_new_tokens=2)
    assert SLOTS not in answer.retrieval.union
    assert len(answer.retrieval.union) == len(FRAMES) - 1
    assert answer.warnings
    assert verify(folder, repair=True).ok
    session = session_of("uneven", tmp_path)
    session.append(pictures(64)[60:])
    session.close()
    assert verify(folder).ok


def test_a_lost_catalog_is_made_anew(tmp_path: Path) -> None:
    folder = made(tmp_path, "uneven", kv="int8")
    before = session_of("uneven", tmp_path)
    for file in folder.glob(f"{FILE}*"):
        file.unlink()
    assert verify(folder, repair=True).ok
    assert_same_answers(session_of("uneven", tmp_path), before)


def test_a_window_that_lost_a_frame_is_built_from_whole_ones(tmp_path: Path) -> None:
    folder = made(tmp_path, "uneven")
    with closing(Catalog(folder, writable=True)) as catalog, catalog.transaction() as sql:
        first = int(catalog.get("window_first") or 0) // TOKENS
        sql.execute("UPDATE frames SET damaged = 'a test' WHERE id BETWEEN ? AND ?", (first - 1, first + 1))
    session = session_of("uneven", tmp_path)
    session.append(pictures(64)[60:])
    session.memory.check_integrity()
    session.close()


def test_a_policy_that_is_not_installed(tmp_path: Path) -> None:
    """What needs no policy works: to look, to verify, to export. The rest names it."""
    folder = made(tmp_path, "uneven")
    del registry._POLICIES["uneven"]
    assert verify(folder).ok
    export(folder, tmp_path / "cam.tar")
    with pytest.raises(ValueError, match=r"'uneven'.*needs that package"):
        session_of(None, tmp_path)


def test_stores_of_before_still_open(tmp_path: Path) -> None:
    """A session that no policy shapes has segments of version 1, without masks, and settings that do not name one."""
    with session_of(None, tmp_path) as session:
        session.append(FRAMES[:30])
    folder = tmp_path / "cam"
    for file in folder.glob("segment-*"):
        segment = Segment(Files(), file)
        assert segment.metadata["version"] == "1"
        assert "kept" not in segment.places
    with closing(Catalog(folder, writable=True)) as catalog, catalog.transaction() as sql:
        sql.execute("UPDATE meta SET value = replace(value, ', \"policy\": null', '') WHERE key = 'session'")
        assert "policy" not in (catalog.get("session") or "")
    again = session_of(None, tmp_path)
    again.append(FRAMES[30:])
    whole = session_of(None)
    whole.append(FRAMES)
    assert_same_answers(again, whole)
    again.close()


def test_a_reader_of_version_1_alone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path, "uneven", 8)
    monkeypatch.setattr("rekv.store.header.VERSION", 1)
    with pytest.raises(StoreError, match="install a newer rekv"):
        Segment(Files(), folder / "segment-000000.safetensors")
