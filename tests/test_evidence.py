"""Evidence: spans of the frames that were read, and their scores."""

import statistics
from collections.abc import Sequence

import pytest
import torch

from rekv.core import Retrieval
from rekv.evidence import evidence
from rekv.memory.frames import FrameTable
from rekv.retrieval.scoring import standard_scores


def retrieval(*layers: tuple[int, ...], scores: torch.Tensor | None = None, candidates: range = range(10)) -> Retrieval:
    if scores is None:
        scores = torch.zeros(len(layers), len(candidates))
    return Retrieval(layers, scores, candidates)


def table(times: Sequence[float]) -> FrameTable:
    frames = FrameTable()
    frames.add(0, times)
    return frames


PERIOD = 2.0
TIMES = table([0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0])


def test_neighbouring_picks_of_any_layers_become_one_span() -> None:
    spans = evidence(retrieval((1, 2), (3, 6)), TIMES, PERIOD)
    assert sorted((s.start, s.end, s.frames) for s in spans) == [(2.0, 8.0, (1, 2, 3)), (12.0, 14.0, (6,))]


def test_last_frame_lasts_for_one_period() -> None:
    (span,) = evidence(retrieval((8, 9)), TIMES, 1.5)
    assert (span.start, span.end) == (16.0, 19.5)
    (span,) = evidence(retrieval((9,)), TIMES, 0.0)
    assert (span.start, span.end) == (18.0, 18.0)


def test_frame_that_stands_for_others_lasts_as_long_as_they_do() -> None:
    times = table([0.0, 1.0, 7.0])
    times.until = {0: 0.5, 2: 11.0}
    spans = evidence(retrieval((0,), (2,), candidates=range(3)), times, 1.0)
    assert sorted((s.start, s.end) for s in spans) == [(0.0, 1.0), (7.0, 12.0)]


def test_candidates_may_have_gaps() -> None:
    scores = torch.tensor([[1.0, 2.0, 9.0]])
    spans = evidence(Retrieval(((4, 6),), scores, (1, 4, 6)), TIMES, 1.0)
    assert [(s.start, s.end, s.frames) for s in spans] == [(12.0, 13.0, (6,)), (8.0, 10.0, (4,))]
    assert [s.score for s in spans] == pytest.approx([by_hand(scores)[2], by_hand(scores)[1]], abs=1e-4)


def test_spans_cover_gaps_in_time_up_to_the_next_frame() -> None:
    (span,) = evidence(retrieval((0, 1), candidates=range(3)), table([0.0, 1.0, 50.0]), 1.0)
    assert (span.start, span.end) == (0.0, 50.0)


def test_order_and_duplicates_of_picks_do_not_matter() -> None:
    one = evidence(retrieval((5, 4, 4, 0)), TIMES, PERIOD)
    other = evidence(retrieval((0, 4, 5)), TIMES, PERIOD)
    assert one == other


def test_votes_are_the_share_of_layers_that_read_any_frame_of_the_span() -> None:
    spans = {s.frames: s.votes for s in evidence(retrieval((1, 2), (2,), (7,), ()), TIMES, PERIOD)}
    assert spans == {(1, 2): 0.5, (7,): 0.25}


def by_hand(scores: torch.Tensor) -> list[float]:
    rows = scores.double().tolist()
    z = []
    for row in rows:
        mean, spread = statistics.fmean(row), statistics.pstdev(row)
        z.append([(x - mean) / spread if spread else 0.0 for x in row])
    return [statistics.fmean(column) for column in zip(*z, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_z_scores_averaged_over_layers(seed: int) -> None:
    scores = (
        torch.randn(4, 10, generator=torch.Generator().manual_seed(seed)) * torch.tensor([[1.0], [50], [0.1], [3]]) + 7
    )
    expected = by_hand(scores)
    assert standard_scores(scores).tolist() == pytest.approx(expected, abs=1e-4)
    spans = evidence(retrieval((0, 1), (1, 4), (8,), (4,), scores=scores), TIMES, PERIOD)
    assert {s.frames: s.score for s in spans} == pytest.approx(
        {(0, 1): max(expected[:2]), (4,): expected[4], (8,): expected[8]}, abs=1e-4
    )
    assert [s.score for s in spans] == sorted((s.score for s in spans), reverse=True)


def test_scores_of_a_scope_are_found_by_frame_not_by_column() -> None:
    scores = torch.tensor([[1.0, 2.0, 9.0]])
    (span,) = evidence(retrieval((6,), scores=scores, candidates=range(4, 7)), TIMES, PERIOD)
    assert span.score == pytest.approx(by_hand(scores)[2], abs=1e-4)
    assert span.end == 14.0


def test_frames_that_cannot_be_told_apart_score_zero() -> None:
    assert standard_scores(torch.full((3, 4), 2.5)).tolist() == [0.0] * 4
    assert standard_scores(torch.tensor([[3.0], [1.0]])).tolist() == [0.0]
    assert standard_scores(torch.full((2, 7), 0.1)).tolist() == [0.0] * 7


def test_nothing_read_is_no_evidence() -> None:
    assert evidence(retrieval((), ()), TIMES, PERIOD) == ()
    assert evidence(retrieval((), (), candidates=range(0)), table([]), PERIOD) == ()
