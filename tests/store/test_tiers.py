"""RAM holds what its budget allows; the rest is read from disk, with the same results."""

from pathlib import Path

import pytest
import torch

from rekv.core import Frame
from rekv.errors import ConfigError
from tests.store.support import answer_of, assert_same_answers, in_memory, keeper_of, kept, model_on, small_segments
from tests.support import pictures

FRAMES = pictures(120)
BLOCK = 2 * 2 * 3 * 16 * 4  # bytes: one frame in one layer of the tiny model
FRAME = 3 * BLOCK


@pytest.mark.parametrize("frames_in_ram", [16, 40, 1000])
def test_any_budget_gives_the_same_answers(frames_in_ram: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch, 10)
    whole = in_memory(FRAMES)
    session = kept(tmp_path, ram=frames_in_ram * FRAME)
    session.append(FRAMES)
    assert_same_answers(session, whole)
    session.memory.check_integrity()
    for layer in session.memory.layers.values():
        assert layer.blocks.ram.frames <= frames_in_ram
    session.close()
    reader = kept(tmp_path, ram=frames_in_ram * FRAME)
    assert_same_answers(reader, whole)
    reader.memory.check_integrity()


def test_ram_stays_within_its_budget(tmp_path: Path) -> None:
    """Blocks and index, however long the stream, and while questions are asked."""
    budget = 40 * FRAME
    session = kept(tmp_path, ram=budget)
    for start in range(0, 120, 8):
        session.append(FRAMES[start : start + 8])
        answer_of(session, retrieve_size=30)
        assert session.memory.bytes_in_ram <= budget
    assert session.memory.bytes > 2 * budget


def test_ram_stays_within_its_budget_when_a_long_session_is_opened_and_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of what is there, and of what others add, is kept on disk as far as it does not fit."""
    small_segments(monkeypatch, 40)
    budget = 32 * FRAME
    with kept(tmp_path) as writer:
        writer.append(FRAMES)
        writer.flush()
        reader = kept(tmp_path, ram=budget)
        assert_same_answers(reader, writer)
        answer_of(reader, retrieve_size=60)
        assert reader.memory.bytes_in_ram <= budget
        for start in range(0, 120, 40):
            writer.append(Frame(frame.image, frame.time + 120) for frame in FRAMES[start : start + 40])
            writer.flush()
            assert_same_answers(reader, writer)
            assert reader.memory.bytes_in_ram <= budget
        assert reader.memory.frames == 240
        assert_same_answers(kept(tmp_path, ram=budget), writer)


def test_index_beyond_half_the_budget_is_on_disk(tmp_path: Path) -> None:
    session = kept(tmp_path, ram=16 * FRAME)
    session.append(FRAMES)
    keeper_of(session).flush()
    session.append(FRAMES[-1:])
    index = sum(layer.index.bytes for layer in session.memory.layers.values())
    assert index <= 8 * FRAME
    assert index < 120 * 3 * session.memory.layers[0].index.row_bytes
    whole = in_memory(FRAMES)
    whole.append(FRAMES[-1:])
    torch.testing.assert_close(answer_of(session)[2], answer_of(whole)[2], atol=1e-5, rtol=1e-5)


def test_answers_say_where_blocks_were(tmp_path: Path) -> None:
    with kept(tmp_path) as session:
        session.append(FRAMES[:20])
        assert set(session.ask("w1", retrieve_size=3).reads) == {"ram"}
    reader = kept(tmp_path)
    first, again = (reader.ask("w1", retrieve_size=3) for _ in range(2))
    assert {tier: read.blocks for tier, read in first.reads.items()} == {"disk": 9}
    assert {tier: read.blocks for tier, read in again.reads.items()} == {"ram": 9}
    assert first.bytes_read == {"disk": 9 * BLOCK}
    assert first.reads["disk"].seconds > 0
    assert first.timings.load == pytest.approx(first.reads["disk"].seconds)
    assert first.token_ids == again.token_ids


def test_gpu_cache_is_a_tier_of_its_own(tmp_path: Path, device: torch.device) -> None:
    with kept(tmp_path) as session:
        session.append(FRAMES[:20])
    reader = kept(tmp_path, model_on(device), gpu_cache=6 * FRAME)
    seen = [reader.ask("w1", retrieve_size=3).reads for _ in range(2)]
    assert [set(reads) for reads in seen] == [{"disk"}, {"gpu"}]
    assert_same_answers(reader, kept(tmp_path))


def test_budgets_that_are_too_small_say_how_much_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"16 frames take {16 * FRAME}"):
        kept(tmp_path, ram=15 * FRAME)
