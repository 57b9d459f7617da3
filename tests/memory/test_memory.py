"""A session's memory holds its invariants, whatever comes."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rekv.core import Frame
from rekv.engine import Session
from rekv.errors import ConfigError
from tests.support import decoder_lm, hidden_states, pictures, record, shrink_slabs, tiny_session, words


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three frames to a slab of blocks, five to one of the index."""
    shrink_slabs(monkeypatch, block_bytes=3 * 2 * 2 * 3 * 16 * 4, index_frames=5)


def blocks_of(session: Session) -> torch.Tensor:
    frames = range(session.memory.frames)
    return torch.stack([session.memory.layers[i].blocks.read(frames) for i in sorted(session.memory.layers)])


def appended(frames: Sequence[Frame], sizes: Sequence[int], **options: Any) -> Session:
    session = tiny_session(**options)
    at = 0
    for n in sizes:
        session.append(frames[at : at + n])
        at += n
    return session


def partition(draw: random.Random, total: int) -> list[int]:
    sizes = []
    while total:
        sizes.append(draw.randint(1, total))
        total -= sizes[-1]
    return sizes


@pytest.mark.usefixtures("small_slabs")
@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_appends_and_questions_gives_one_memory(seed: int) -> None:
    """Blocks are those of a fresh session that reads one frame at a time and is asked nothing."""
    draw = random.Random(seed)
    frames = pictures(40)[: draw.randrange(1, 41)]
    n_local = draw.choice((5, 17, 30, 60, 500))
    session = tiny_session(n_local=n_local, frames_per_call=draw.randrange(1, 9))
    done = 0
    for n in partition(draw, len(frames)):
        assert session.append(frames[done : done + n]) == n
        done += n
        session.memory.check_integrity()
        if draw.random() < 0.5:
            question = words([draw.randrange(1, 101) for _ in range(draw.randrange(1, 6))])
            session.ask(question, retrieve_size=draw.randrange(0, 8), max_new_tokens=draw.choice((1, 2, 80)))
            session.memory.check_integrity()
    memory = session.memory
    assert memory.frames == len(frames)
    assert list(memory.times) == [f.time for f in frames]
    assert memory.tokens == memory.n_init + len(frames) * 3
    assert memory.bytes == blocks_of(session).nbytes == len(frames) * memory.bytes_per_frame
    fresh = appended(frames, [1] * len(frames), n_local=n_local, frames_per_call=1)
    torch.testing.assert_close(blocks_of(session), blocks_of(fresh), atol=1e-5, rtol=0)
    record(session, pictures(45)[40:]).assert_close(record(fresh, pictures(45)[40:]))
    session.memory.check_integrity()


@pytest.mark.usefixtures("small_slabs")
@pytest.mark.parametrize("frames_per_call", [1, 2, 3, 7, 16, 64])
def test_frames_per_call_has_no_influence(frames_per_call: int) -> None:
    frames = pictures(60)
    decoder = decoder_lm().get_decoder()
    with hidden_states(decoder) as one:
        tiny_session(n_local=31, frames_per_call=5).append(frames)
    with hidden_states(decoder) as other:
        tiny_session(n_local=31, frames_per_call=frames_per_call).append(frames)
    torch.testing.assert_close(torch.cat(one)[-180:], torch.cat(other)[-180:], atol=1e-4, rtol=0)


def test_window_stays_small_however_long_the_stream() -> None:
    session = tiny_session(n_local=20, frames_per_call=2)
    capacities = set()
    for i in range(40):
        session.append([Frame(pictures(1)[0].image, float(i))] * 2)
        layer = session.memory.layers[0]
        capacities.add(layer.window.capacity)
        assert session.memory.tokens - layer.window.first >= min(20, session.memory.tokens)
    assert max(capacities) <= 30 + 6


def test_call_larger_than_the_window() -> None:
    """One call of 20 frames slides nothing: its window grows to hold it, and is as long as it must be again."""
    frames = pictures(40)
    large = tiny_session(n_local=10, frames_per_call=20)
    small = tiny_session(n_local=10, frames_per_call=1)
    large.append(frames)
    small.append(frames)
    torch.testing.assert_close(blocks_of(large), blocks_of(small), atol=1e-5, rtol=0)


def test_questions_change_nothing_to_the_bit() -> None:
    frames = pictures(30)
    sizes = [4, 4, 6, 2, 14]
    quiet = appended(frames, sizes, n_local=25)
    asked = tiny_session(n_local=25)
    at = 0
    first = None
    for n in sizes:
        asked.append(frames[at : at + n])
        at += n
        now = record(asked)
        record(asked).assert_equal(now)  # a repeated question
        first = first or now
    assert first is not None
    assert torch.equal(blocks_of(quiet), blocks_of(asked))
    record(quiet, pictures(33)[30:]).assert_equal(record(asked, pictures(33)[30:]))


def test_sessions_of_one_model_share_nothing() -> None:
    session = tiny_session(n_local=25)
    other = session.model.session(n_local=31, frames_per_call=3)
    frames = pictures(24)
    for i in range(0, 24, 4):
        session.append(frames[i : i + 4])
        other.append(reversed_pictures(frames[i : i + 4]))
        other.ask("w3 w4", max_new_tokens=2)
    record(session, pictures(28)[24:]).assert_equal(record(appended(frames, [4] * 6, n_local=25), pictures(28)[24:]))


def reversed_pictures(frames: Sequence[Frame]) -> list[Frame]:
    return [Frame(f.image[::-1], f.time) for f in frames]


@pytest.mark.parametrize("n_local", [1, 2])
def test_window_smaller_than_a_frame_is_refused(n_local: int) -> None:
    with pytest.raises(ConfigError, match=rf"n_local is {n_local} tokens, less than one frame \(3\)"):
        tiny_session(n_local=n_local)
    tiny_session(n_local=3)


def break_times(session: Session) -> None:
    session.memory.table.times[2] = 0.0


def break_count(session: Session) -> None:
    session.memory.frames += 1


def break_window(session: Session) -> None:
    session.memory.layers[1].window.first += 1000


def break_blocks(session: Session) -> None:
    session.memory.layers[2].blocks.ram._slabs.clear()


def break_rows(session: Session) -> None:
    session.memory.layers[2].blocks.forget([3])


def break_sink(session: Session) -> None:
    session.memory.layers[0].sink_keys = session.memory.layers[0].sink_keys[:, :2]


@pytest.mark.parametrize("damage", [break_times, break_count, break_window, break_blocks, break_rows, break_sink])
def test_check_integrity_sees_damage(damage: Any) -> None:
    session = tiny_session()
    session.append(pictures(5))
    session.memory.check_integrity()
    damage(session)
    with pytest.raises(RuntimeError):
        session.memory.check_integrity()
