"""What `needle.py` notes of every question, and what it makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median, stdev
from typing import Any

from needle_questions import GROUPS

from rekv.core import Answer
from rekv.world import Question


@dataclass(frozen=True, slots=True)
class Result:
    """One question, asked by one method."""

    type: str
    group: str  # see `needle_questions`
    right: bool
    past: bool  # what it asks for was shown, and had left the window
    chance: float  # of being right by guessing among the answers that questions of this type may have
    recall: float | None  # share of its evidence ranges that were read; mean over layers; None: there is no evidence
    recall_all: float | None  # share of layers that read something of every range
    seconds: float
    margin: float | None = None  # how far the evidence stands out
    chosen: str = ""  # what "auto" decided


def judge(question: Question, answer: Answer, window_start: int, group: str = "") -> Result:
    """Compare an answer with the truth; it counts as right if the whole text is. The window began at this frame."""
    reads = [set(frames) for frames in answer.retrieval.frames]
    touched = [[not read.isdisjoint(range(*frames)) for frames in question.evidence] for read in reads]
    shown = bool(question.evidence)
    return Result(
        type=question.type,
        group=group,
        right=" ".join(answer.text.split()) == question.answer,
        past=shown and all(stop <= window_start for _, stop in question.evidence),
        chance=1 / len(question.choices) if question.choices else 0.0,
        recall=fmean(map(fmean, touched)) if shown else None,
        recall_all=fmean(map(all, touched)) if shown else None,
        seconds=answer.timings.total,
        margin=answer.margin,
        chosen=answer.retrieval.by.partition(": ")[2],
    )


def summary(results: Sequence[Result], encode_seconds_per_frame: Sequence[float]) -> dict[str, Any]:
    """The figures of one method; its encode times are one per stream."""
    past = [result for result in results if result.past]
    return {
        **shares(results),
        "ci95": interval(results),
        "chance": round(fmean(r.chance for r in results), 4),
        "past": {**shares(past), "chance": round(fmean(r.chance for r in past), 4)} if past else None,
        "per_type": {
            type: {**shares(of_type), "chance": round(fmean(r.chance for r in of_type), 4)}
            for type in dict.fromkeys(r.type for r in results)
            for of_type in [[r for r in results if r.type == type]]
        },
        "per_group": {
            group: {**shares(of_group), "ci95": interval(of_group), **_decisions(of_group)}
            for group in GROUPS
            for of_group in [[r for r in results if r.group == group]]
            if of_group
        },
        "doubt": doubts(results),
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


def interval(results: Sequence[Result]) -> list[float]:
    """The 95 % interval of the accuracy."""
    return [round(end, 4) for end in wilson(sum(r.right for r in results), len(results))]


def paired(results: Sequence[Result], baseline: Sequence[Result]) -> dict[str, Any]:
    """By group: accuracy less that of another method on the same questions, with a 95 % interval."""
    found = {}
    for group in GROUPS:
        pairs = zip(results, baseline, strict=True)
        gains = [one.right - other.right for one, other in pairs if one.group == group]
        if len(gains) > 1:
            mean, reach = fmean(gains), 1.96 * stdev(gains) / sqrt(len(gains))
            found[group] = {"gain": round(mean, 4), "ci95": [round(mean - reach, 4), round(mean + reach, 4)]}
    return found


def doubts(results: Sequence[Result]) -> dict[str, Any] | None:
    """How well the margin tells what never appeared from what is in the past.

    The area under the curve of hits over false alarms, and for some thresholds the share of absent things that are
    doubted and of true ones that are.
    """
    absent = [r.margin for r in results if r.group == "absent" and r.margin is not None]
    there = [r.margin for r in results if r.past and r.margin is not None]
    if not absent or not there:
        return None
    wins = fmean((b > a) + (b == a) / 2 for a in absent for b in there)
    rates = {
        str(threshold): [round(fmean(m < threshold for m in margins), 4) for margins in (absent, there)]
        for threshold in (0.5, 0.8, 1.0, 1.1, 1.2, 1.4, 1.6, 2.0)
    }
    return {"auc": round(wins, 4), "doubted_absent_and_there": rates, "absent": len(absent), "there": len(there)}


def _decisions(results: Sequence[Result]) -> dict[str, Any]:
    """Shares of what "auto" decided."""
    chosen = [r.chosen for r in results if r.chosen]
    shares = {what: round(chosen.count(what) / len(chosen), 4) for what in sorted(set(chosen))}
    return {"decided": shares} if chosen else {}


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share; 95 % by default."""
    share, weight = right / n, z * z / n
    centre = (share + weight / 2) / (1 + weight)
    reach = z * sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), 4) if known else None
