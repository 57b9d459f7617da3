"""Which frames are picked: the best ones, given ones, and the time scope."""

import random

import numpy as np
import pytest
import torch

from rekv.core import AskConfig
from rekv.errors import ConfigError
from rekv.retrieval import Given, Top, in_scope


def pick(scores: list[float], size: int, chunk: int = 1, first: int = 0) -> list[int]:
    candidates = range(first, first + len(scores))
    top = Top(size, chunk)
    picked = top.pick(torch.tensor(scores), candidates)
    assert len(picked) <= top.most(candidates)
    return list(picked)


def test_best_scores_in_time_order() -> None:
    assert pick([0.1, 5.0, -2.0, 7.0, 6.0], 3) == [1, 3, 4]
    assert pick([-5.0, -1.0, -2.0], 1) == [1]


def test_frame_ids_are_those_of_the_candidates() -> None:
    assert pick([0.1, 5.0, -2.0, 7.0], 2, first=10) == [11, 13]


def test_all_when_there_are_no_more() -> None:
    assert pick([3.0, 1.0, 2.0], 3) == pick([3.0, 1.0, 2.0], 8) == [0, 1, 2]
    assert pick([3.0, 1.0, 2.0], 8, chunk=4) == [0, 1, 2]
    assert pick([], 4) == []


def test_none_when_none_are_wanted() -> None:
    assert pick([3.0, 1.0], 0) == []


def test_chunks_are_taken_whole_by_their_mean() -> None:
    assert pick([0.0, 9.0, 5.0, 5.0, 4.0, 4.0], 2, chunk=2) == [2, 3]
    assert pick([0.0, 9.0, 4.0, 4.0, 1.0, 1.0], 4, chunk=2) == [0, 1, 2, 3]


def test_short_last_chunk_counts_by_the_mean_of_what_it_has() -> None:
    assert pick([1.0, 1.0, 2.0, 2.0, 3.0], 2, chunk=2) == [4]
    assert pick([1.0, 1.0, 2.0, 2.0, 1.5], 2, chunk=2) == [2, 3]
    assert pick([1.0, 1.0, 2.0, 2.0, -3.0], 4, chunk=2) == [0, 1, 2, 3]


def test_chunks_count_from_the_first_candidate() -> None:
    assert pick([5.0, 5.0, 0.0, 0.0, 6.0], 2, chunk=2, first=3) == [7]
    assert pick([5.0, 5.0, 0.0, 0.0, 4.0], 2, chunk=2, first=3) == [3, 4]


@pytest.mark.parametrize("seed", range(20))
def test_best_scores_equal_plain_sorting(seed: int) -> None:
    draw = random.Random(seed)
    chunk = draw.randrange(1, 5)
    size = chunk * draw.randrange(1, 6)
    scores = [draw.uniform(-1, 1) for _ in range(draw.randrange(0, 40))]
    chunks = [range(i, min(i + chunk, len(scores))) for i in range(0, len(scores), chunk)]
    best = sorted(chunks, key=lambda c: -sum(scores[f] for f in c) / len(c))[: size // chunk]
    expected = list(range(len(scores))) if len(scores) <= size else sorted(f for c in best for f in c)
    assert pick(scores, size, chunk) == expected


def test_given_frames_are_read_in_their_order_with_their_duplicates() -> None:
    given = Given([7, 3, 7])
    given.check(range(8))
    assert given.most(range(8)) == 3
    assert list(given.pick(2, torch.zeros(8), range(8))) == [7, 3, 7]
    Given([]).check(range(0))


@pytest.mark.parametrize("frame", [-1, 2, 8, 1.5])
def test_given_frames_must_be_visible(frame: int) -> None:
    with pytest.raises(ConfigError, match=f"frame {frame} .*frames 3 to 7"):
        Given([4, frame]).check(range(3, 8))


def test_given_frames_of_an_empty_session() -> None:
    with pytest.raises(ConfigError, match="no frames"):
        Given([0]).check(range(0))


def test_given_frames_from_numpy() -> None:
    given = Given(np.array([5, 1]))  # type: ignore[arg-type]
    given.check(range(6))
    assert list(given.pick(0, torch.zeros(6), range(6))) == [5, 1]


TIMES = [0.0, 1.0, 1.0, 2.5, 4.0]


@pytest.mark.parametrize(
    ("ask", "frames"),
    [
        (AskConfig(), range(0, 5)),
        (AskConfig(start=1.0), range(1, 5)),
        (AskConfig(start=1.1), range(3, 5)),
        (AskConfig(end=1.0), range(0, 1)),
        (AskConfig(end=4.0), range(0, 4)),
        (AskConfig(end=4.1), range(0, 5)),
        (AskConfig(at=1.0), range(0, 3)),
        (AskConfig(at=0.99), range(0, 1)),
        (AskConfig(at=100.0), range(0, 5)),
        (AskConfig(at=-1.0), range(0)),
        (AskConfig(start=1.0, end=2.5), range(1, 3)),
        (AskConfig(start=1.0, end=9.0, at=1.0), range(1, 3)),
        (AskConfig(start=2.6, end=3.9), range(0)),
        (AskConfig(start=3.0, at=2.0), range(0)),
        (AskConfig(start=9.0), range(0)),
    ],
)
def test_scope_is_from_start_to_before_end_and_up_to_at(ask: AskConfig, frames: range) -> None:
    assert list(in_scope(TIMES, 5, ask)) == list(frames)


@pytest.mark.parametrize("seed", range(30))
def test_scope_equals_a_plain_filter(seed: int) -> None:
    draw = random.Random(seed)
    times = sorted(round(draw.uniform(0, 10), 1) for _ in range(draw.randrange(0, 15)))
    seen = draw.randrange(0, len(times) + 1)
    start, at = (draw.choice((None, round(draw.uniform(-1, 11), 1))) for _ in range(2))
    end = None if draw.random() < 0.5 else round((start or 0) + draw.uniform(0.1, 6), 1)
    expected = [
        i
        for i, t in enumerate(times[:seen])
        if (start is None or t >= start) and (end is None or t < end) and (at is None or t <= at)
    ]
    assert list(in_scope(times, seen, AskConfig(start=start, end=end, at=at))) == expected


def test_scope_sees_no_frame_that_is_not_committed() -> None:
    assert in_scope(TIMES, 2, AskConfig()) == range(2)
    assert in_scope(TIMES, 2, AskConfig(start=1.0, end=3.0)) == range(1, 2)


@pytest.mark.parametrize("n", [4095, 4096, 4097, 5000, 20_011])
@pytest.mark.parametrize("k", [1, 8, 64])
def test_long_streams_are_searched_in_groups_with_the_same_result(n: int, k: int) -> None:
    scores = torch.randn(n, generator=torch.Generator().manual_seed(n + k))
    scores[-3:] = torch.tensor([9.0, -9.0, 9.5])  # also behind the last whole group
    scores[n // 2 : n // 2 + 5] = 7.0  # neighbours, and equal
    picked = Top(k).pick(scores, range(n))
    assert picked == sorted(picked)
    assert len(set(picked)) == k
    assert torch.equal(scores[picked].sort().values, scores.topk(k).values.sort().values)
