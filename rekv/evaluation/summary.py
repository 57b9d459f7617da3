"""What a run comes to: scores with intervals, by task and group, and what they cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from rekv.evaluation.cell import STOCK
from rekv.evaluation.judge import Verdict, stored_verdicts
from rekv.evaluation.run import Run
from rekv.evaluation.scoring import Score, scores
from rekv.evaluation.statistics import Estimate, average, share


@dataclass(frozen=True, slots=True)
class Cost:
    """Figures that belong beside accuracy. None where nothing was measured."""

    first_token_ms: float | None  # median, from asking to the first token
    answer_ms: float | None  # median, from asking to the last token
    encode_fps: float | None  # frames per second, without decoding the video
    peak_ram: int | None  # bytes
    peak_gpu: int | None  # bytes
    bytes_per_hour: float | None  # of keys and values, per hour of video at this sampling rate


@dataclass(frozen=True, slots=True)
class Summary:
    """One run."""

    run: Run
    metric: str  # of most questions
    judges: tuple[str, ...]  # model and prompt version of the judge, if there was one
    score: Estimate | None  # share that is right; None if no answer is published
    answered: Estimate | None  # the same without what failed; None if nothing did
    by_likelihood: Estimate | None  # of multiple choice: had the likeliest letter been taken
    judged: Estimate | None  # mean of the judge's 0..5
    groups: Mapping[str, Estimate]  # by what is before "/" in tasks
    tasks: Mapping[str, Estimate]
    grounding: Mapping[str, Estimate]  # recall, precision, f1, hit
    asked: int  # questions
    failed: Sequence[Score]  # counted as wrong
    lost: Mapping[str, str]  # videos of which nothing could be asked, and why; their questions are among the failed
    unread: int  # answers of which no choice could be read, counted as wrong
    cut: int  # open-ended answers that `max_new_tokens` ended
    cost: Cost


def summarize(run: Run) -> Summary:
    """The figures of a run, with the verdicts that lie beside it."""
    verdicts = stored_verdicts(run)
    found = scores(run, verdicts)
    known = [score for score in found if score.value is not None]
    answered = [score for score in known if score.failed is None]
    metrics = [score.metric for score in found]
    return Summary(
        run=run,
        metric=max(set(metrics), key=metrics.count) if metrics else "none",
        judges=_judges(verdicts),
        score=_share(known),
        answered=_share(answered) if len(answered) < len(known) else None,
        by_likelihood=_share([s for s in known if s.by_likelihood is not None], "by_likelihood"),
        judged=average([(s.video, s.judged) for s in known if s.judged is not None]) if _any_judged(known) else None,
        groups=_by(known, lambda task: [task.partition("/")[0]] if "/" in task else []),
        tasks=_by(known, lambda task: [task]),
        grounding=_grounding(found),
        asked=len(found),
        failed=[score for score in found if score.failed is not None],
        lost={record.video: record.error for record in run.records.values() if record.error is not None},
        unread=sum(score.metric == "accuracy" and score.choice is None and score.failed is None for score in found),
        cut=sum(
            bool(question.get("cut")) and "choices" not in question
            for record in run.records.values()
            for question in record.questions
        ),
        cost=_cost(run),
    )


def keyed(run: Run) -> dict[tuple[int, int], tuple[str, float]]:
    """Values by question, to compare runs by."""
    return {s.key: (s.video, s.value) for s in scores(run, stored_verdicts(run)) if s.value is not None}


def _judges(verdicts: Mapping[tuple[int, int], Verdict]) -> tuple[str, ...]:
    return tuple(sorted({f"{verdict.judge}, prompt {verdict.prompt}" for verdict in verdicts.values()}))


def _any_judged(known: Sequence[Score]) -> bool:
    return any(score.judged is not None for score in known)


def _share(known: Sequence[Score], field: str = "value") -> Estimate | None:
    return share([(score.video, getattr(score, field)) for score in known]) if known else None


def _by(known: Sequence[Score], names: Callable[[str], Sequence[str]]) -> dict[str, Estimate]:
    parts: dict[str, list[tuple[str, float]]] = {}
    for score in known:
        for name in dict.fromkeys(name for task in score.tasks for name in names(task)):
            parts.setdefault(name, []).append((score.video, score.value or 0.0))
    return {name: share(values) for name, values in sorted(parts.items())}


def _grounding(found: Sequence[Score]) -> dict[str, Estimate]:
    grounded = [(score.video, score.grounding) for score in found if score.grounding is not None]
    names = grounded[0][1].keys() if grounded else ()
    return {name: average([(video, values[name]) for video, values in grounded]) for name in names}


def _cost(run: Run) -> Cost:
    costs = [run.costs[index] for index in run.records if index in run.costs]
    first = [seconds for cost in costs for seconds in cost.first_token_seconds]
    whole = [seconds for cost in costs for seconds in cost.answer_seconds]
    frames, seconds = sum(cost.frames for cost in costs), sum(cost.encode_seconds for cost in costs)
    kept = [cost.bytes_per_frame for cost in costs if cost.bytes_per_frame]
    frames_per_hour = 3600 * run.cell.sample_fps
    return Cost(
        first_token_ms=median(first) * 1e3 if first else None,
        answer_ms=median(whole) * 1e3 if whole else None,
        encode_fps=frames / seconds if seconds else None,
        peak_ram=max((cost.peak_ram for cost in costs), default=0) or None,
        peak_gpu=max((cost.peak_gpu or 0 for cost in costs), default=0) or None,
        bytes_per_hour=fmean(kept) * frames_per_hour if kept and run.cell.retriever != STOCK else None,
    )


def published_tasks(run: Run) -> dict[str, float]:
    """Right answers of each task in percent of all questions: what the published script for MLVU prints per task."""
    found = scores(run, {})
    tasks = sorted({task for score in found for task in score.tasks})
    return {
        task: 100 * sum(score.value or 0.0 for score in found if task in score.tasks) / len(found) for task in tasks
    }
