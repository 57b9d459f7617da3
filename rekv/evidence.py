"""The moments that prove an answer: the frames that were put into attention, as time spans with scores."""

from collections.abc import Sequence

from rekv.core import Retrieval, Span
from rekv.memory.frames import FrameTable
from rekv.retrieval.scoring import standard_scores


def evidence(retrieval: Retrieval, table: FrameTable, period: float, at: float | None = None) -> tuple[Span, ...]:
    """Merge neighbouring picks into spans, best score first.

    A frame lasts until the next one; the newest that the question could see, at time `at`, for `period` seconds.
    These frames were read; that they caused the answer is not claimed.
    """
    scores = dict(zip(retrieval.candidates, standard_scores(retrieval.scores).tolist(), strict=True))
    seen = retrieval.candidates[-1] + 1 if retrieval.candidates else 0
    votes = [set(layer) for layer in retrieval.frames]
    spans = []
    for run in _runs(retrieval.union):
        start, end = table.times[run[0]], table.end(run[-1], seen, period, at)
        best = max(scores[frame] for frame in run)
        share = sum(not layer.isdisjoint(run) for layer in votes) / len(votes)
        spans.append(Span(start, max(end, table.times[run[-1]]), best, run, share))
    return tuple(sorted(spans, key=lambda span: -span.score))


def _runs(frames: Sequence[int]) -> list[tuple[int, ...]]:
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][-1] + 1:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return [tuple(run) for run in runs]
