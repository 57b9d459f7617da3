"""Evaluation by several processes: each takes one video with its questions after the other; this one alone writes."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rekv.engine import Model
from rekv.errors import ClusterError
from rekv.evaluation.cell import Cell, Grid
from rekv.evaluation.environment import environment
from rekv.evaluation.run import Run
from rekv.evaluation.runner import Plan, Watcher, make_with
from rekv.evaluation.unit import Outcome, Progress, Work, answer, failed

if TYPE_CHECKING:
    from rekv.cluster.crew import Workers  # which imports Ray


def describe(model: Model, asked: tuple[Grid, str], progress: Progress) -> tuple[list[Cell], dict[str, Any]]:
    """What only a worker knows: the cells of the model that it loaded, and what it is made with."""
    grid, name = asked
    return grid.cells(model, name), environment()


def make_by(workers: "Workers[Model]", cells: Sequence[Cell], plan: Plan, watcher: Watcher) -> list[Run]:
    """As `make`, by workers."""
    return make_with(lambda works: _by_workers(workers, works, watcher.encoded), cells, plan, watcher)


def _by_workers(workers: "Workers[Model]", works: Sequence[Work], progress: Progress) -> Iterator[Outcome]:
    """The longest first, so that no worker begins it when the others have nothing left to do."""
    works = sorted(works, key=lambda work: -(work.video.duration or 0.0))
    for work, outcome in workers.run(answer, works, progress):
        yield failed(work, outcome) if isinstance(outcome, ClusterError) else outcome
