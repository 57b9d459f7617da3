"""A session that is closed and opened again goes on as if nothing had happened."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rekv.core import Frame
from rekv.errors import SessionError, StoreError
from rekv.store.store import Store
from tests.store.support import (
    answer_of,
    assert_same_answers,
    assert_same_state,
    in_memory,
    keeper_of,
    kept,
    model_on,
    segments,
    small_segments,
)
from tests.support import pictures, tiny_model

FRAMES = pictures(48)


@pytest.mark.parametrize("cuts", [[], [4], [20], [4, 8, 12, 44], list(range(4, 48, 4))], ids=str)
@pytest.mark.parametrize("slots", [6, 4096])
def test_continuation_is_bit_equal(
    cuts: list[int], slots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between any encode calls, in windows that slid and that did not."""
    small_segments(monkeypatch, slots)
    for first, last in zip([0, *cuts], [*cuts, len(FRAMES)], strict=True):
        with kept(tmp_path) as session:
            session.append(FRAMES[first:last])
            session.memory.check_integrity()
    whole = in_memory(FRAMES)
    session.append(())  # builds the window again
    assert_same_state(session, whole)
    assert_same_answers(session, whole)
    assert_same_answers(kept(tmp_path), whole)
    expected = -(-len(FRAMES) // slots)
    assert len(segments(tmp_path)) == expected


def test_continuation_is_bit_equal_on_every_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    small_segments(monkeypatch)
    for first, last in ((0, 20), (20, 32), (32, len(FRAMES))):
        with kept(tmp_path, model_on(device), ram=30 * 3 * 768, gpu_cache=8 * 3 * 768) as session:
            session.append(FRAMES[first:last])
    session.append(())
    whole = in_memory(FRAMES, model_on(device))
    assert_same_state(session, whole)
    assert_same_answers(session, whole)


def test_one_object_reads_writes_and_reads(tmp_path: Path) -> None:
    """Closing lets others append; what they append is seen, and appending begins anew."""
    one, other = kept(tmp_path), None
    one.append(FRAMES[:8])
    one.close()
    other = kept(tmp_path)
    other.append(FRAMES[8:24])
    other.close()
    assert answer_of(one)[2].shape[1] == 24
    one.append(FRAMES[24:])
    one.memory.check_integrity()
    assert_same_state(one, in_memory(FRAMES))


def test_nothing_is_made_before_the_first_frame(tmp_path: Path) -> None:
    session = kept(tmp_path / "store")
    assert not (tmp_path / "store").exists()
    with pytest.raises(SessionError, match="does not exist yet: append"):
        session.ask("w1")
    session.append(FRAMES[:2])
    session.close()
    assert Store(tmp_path / "store").names() == ["cam"]


def test_frames_are_durable_when_flush_returns(tmp_path: Path) -> None:
    session = kept(tmp_path)
    session.append(FRAMES[:10])
    session.flush()
    assert keeper_of(session).durable == 10
    assert kept(tmp_path).memory.frames == 10


def test_a_session_that_is_dropped_is_written(tmp_path: Path) -> None:
    session = kept(tmp_path)
    session.append(FRAMES[:10])
    del session
    again = kept(tmp_path)
    again.append(FRAMES[10:12])
    assert again.memory.frames == 12


def test_other_settings_cannot_append_but_read(tmp_path: Path) -> None:
    with kept(tmp_path) as session:
        session.append(FRAMES[:8])
        expected = answer_of(session)
    other = kept(tmp_path, sample_fps=2.0)
    assert answer_of(other)[:2] == expected[:2]
    with pytest.raises(SessionError, match=r"sample_fps 1\.0 \(now 2\.0\)|sample_fps 0\.5 \(now 2\.0\)"):
        other.append(FRAMES[8:12])
    with pytest.raises(SessionError, match="another init prompt"):
        kept(tmp_path, init_prompt="w9 w9").append(FRAMES[8:12])
    kept(tmp_path).append(FRAMES[8:12])  # the lock was let go


def test_another_model_is_refused(tmp_path: Path) -> None:
    with kept(tmp_path) as session:
        session.append(FRAMES[:8])
    from tests.support import decoder_lm

    with pytest.raises(SessionError, match="only that model can read its memory"):
        kept(tmp_path, tiny_model(decoder_lm(layers=2)))


def test_walls_and_near_duplicates_survive(tmp_path: Path) -> None:
    """The frame that the next one is compared with is committed too: the same frames are left out."""
    rng = np.random.default_rng(3)
    scenes = [rng.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(5)]
    stream = [Frame(scenes[i // 6], float(i), wall=1e9 + i) for i in range(30)]
    whole = in_memory(stream, skip_duplicates=8.0, max_span=4.0)
    assert list(whole.memory.times) == [t for s in range(0, 30, 6) for t in (s, s + 5)]
    for first, last in ((0, 8), (8, 9), (9, 21), (21, 30)):
        with kept(tmp_path, skip_duplicates=8.0, max_span=4.0) as session:
            session.append(stream[first:last])
    again = kept(tmp_path, skip_duplicates=8.0, max_span=4.0)
    assert list(again.memory.times) == list(whole.memory.times)
    assert again.memory.table.until == whole.memory.table.until
    rows = keeper_of(again).folder.catalog.frames()
    assert [row.wall for row in rows] == [1e9 + row.time for row in rows]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".x", "x" * 101, "a\nb", "ä"])
def test_names_that_are_paths_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot name a session"):
        tiny_model().session(name, store=tmp_path)


def test_reading_may_cast(tmp_path: Path) -> None:
    """Encoded in bfloat16, asked in float32."""
    from tests.support import decoder_lm

    low = decoder_lm(layers=2)
    import copy

    half = copy.deepcopy(low).to(torch.bfloat16)
    with kept(tmp_path, tiny_model(half)) as session:
        session.append(FRAMES[:12])
        expected = answer_of(session)
    reader = kept(tmp_path, tiny_model(low))
    _, frames, scores = answer_of(reader)
    torch.testing.assert_close(scores, expected[2], atol=0.5, rtol=0.1)
    assert frames[0] == expected[1][0]
    with pytest.raises(SessionError, match="bfloat16"):
        reader.append(FRAMES[12:14])
