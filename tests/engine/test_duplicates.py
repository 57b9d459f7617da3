"""Near-duplicates are not encoded: the frame they repeat stands for them, and the evidence says so."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from rekv.core import Answer, Frame, Image
from rekv.engine import Session
from tests.support import SIDE, pictures, record, tiny_model

PICTURES = [frame.image for frame in pictures(12)]


def shown(*spans: tuple[int, int], first: int = 0) -> list[Frame]:
    """Frames at one per second: (picture, seconds) ..., each with a little noise of its own."""
    numbers = [number for number, seconds in spans for _ in range(seconds)]
    draw = np.random.default_rng(first)
    return [Frame(noisy(PICTURES[number], draw), float(first + i)) for i, number in enumerate(numbers)]


def noisy(image: Image, draw: np.random.Generator) -> Image:
    return (image.astype(np.int16) + draw.integers(-1, 2, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def session_of(frames_per_call: int = 4, **settings: Any) -> Session:
    settings = {"skip_duplicates": 8.0} | settings
    return tiny_model().session(n_local=25, frames_per_call=frames_per_call, sample_fps=1.0, **settings)


def spans(answer: Answer) -> set[tuple[float, float, tuple[int, ...]]]:
    """All of the evidence but its scores, which are not the same to the bit in another session."""
    return {(span.start, span.end, span.frames) for span in answer.evidence}


STREAM = shown((0, 3), (1, 1), (2, 5), (3, 2), (4, 1))
KEPT = [0, 3, 4, 9, 11]  # of these seconds


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [3, 1, 5, 2, 1], [2, 4, 6]], ids=str)
@pytest.mark.parametrize("frames_per_call", [1, 2, 4, 16])
def test_only_what_differs_is_encoded_however_it_comes(frames_per_call: int, sizes: Sequence[int]) -> None:
    session, at = session_of(frames_per_call), 0
    counts = []
    for n in sizes:
        counts.append(session.append(STREAM[at : at + n]))
        at += n
    assert sum(counts) == session.memory.frames == len(KEPT)
    assert list(session.memory.times) == KEPT
    assert session.memory.table.until == {0: 2.0, 2: 8.0, 3: 10.0}
    session.memory.check_integrity()
    plain = tiny_model().session(n_local=25, frames_per_call=frames_per_call, sample_fps=1.0)
    plain.append([STREAM[i] for i in KEPT])
    record(session, pictures(30)[20:]).assert_close(record(plain, pictures(30)[20:]))


def test_evidence_shows_the_whole_span() -> None:
    session = session_of()
    session.append(shown((0, 3), (1, 1), (2, 5)))
    answer = session.ask("w7", frames=[0, 2], max_new_tokens=1)
    assert spans(answer) == {(0.0, 3.0, (0,)), (4.0, 9.0, (2,))}
    (span,) = session.ask("w7", frames=[1], max_new_tokens=1).evidence
    assert (span.start, span.end) == (3.0, 4.0)


def test_nothing_but_duplicates_extends_the_last_frame() -> None:
    session = session_of()
    session.append(shown((0, 1), (1, 2)))
    before = record(session)
    for first in (3, 5):
        assert session.append(shown((1, 2), first=first)) == 0
        assert session.memory.frames == 2
        assert session.memory.table.until == {1: first + 1.0}
        (span,) = session.ask("w7", frames=[1], max_new_tokens=1).evidence
        assert (span.start, span.end) == (1.0, first + 2.0)
    record(session).assert_equal(before)


def test_a_frame_stands_for_no_more_than_max_span() -> None:
    session = session_of(max_span=3.0)
    session.append(shown((0, 9)))
    assert list(session.memory.times) == [0.0, 4.0, 8.0]
    assert session.memory.table.until == {0: 3.0, 1: 7.0}


def test_a_frame_of_the_same_time_may_be_a_duplicate_or_not() -> None:
    session = session_of()
    session.append(shown((0, 1), (1, 1)))
    assert session.append(Frame(PICTURES[1], 1.0)) == 0
    assert session.append(Frame(PICTURES[2], 1.0)) == 1


def test_off_by_default() -> None:
    session = tiny_model().session(n_local=25, sample_fps=1.0)
    assert session.append([Frame(PICTURES[0], float(i)) for i in range(5)]) == 5
    assert session.memory.table.until == {}


class Broken(Exception):
    pass


def breaking(frames: Sequence[Frame]) -> Iterator[Frame]:
    yield from frames
    raise Broken


@pytest.mark.parametrize("stop", range(1, 12))
def test_source_that_fails_loses_no_span(stop: int) -> None:
    """What was read before stays, also what only extended a frame."""
    session, plain = session_of(), session_of()
    with pytest.raises(Broken):
        session.append(breaking(STREAM[:stop]))
    plain.append(STREAM[:stop])
    assert session.memory.table.until == plain.memory.table.until
    for one in (session, plain):
        one.append(STREAM[stop:])
    assert session.memory.table.until == plain.memory.table.until == {0: 2.0, 2: 8.0, 3: 10.0}
    assert list(session.memory.times) == list(plain.memory.times) == KEPT


def test_failed_call_is_tried_again_with_what_it_was_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    session, plain = session_of(), session_of()
    for one in (session, plain):
        one.append(shown((0, 2)))
    with monkeypatch.context() as patch:
        patch.setattr("rekv.memory.memory.Memory.commit", lambda *_, **__: (_ for _ in ()).throw(Broken))
        with pytest.raises(Broken):
            session.append(shown((0, 1), (1, 3), first=2))
    assert session.memory.frames == 1
    for one in (session, plain):
        one.append(shown((0, 1), (1, 3), (2, 1), first=2))
    assert list(session.memory.times) == [0.0, 3.0, 6.0]
    assert session.memory.table.until == {0: 2.0, 1: 5.0}
    record(session).assert_equal(record(plain))


def test_forgetting_and_skipping_together() -> None:
    """Spans of what is left are still right."""
    bytes_per_frame = session_of().memory.bytes_per_frame
    session = session_of(ram=24 * bytes_per_frame, when_full="forget")
    plain = session_of()
    stream = shown(*((i % 12, 1 + i % 3) for i in range(60)))
    for one in (session, plain):
        one.append(stream)
    oldest = session.memory.table.oldest
    assert session.memory.frames == plain.memory.frames == 60
    assert oldest > 30
    ours = session.ask("w7 w8", retrieve_size=5, max_new_tokens=2)
    theirs = plain.ask("w7 w8", retrieve_size=5, max_new_tokens=2, start=plain.memory.times[oldest])
    assert spans(ours) == spans(theirs)
    assert ours.token_ids == theirs.token_ids
    assert all(span.end - span.start >= len(span.frames) for span in ours.evidence)


@pytest.mark.parametrize("at", [4.0, 5.5, 6.0, 8.9, 9.0])
def test_as_of_a_time_is_to_have_asked_then(at: float) -> None:
    """Also where a frame came to stand for others after that time."""
    session, then = session_of(), session_of()
    session.append(STREAM)
    then.append([frame for frame in STREAM if frame.time <= at])
    ours, expected = (s.ask("w7 w8", at=at, retrieve_size=8, max_new_tokens=2) for s in (session, then))
    assert ours.token_ids == expected.token_ids
    assert spans(ours) == spans(expected)
