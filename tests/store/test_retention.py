"""What has left the window is packed, thinned or removed, and the rest answers as before."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rekv.engine import Session
from rekv.errors import ConfigError
from rekv.store.catalog import Catalog
from rekv.store.codecs import CODECS, codec
from rekv.store.store import Store
from tests.store.support import (
    QUESTION,
    answer_of,
    assert_same_answers,
    assert_same_state,
    in_memory,
    keeper_of,
    kept,
    segments,
    small_segments,
)
from tests.support import pictures

FRAMES = pictures(80)
N_WINDOW = 14 + 7 + 6  # frames that 40 tokens of window, half as many slots more, and a segment may hold


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch, 6)
    monkeypatch.setattr("rekv.store.writer.COMMIT_SECONDS", 0.0)


def written(folder: Path, frames: Any = FRAMES, **settings: Any) -> Session:
    """A session appended to call by call, each durable before the next, so that it is always settled the same way."""
    session = kept(folder, **settings)
    for start in range(0, len(frames), 4):
        session.append(frames[start : start + 4])
        session.flush()
    session.close()  # what was to be done behind it is done
    return session


def there(session: Session) -> list[int]:
    return list(session.memory.table.there(range(session.memory.frames)))


@pytest.mark.parametrize("name", [name for name in CODECS if name != "raw"])
def test_sealed_segments_are_packed(name: str, tmp_path: Path) -> None:
    """Blocks are as computed in the window, and what the codec makes of them behind it; appending is exact."""
    session = written(tmp_path, kv=name)
    assert any(file.endswith("-001.safetensors") for file in segments(tmp_path))
    whole = in_memory(FRAMES)
    packed = 0
    session.close()
    reader = kept(tmp_path)
    rows = {row.id: row.codec for row in keeper_of(reader).folder.catalog.segments()}
    for i, layer in reader.memory.layers.items():
        exact = whole.memory.layers[i].blocks.read(range(80))
        expected = exact.clone()
        shape = layer.blocks.shape
        packing = codec(name, (shape[1], shape[2], shape[3]), layer.blocks.dtype)
        for frame in range(80):
            if rows[keeper_of(reader).folder.place(frame)[0]] == name:
                expected[frame] = packing.unpack(packing.pack(exact[frame : frame + 1]))[0]
                packed += 1
        assert torch.equal(layer.blocks.read(range(80)), expected)
    assert packed >= 3 * (80 - N_WINDOW)
    reader.append(FRAMES[:0])
    used = whole.memory.tokens - whole.memory.layers[0].window.first
    for i, layer in reader.memory.layers.items():
        assert torch.equal(layer.window.slots(0, used)[0], whole.memory.layers[i].window.slots(0, used)[0])


def test_writer_reads_what_is_on_disk(tmp_path: Path) -> None:
    """A question gets the same answer from the process that wrote and from another one: packed is packed for both."""
    session = written(tmp_path, kv="int4")
    assert_same_answers(session, kept(tmp_path))


def test_oldest_segments_are_removed_beyond_a_size(tmp_path: Path) -> None:
    size = Store(tmp_path)
    free = written(tmp_path, name="free")
    whole = keeper_of(free).folder.bytes()
    session = written(tmp_path, name="bound", disk=whole // 2)
    left = there(session)
    assert left == list(range(left[0], 80))
    assert 0 < left[0] <= 80 - 14
    assert not session.ask(QUESTION).warnings
    assert size.open("bound").bytes() <= whole // 2 + 4 * whole // len(segments(tmp_path, "free"))
    again = kept(tmp_path, name="bound")
    assert there(again) == left
    assert_same_answers(again, session)
    with pytest.raises(ConfigError, match=f"frame 0 is not in reach.*{left[0]} to 79"):
        session.ask(QUESTION, frames=[0])


def test_old_frames_are_removed_by_age(tmp_path: Path) -> None:
    session = written(tmp_path, max_age=40.0)
    left = there(session)
    assert left == list(range(left[0], 80))
    assert 20 <= left[0] <= 80 - 40
    reference = in_memory(FRAMES)
    ours, theirs = (answer_of(s, start=float(left[0]), retrieve_size=5) for s in (session, reference))
    assert ours[:2] == theirs[:2]
    assert list(session.ask(QUESTION).retrieval.candidates) == left


def test_old_frames_are_thinned(tmp_path: Path) -> None:
    """Every third frame stays, ids and times unchanged; questions read only what is there."""
    session = written(tmp_path, thin_after=30.0, thin_keep=3)
    left = there(session)
    first_whole = next(frame for frame in range(80) if set(range(frame, 80)) <= set(left))
    assert first_whole > 12
    assert left == [*range(0, first_whole, 3), *range(first_whole, 80)]
    answer = session.ask(QUESTION, retrieve_size=60, end=float(first_whole))
    assert set(answer.retrieval.union) == set(range(0, first_whole, 3))
    assert {span.start for span in answer.evidence} <= {float(t) for t in range(0, 80)}
    session.close()
    again = kept(tmp_path)
    assert there(again) == left
    assert_same_answers(again, session)
    again.append(FRAMES[:0])
    expected = in_memory(FRAMES)
    for i, layer in again.memory.layers.items():
        rows = expected.memory.layers[i].blocks.read(left)
        assert torch.equal(layer.blocks.read(left), rows)


def test_pinned_spans_stay(tmp_path: Path) -> None:
    session = kept(tmp_path, max_age=30.0)
    session.append(FRAMES[:4])
    session.flush()
    catalog = keeper_of(session).folder.catalog
    with catalog.transaction() as sql:
        sql.execute("INSERT INTO pins (start, until) VALUES (8.0, 11.0)")
    for start in range(4, 80, 4):
        session.append(FRAMES[start : start + 4])
        session.flush()
    session.close()
    left = there(session)
    assert left[:3] == [8, 9, 10]
    assert left[3] > 20
    assert set(session.ask(QUESTION, end=20.0).retrieval.union) == {8, 9, 10}


def test_resumed_after_retention_is_bit_equal(tmp_path: Path) -> None:
    """What was removed is gone, and changes nothing of what follows."""
    for first, last in ((0, 40), (40, 60), (60, 80)):
        session = written(tmp_path, FRAMES[first:last], max_age=25.0, kv="int8")
        session.close()
    whole = in_memory(FRAMES)
    session.append(())
    used = whole.memory.tokens - whole.memory.layers[0].window.first
    for i, layer in session.memory.layers.items():
        twin = whole.memory.layers[i]
        assert layer.window.first == twin.window.first
        assert torch.equal(layer.window.slots(0, used)[0], twin.window.slots(0, used)[0])


def test_readers_keep_up_with_retention(tmp_path: Path) -> None:
    """A reader that knew the removed frames does not offer them any more, nor fails over them."""
    session = kept(tmp_path, max_age=30.0, kv="int8")
    session.append(FRAMES[:20])
    session.flush()
    reader = kept(tmp_path)
    assert len(there(reader)) == 20
    for start in range(20, 80, 4):
        session.append(FRAMES[start : start + 4])
        session.flush()
        answer = reader.ask(QUESTION, retrieve_size=6)
        assert not answer.warnings
        assert len(answer.retrieval.frames[0]) == 6
    session.close()
    assert there(reader) == there(session)
    assert_same_answers(reader, kept(tmp_path))


def test_catalog_and_folder_agree_afterwards(tmp_path: Path) -> None:
    session = written(tmp_path, max_age=40.0, kv="int4")
    session.close()
    catalog = Catalog(Store(tmp_path).path("cam"), writable=False)
    assert sorted(row.file for row in catalog.segments()) == segments(tmp_path)
    assert {row.segment for row in catalog.frames()} == {row.id for row in catalog.segments()}


def test_state_after_all_of_it(tmp_path: Path) -> None:
    session = written(tmp_path, kv="int8")
    again = kept(tmp_path)
    session.close()
    again.append(())
    assert_same_state(again, session)
