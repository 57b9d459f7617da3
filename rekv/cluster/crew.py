"""Workers: Ray actors that load once and take from one queue.

A worker that is lost, with its process or its machine, is replaced, and what it had at hand is done again.
"""

import logging
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from rekv.cluster.connection import Cluster, Progress
from rekv.errors import ClusterError

logger = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")
Item = TypeVar("Item")
Result = TypeVar("Result")
_Warning = tuple[str, int, str]  # logger, level, text
Do = Callable[[Loaded, Item, Progress], Result]

_TRIES = 3  # workers that an item may cost, and that may be lost in a row while they load
_TICK = 0.5  # seconds between two looks at how far workers are


class Workers(Generic[Loaded]):
    """Processes that do what they are given with what they loaded."""

    def __init__(self, cluster: Cluster, load: Callable[[], Loaded], folder: str | None = None) -> None:
        """`folder`: for temporary files of workers, which are ended without being asked."""
        self._load, self._folder = load, folder
        self._gpus, self._threads = _shares(cluster)
        self._lost_loading = 0  # in a row
        self._seats = [_Seat(*self._begin()) for _ in range(cluster.workers)]

    def run(
        self, do: Do[Loaded, Item, Result], items: Sequence[Item], progress: Progress
    ) -> Iterator[tuple[Item, Result | ClusterError]]:
        """Call `do(loaded, item, progress)` in some worker for each item; give results as they come.

        Items are begun in their order. One whose workers were lost again and again has that as its result. `progress`
        is called at least twice a second, if only with 0, and takes back what was lost. What `do` or the loading raises
        is raised here; after that, or when it is left early, the workers can only be ended.
        """
        waiting = deque(_Job(do, item) for item in items)
        while waiting or any(seat.job for seat in self._seats):
            for seat in self._seats:
                if waiting and seat.call is None:
                    seat.give(waiting.popleft())
            for seat in self._returned(progress):
                job, call = seat.take()
                try:
                    value = _value(call)
                except ClusterError as lost:
                    self._replace(seat, job, lost)
                    if job is not None:
                        progress(-job.done)
                        if job.lost + 1 < _TRIES:
                            waiting.appendleft(_Job(do, job.item, job.lost + 1))
                        else:
                            yield job.item, lost
                    continue
                self._lost_loading = 0
                if job is not None:
                    result, done, told = value
                    progress(done - job.done)
                    for name, level, text in told:
                        logging.getLogger(name).log(level, "%s", text)
                    yield job.item, result

    def one(self, do: Do[Loaded, Item, Result], item: Item, progress: Progress) -> Result:
        """Have some worker do it."""
        ((_, result),) = self.run(do, [item], progress)
        if isinstance(result, ClusterError):
            raise result
        return result

    def end(self) -> None:
        """End them at once, whatever they are doing."""
        for seat in self._seats:
            ray.kill(seat.actor)

    def _begin(self) -> tuple[Any, Any]:
        """Start a worker: its actor, and its call to load."""
        actor: Any = _Remote.options(
            num_cpus=min(1.0, self._threads),  # more might never be free on any machine
            num_gpus=self._gpus,
            max_concurrency=2,
            scheduling_strategy="SPREAD",
        ).remote()
        return actor, actor.load.remote(self._load, max(1, int(self._threads)), os.getcwd(), self._folder)

    def _returned(self, progress: Progress) -> "list[_Seat]":
        """Wait a moment for calls to return; tell how far the others are."""
        calls = {seat.call: seat for seat in self._seats if seat.call is not None}
        ready, _ = ray.wait(list(calls), timeout=_TICK)
        progress(0.0)
        for seat in self._seats:
            seat.tell(progress)
        return [calls[call] for call in ready]

    def _replace(self, seat: "_Seat", job: "_Job | None", lost: ClusterError) -> None:
        self._lost_loading += job is None
        if self._lost_loading == _TRIES:
            raise lost
        logger.warning(
            "a worker was lost %s; another one is started", "at work" if job else "while it loaded the model"
        )
        ray.kill(seat.actor)
        seat.actor, seat.call = self._begin()


@dataclass(eq=False, slots=True)
class _Job:
    do: Callable[..., Any]
    item: Any
    lost: int = 0  # workers
    done: float = 0.0  # of it, as far as was told


@dataclass(eq=False, slots=True)
class _Seat:
    """A worker, and whoever replaces it."""

    actor: Any
    call: Any  # to load or to work, while it is at that
    job: _Job | None = None
    asked: Any = None  # a call that says how far it is

    def give(self, job: _Job) -> None:
        self.job, self.call = job, self.actor.work.remote(job.do, job.item)

    def take(self) -> tuple[_Job | None, Any]:
        """What it had at hand (None: it was to load), and its call, which has returned."""
        job, call = self.job, self.call
        self.job = self.call = self.asked = None
        return job, call

    def tell(self, progress: Progress) -> None:
        """How far it is, as far as it has answered; then ask again."""
        if self.job is None:
            return
        if self.asked is not None:
            if not ray.wait([self.asked], timeout=0)[0]:
                return
            try:
                done = ray.get(self.asked)
            except RayError:  # it is lost, as its call will tell
                return
            progress(done - self.job.done)
            self.job.done = done
        self.asked = self.actor.done.remote()


class _Warnings(logging.Handler):
    """What a worker has to say, for whoever can show it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[_Warning] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append((record.name, record.levelno, record.getMessage()))


class _Actor:
    """A worker's process. One of its threads works, another one says how far that is."""

    def __init__(self) -> None:
        self._loaded: Any = None
        self._done = 0.0
        self._warnings = _Warnings()
        logging.getLogger("rekv").addHandler(self._warnings)

    def load(self, load: Callable[[], object], threads: int, folder: str, temporary: str | None) -> None:
        """Load, in the folder where the command was given, so that paths mean the same."""
        if os.path.isdir(folder):
            os.chdir(folder)
        if temporary is not None:
            tempfile.tempdir = temporary
        os.environ["OMP_NUM_THREADS"] = str(threads)  # PyTorch comes with what is loaded
        self._loaded = load()

    def work(self, do: Callable[..., Any], item: object) -> tuple[Any, float, list[_Warning]]:
        self._done = 0.0
        self._warnings.told = []
        return do(self._loaded, item, self._told), self._done, self._warnings.told

    def done(self) -> float:
        return self._done

    def _told(self, more: float) -> None:
        self._done += more


_Remote: Any = ray.remote(_Actor)


def _value(call: Any) -> Any:
    """What a call gave. Raises what it raised, and `ClusterError` if its worker is lost."""
    try:
        return ray.get(call)
    except RayTaskError as error:
        logger.debug("in a worker: %s", error)
        raise error.cause from None
    except RayError as error:
        logger.debug("%s", error)
        raise ClusterError(
            f"{_TRIES} workers were lost over this, one after the other ({type(error).__name__}): most likely memory "
            f"ran out, of the machine or of a GPU; try fewer workers (`rekv --debug` tells more)"
        ) from None


def _shares(cluster: Cluster) -> tuple[float, float]:
    """GPUs and threads of each worker. Raises `ClusterError` if there are too few GPUs."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    there = [node.get("GPU", 0.0) for node in nodes]
    gpus = cluster.gpus_per_worker
    if gpus is None:
        gpus = float(cluster.usual_gpus) if any(there) else 0.0
    if gpus and sum(_fit(count, gpus) for count in there) < cluster.workers:
        raise ClusterError(
            f"{cluster.workers} workers with {gpus:g} GPUs each do not fit the {sum(there):g} GPUs of "
            f"{len(nodes)} {'machine' if len(nodes) == 1 else 'machines'}: lower --num-chunks, or --gpus-per-worker, "
            f"of which a part, such as 0.5, lets workers share a GPU"
        )
    share = sum(node.get("CPU", 1.0) for node in nodes) / cluster.workers
    return gpus, min(share, cluster.threads or share)


def _fit(count: float, gpus: float) -> int:
    """How many workers with so many GPUs each a machine has room for. A part of one lies on a single GPU."""
    return int(count / gpus) if gpus >= 1 else int(count) * int(1 / gpus + 1e-6)
