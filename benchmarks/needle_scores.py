"""What `needle.py` notes of every question, and what it makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median
from typing import Any

from rekv.core import Answer
from rekv.world import Question


@dataclass(frozen=True, slots=True)
class Result:
    """One question, asked by one method."""

    type: str
    right: bool
    past: bool  # what it asks for was shown, and had left the window
    chance: float  # of being right by guessing among the answers that questions of this type may have
    recall: float | None  # share of its evidence ranges that were read; mean over layers; None: there is no evidence
    recall_all: float | None  # share of layers that read something of every range
    seconds: float


def judge(question: Question, answer: Answer, window_start: int) -> Result:
    """Compare an answer with the truth; it counts as right if the whole text is. The window began at this frame."""
    reads = [set(frames) for frames in answer.retrieval.frames]
    touched = [[not read.isdisjoint(range(*frames)) for frames in question.evidence] for read in reads]
    shown = bool(question.evidence)
    return Result(
        type=question.type,
        right=" ".join(answer.text.split()) == question.answer,
        past=shown and all(stop <= window_start for _, stop in question.evidence),
        chance=1 / len(question.choices) if question.choices else 0.0,
        recall=fmean(map(fmean, touched)) if shown else None,
        recall_all=fmean(map(all, touched)) if shown else None,
        seconds=answer.timings.total,
    )


def summary(results: Sequence[Result], encode_seconds_per_frame: Sequence[float]) -> dict[str, Any]:
    """The figures of one method; its encode times are one per stream."""
    past = [result for result in results if result.past]
    return {
        **shares(results),
        "ci95": [round(end, 4) for end in wilson(sum(r.right for r in results), len(results))],
        "chance": round(fmean(r.chance for r in results), 4),
        "past": {**shares(past), "chance": round(fmean(r.chance for r in past), 4)} if past else None,
        "per_type": {
            type: {**shares(of_type), "chance": round(fmean(r.chance for r in of_type), 4)}
            for type in dict.fromkeys(r.type for r in results)
            for of_type in [[r for r in results if r.type == type]]
        },
        "ms_per_question": round(median(r.seconds for r in results) * 1e3, 2),
        "encode_ms_per_frame": round(median(encode_seconds_per_frame) * 1e3, 3),
    }


def shares(results: Sequence[Result]) -> dict[str, Any]:
    return {
        "accuracy": round(fmean(r.right for r in results), 4),
        "recall": _mean([r.recall for r in results]),
        "recall_all": _mean([r.recall_all for r in results]),
        "questions": len(results),
    }


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share; 95 % by default."""
    share, weight = right / n, z * z / n
    centre = (share + weight / 2) / (1 + weight)
    reach = z * sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), 4) if known else None
