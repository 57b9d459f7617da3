"""A Ray cluster: joined, or made of this machine alone and ended with the work."""

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from rekv.errors import ClusterError

if TYPE_CHECKING:
    from rekv.cluster.crew import Workers

logger = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")
Progress = Callable[[float], None]  # is given how much more has been done, in whatever unit the work counts

_LONGEST = 16  # characters of the folder below which Ray has its sockets: with their names, at most 107
_REACH = 10.0  # seconds in which a cluster answers
_OBJECTS = 100 << 20  # bytes of Ray's object store: what is handed over is small
# Ray reads these when it is imported. What becomes of workers is told by us, and nothing that Ray says shall be among a
# command's output.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SCHEDULER_EVENTS": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
_OWN = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: listen on 127.0.0.1 and nowhere else
    "RAY_worker_niceness": "0",  # as this process; Ray's default is to stand back behind all others
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """How many workers, each with what, and where."""

    workers: int
    gpus_per_worker: float | None = None  # None: the usual ones, where there are any
    threads: int | None = None  # of a worker at most; None: its share of the cores
    address: str | None = None  # of a Ray cluster; None: one of our own on this machine, which ends with the work
    usual_gpus: int = 1  # of what the workers load


def require_ray() -> None:
    """Raise `ClusterError` if Ray is not installed."""
    if find_spec("ray") is None:
        raise ClusterError(
            "several workers need Ray, which is not installed: pip install 'rekv[cluster]', or leave out "
            "--num-chunks, --gpus-per-worker and --ray-address to work in this process"
        )


@contextmanager
def workers(cluster: Cluster, load: Callable[[], Loaded]) -> "Iterator[Workers[Loaded]]":
    """Start workers, each of which calls `load` once; they end with the context.

    Raises `ClusterError` if there is no such cluster, or it is too small.
    """
    with _connected(cluster.address) as folder:
        from rekv.cluster.crew import Workers

        crew = Workers(cluster, load, folder)
        try:
            yield crew
        finally:
            crew.end()


@contextmanager
def _connected(address: str | None) -> Iterator[str | None]:
    """Yields a folder for temporary files of workers, which goes with the cluster, if that is our own."""
    require_ray()
    if address is not None:
        _reach(address)
    for name, value in {**_QUIET, **(_OWN if address is None else {})}.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():  # by whoever uses rekv as a library
        yield None
        return
    with _settings(address) as settings, _spill(address) as folder:
        try:
            ray.init(log_to_driver=logger.isEnabledFor(logging.DEBUG), logging_level=logging.ERROR, **settings)
        except (OSError, RuntimeError, ValueError) as error:
            if address is None:
                raise ClusterError(f"Ray does not start on this machine: {error}") from error
            raise ClusterError(
                f"no Ray cluster at {address}: {error}; `ray status` there says whether it runs"
            ) from error
        try:
            yield folder
        finally:
            ray.shutdown()


@contextmanager
def _spill(address: str | None) -> Iterator[str | None]:
    """Where workers of our own cluster put what does not fit in RAM: below TMPDIR, which is large if it was chosen."""
    if address is not None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="rekv-workers-", ignore_cleanup_errors=True) as folder:
        yield folder


def _reach(address: str) -> None:
    """Raise `ClusterError` if nothing listens at HOST:PORT: Ray itself would try for minutes, without a word."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster at {address}: {error}; `ray status` there says whether it runs, and where"
        ) from error


@contextmanager
def _settings(address: str | None) -> Iterator[dict[str, Any]]:
    """Of a cluster of our own: its logs and sockets lie in a folder that is removed."""
    if address is not None:
        yield {"address": address}
        return
    # The paths of sockets must be short; many folders for temporary files are not.
    long = len(tempfile.gettempdir()) > _LONGEST and os.path.isdir("/tmp")
    short = os.environ.get("RAY_TMPDIR") or ("/tmp" if long else None)
    with tempfile.TemporaryDirectory(prefix="rekv-ray-", dir=short, ignore_cleanup_errors=True) as folder:
        yield {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "object_store_memory": _OBJECTS,
            "_temp_dir": folder,
        }
