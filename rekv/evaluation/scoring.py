"""From what a run answered to what was right: one score per question."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rekv.evaluation.cell import Cell
from rekv.evaluation.choices import letter, likeliest, published, right
from rekv.evaluation.datasets import find
from rekv.evaluation.judge import Verdict
from rekv.evaluation.run import Run
from rekv.evaluation.words import contains, count, exact, token_f1

_BY_WORDS: Mapping[str, Callable[[str, str], float]] = {"exact": exact, "contains": contains, "count": count}


@dataclass(frozen=True, slots=True)
class Score:
    """One question. `value` is 0..1; None where its answer is not published."""

    video: str  # questions of one video are not independent
    key: tuple[int, int]  # video's index, question's: the same in every run on the same data
    tasks: tuple[str, ...]
    metric: str  # "accuracy" (multiple choice), "exact", "contains", "count", "judge", "token_f1"
    value: float | None
    choice: str | None = None  # the letter that was read from the answer
    by_likelihood: float | None = None  # of multiple choice: the value, had the likeliest letter been taken
    judged: float | None = None  # the judge's score, 0..5
    grounding: Mapping[str, float] | None = None
    failed: str | None = None  # why there is no answer, or no verdict; counted as wrong


def scores(run: Run, verdicts: Mapping[tuple[int, int], Verdict]) -> list[Score]:
    """The scores of all questions of a run, in the order of the data; `verdicts` are the judge's, if it was asked."""
    return [score for record in run.records.values() for score in _of_video(run.cell, record.as_json(), verdicts)]


def _of_video(cell: Cell, record: Mapping[str, Any], verdicts: Mapping[tuple[int, int], Verdict]) -> Iterator[Score]:
    for i, question in enumerate(record["questions"]):
        key = record["index"], i
        yield _score(cell, record["video"], key, question, verdicts.get(key), bool(verdicts))


def _score(
    cell: Cell, video: str, key: tuple[int, int], question: Mapping[str, Any], verdict: Verdict | None, judged: bool
) -> Score:
    answer, choices = question["answer"], question.get("choices", ())
    tasks, failed = tuple(question.get("tasks", ())), question.get("error")
    grounding = question.get("grounding")
    if choices:
        wanted = () if answer is None else wanted_letters(cell, choices, answer)
        choice = chosen(cell, question)
        value = None if answer is None else float(choice in wanted and failed is None)
        guess = likeliest(question.get("logprobs", ()))
        alike = None if answer is None or guess is None else float(guess in wanted)
        return Score(video, key, tasks, "accuracy", value, choice, alike, None, grounding, failed)
    metric = open_metric(cell, judged=judged)
    if metric == "judge" and failed is None and (verdict is None or verdict.right is None):
        failed = "no verdict" if verdict is None else f"no verdict: {verdict.raw[-1] if verdict.raw else 'no reply'}"
    if failed is not None or answer is None:
        value = None if answer is None else 0.0
        return Score(video, key, tasks, metric, value, grounding=grounding, failed=failed)
    if metric == "judge" and verdict is not None:
        return Score(video, key, tasks, metric, float(bool(verdict.right)), judged=verdict.score, grounding=grounding)
    compare = _BY_WORDS.get(metric, token_f1)
    return Score(video, key, tasks, metric, compare(answer, question["text"]), grounding=grounding)


def open_metric(cell: Cell, *, judged: bool) -> str:
    """The metric of answers without choices: where a judge is wanted and none was asked, the fallback's name."""
    metric = find(cell.dataset).open_metric
    return "token_f1" if metric == "judge" and not judged else metric


def chosen(cell: Cell, question: Mapping[str, Any]) -> str | None:
    """The letter that an answer chose, by the rule of the run; None if it chose none."""
    if "text" not in question:
        return None
    if cell.paper:
        return published(question["text"])
    if cell.choose == "likelihood":
        return likeliest(question.get("logprobs", ()))
    return letter(question["text"], question["choices"])


def wanted_letters(cell: Cell, choices: Sequence[str], answer: str) -> set[str]:
    """The letters that count as right; the published harness takes the first option that equals the answer."""
    found = right(choices, answer)
    return {min(found)} if cell.paper else found
