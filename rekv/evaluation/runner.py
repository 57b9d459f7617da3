"""Makes runs: for each video that some cell still lacks, one unit of work; each result is on disk before the next."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rekv.engine import Model
from rekv.evaluation.cell import Cell
from rekv.evaluation.datasets import find
from rekv.evaluation.folder import locate
from rekv.evaluation.run import Run
from rekv.evaluation.schema import Video, read
from rekv.evaluation.unit import Outcome, Progress, Work, answer

Execute = Callable[[Sequence[Work]], Iterator[Outcome]]  # in any order; one outcome per work


class Watcher(Protocol):
    """Is told how far the work is."""

    def begin(self, cells: Sequence[Cell], videos: int, seconds: float) -> None:
        """So many videos of so many seconds are to be encoded for these cells."""

    def encoded(self, seconds: float) -> None: ...

    def answered(self, outcome: Outcome) -> None:
        """A video is done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where data and results are, and how to work."""

    data: Path  # the folder that published layouts call data/
    out: Path  # results
    ram: int | None = None  # bytes per session
    fresh: bool = False
    environment: dict[str, Any] | None = None  # of the processes that answer; None: of this one


def make(model: Model, cells: Sequence[Cell], plan: Plan, watcher: Watcher) -> list[Run]:
    """Answer what is missing of these cells, in this process; return their runs."""
    return make_with(lambda works: in_process(model, works, watcher.encoded), cells, plan, watcher)


def make_with(execute: Execute, cells: Sequence[Cell], plan: Plan, watcher: Watcher) -> list[Run]:
    """Answer what is missing, whoever does the work; return the runs."""
    return [run for part in by_encoding(cells) for run in _make(part, plan, watcher, execute)]


def in_process(model: Model, works: Sequence[Work], progress: Progress) -> Iterator[Outcome]:
    """One after the other."""
    for work in works:
        yield answer(model, work, progress)


def by_encoding(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that can be asked of one encoding."""
    parts: dict[object, list[Cell]] = defaultdict(list)
    for cell in cells:
        parts[cell.encoding].append(cell)
    return list(parts.values())


def _make(cells: Sequence[Cell], plan: Plan, watcher: Watcher, execute: Execute) -> list[Run]:
    annotations = plan.data / find(cells[0].dataset).annotations
    videos = read(annotations)[: cells[0].limit]
    how: dict[str, Any] = {"fresh": plan.fresh, "made_with": plan.environment}
    runs = {cell: Run.begin(plan.out / cell.folder, cell, annotations, len(videos), **how) for cell in cells}
    works = list(_works(videos, runs, plan))
    watcher.begin(cells, len(works), sum(work.video.duration or 0.0 for work in works))
    for outcome in execute(works):
        for cell, (record, costs) in outcome.items():
            runs[cell].add(record, costs)
        watcher.answered(outcome)
    for run in runs.values():
        run.finish()
    return list(runs.values())


def _works(videos: Sequence[Video], runs: dict[Cell, Run], plan: Plan) -> Iterator[Work]:
    """One per video that some run lacks, for those runs."""
    missing = {cell: set(run.missing(len(videos))) for cell, run in runs.items()}
    for i, video in enumerate(videos):
        if cells := tuple(cell for cell in runs if i in missing[cell]):
            yield Work(video, locate(video.path, plan.data, find(cells[0].dataset).annotations), cells, plan.ram)
