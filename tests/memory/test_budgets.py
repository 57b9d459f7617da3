"""Sessions without a store whose RAM is limited: an error, or the oldest are forgotten."""

from typing import Any

import pytest
import torch

from rekv.core import Answer, Frame
from rekv.engine import Session
from rekv.errors import ConfigError, MemoryFullError
from tests.support import pictures, record, shrink_slabs, tiny_model

BLOCK, ROW, LAYERS = 2 * 2 * 3 * 16 * 4, 2 * 16 * 4, 3  # bytes of a frame in one layer; of its representative key
CALL = 4
FRAMES = pictures(120)
QUESTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("w7 w8", {"retrieve_size": 3}),
    ("w30 w2 w5", {"retrieve_size": 4, "chunk_size": 2, "recent_frames": 1}),
    ("w41", {"retrieve_size": 3, "max_new_tokens": 20}),  # outgrows the window
)


@pytest.fixture(autouse=True)
def _small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three frames to a slab of blocks, sixteen to one of the index, whatever the budget: scores to the bit."""
    shrink_slabs(monkeypatch, block_bytes=3 * BLOCK, index_frames=16)


def ram(frames: int) -> int:
    """Bytes of so many frames, blocks and index."""
    return frames * LAYERS * (BLOCK + ROW)


def session_of(**settings: Any) -> Session:
    return tiny_model().session(n_local=25, frames_per_call=CALL, sample_fps=1.0, **settings)


def same(ours: Answer, expected: Answer) -> None:
    """To the bit."""
    assert ours.token_ids == expected.token_ids
    assert ours.retrieval.frames == expected.retrieval.frames
    assert ours.retrieval.candidates == expected.retrieval.candidates
    assert torch.equal(ours.retrieval.scores, expected.retrieval.scores)
    assert ours.evidence == expected.evidence
    assert ours.frames_seen == expected.frames_seen


def test_full_memory_is_an_error_that_leaves_the_session_as_it_is() -> None:
    session, plain = session_of(ram=ram(30)), session_of()
    with pytest.raises(MemoryFullError, match=rf"28 frames, {ram(30)} bytes allowed") as caught:
        session.append(FRAMES)
    for remedy in ("ram", "store", 'when_full="forget"'):
        assert remedy in str(caught.value)
    session.memory.check_integrity()
    assert session.memory.frames == 28
    plain.append(FRAMES[:28])
    record(session).assert_equal(record(plain))
    with pytest.raises(MemoryFullError):
        session.append(FRAMES[28:32])
    assert session.append(FRAMES[28:30]) == 2  # there is still room for these
    plain.append(FRAMES[28:30])
    record(session).assert_equal(record(plain))


def test_memory_that_is_large_enough_changes_nothing() -> None:
    session, plain = session_of(ram=ram(44), when_full="forget"), session_of()
    for one in (session, plain):
        one.append(FRAMES[:40])
    assert session.memory.table.oldest == 0
    record(session, FRAMES[40:44]).assert_equal(record(plain, FRAMES[40:44]))


def test_forgetting_is_to_leave_the_oldest_out_of_questions() -> None:
    """Ids, scores, picks, evidence and words are those of a session that has everything."""
    session, plain = session_of(ram=ram(30), when_full="forget"), session_of()
    for done in range(0, len(FRAMES), CALL):
        for one in (session, plain):
            one.append(FRAMES[done : done + CALL])
        memory = session.memory
        memory.check_integrity()
        assert memory.frames == done + CALL
        assert memory.table.oldest == max(0, memory.frames - 30)
        assert memory.bytes == (memory.frames - memory.table.oldest) * memory.bytes_per_frame
        start = memory.times[memory.table.oldest]
        for question, settings in QUESTIONS if done % (3 * CALL) == 0 else ():
            settings = {"max_new_tokens": 2} | settings
            same(session.ask(question, **settings), plain.ask(question, start=start, **settings))
            scope: dict[str, Any] = {"start": start + 3.0, "at": start + 20.0}
            same(session.ask(question, **settings, **scope), plain.ask(question, **settings, **scope))
    assert list(session.memory.times) == [frame.time for frame in FRAMES]


def test_ram_stays_bounded_however_long_the_stream() -> None:
    """What is held is the budget, and at most a slab of blocks and two of the index besides."""
    session = session_of(ram=ram(30), when_full="forget")
    for done in range(0, len(FRAMES), CALL):
        session.append(FRAMES[done : done + CALL])
        assert session.memory.bytes_in_ram <= ram(30) + LAYERS * (3 * BLOCK + 2 * 16 * ROW)


def test_what_was_forgotten_is_out_of_reach() -> None:
    session = session_of(ram=ram(30), when_full="forget")
    session.append(FRAMES)
    assert session.memory.table.oldest == 90
    with pytest.raises(ConfigError, match=r"frame 89 .*frames 90 to 119"):
        session.ask("w7", frames=[100, 89])
    answer = session.ask("w7", frames=[90, 119], max_new_tokens=2)
    assert sorted((s.start, s.end, s.frames) for s in answer.evidence) == [(90.0, 91.0, (90,)), (119.0, 120.0, (119,))]
    before = session.ask("w7", at=50.0, max_new_tokens=2)
    assert (before.frames_seen, before.evidence, before.reads) == (0, (), {})
    assert before.retrieval.scores.shape == (LAYERS, 0)


def test_window_that_leaves_nothing_to_forget_is_an_error() -> None:
    session = tiny_model().session(n_local=90, frames_per_call=CALL, ram=ram(18), when_full="forget")
    with pytest.raises(MemoryFullError, match="the window of 90 tokens"):
        session.append(FRAMES)
    session.memory.check_integrity()
    done = session.memory.frames
    assert done >= 12
    plain = tiny_model().session(n_local=90, frames_per_call=CALL)
    plain.append(FRAMES[:done])
    record(session).assert_equal(record(plain))


def test_budget_below_a_few_calls_is_refused() -> None:
    least = 4 * CALL * LAYERS * BLOCK
    with pytest.raises(ConfigError, match=rf"ram is {least - 1} bytes, and 16 frames take {least}"):
        session_of(ram=least - 1)
    session_of(ram=least)


@pytest.mark.parametrize("frames", [1, 3, 40])
def test_gpu_cache_changes_nothing_but_where_blocks_are_read(frames: int) -> None:
    """The cache lies on the model's device, whatever that is."""
    session, plain = session_of(gpu_cache=frames * LAYERS * BLOCK), session_of()
    for done in range(0, 40, CALL):
        for one in (session, plain):
            one.append(FRAMES[done : done + CALL])
        record(session).assert_equal(record(plain))
        session.memory.check_integrity()
    question: dict[str, Any] = {"frames": [5, 9], "max_new_tokens": 2}
    session.ask("w7", **question)
    reads = session.ask("w7", **question).reads
    hits = min(frames, 2) * LAYERS
    assert {tier: read.blocks for tier, read in reads.items()} == {
        tier: blocks for tier, blocks in (("gpu", hits), ("ram", 2 * LAYERS - hits)) if blocks
    }
    same(session.ask("w7", **question), plain.ask("w7", **question))


def test_gpu_cache_forgets_with_the_rest() -> None:
    session = session_of(ram=ram(30), gpu_cache=50 * LAYERS * BLOCK, when_full="forget")
    plain = session_of()
    for done in range(0, len(FRAMES), CALL):
        for one in (session, plain):
            one.append(FRAMES[done : done + CALL])
        start = session.memory.times[session.memory.table.oldest]
        settings: dict[str, Any] = {"retrieve_size": 6, "max_new_tokens": 2}
        same(session.ask("w7 w8", **settings), plain.ask("w7 w8", start=start, **settings))
        for layer in session.memory.layers.values():
            assert layer.blocks.gpu is not None
            assert layer.blocks.gpu.frames <= session.memory.frames - session.memory.table.oldest
            layer.blocks.gpu.check_integrity()


def test_memory_of_the_index_is_within_the_budget_too() -> None:
    """It grows by pieces, which are small beside the budget, and gives back those that are forgotten."""
    budget = ram(400)
    session = session_of(ram=budget, when_full="forget")
    for start in range(0, 1200, 100):
        session.append(Frame(frame.image, frame.time + start) for frame in FRAMES[:100])
        index = sum(layer.index.bytes for layer in session.memory.layers.values())
        blocks = sum(layer.blocks.ram.bytes for layer in session.memory.layers.values())
        assert blocks + index <= 1.05 * budget


def test_a_gpu_cache_without_a_gpu_is_told(caplog: pytest.LogCaptureFixture) -> None:
    session_of(gpu_cache=50 * LAYERS * BLOCK)
    assert "the model is on the CPU" in caplog.text
