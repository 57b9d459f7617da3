"""Options of commands that several processes can share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rekv.cli.loading import threads_for
from rekv.cli.screen import counted
from rekv.errors import ConfigError
from rekv.models.aliases import usual_gpus

if TYPE_CHECKING:
    from rekv.cluster import Cluster

Command = TypeVar("Command", bound=Callable[..., Any])


def workers_options(command: Command) -> Command:
    """`--num-chunks N`, `--gpus-per-worker G`, `--ray-address A`."""
    for option in (
        click.option(
            "--ray-address",
            metavar="ADDRESS",
            help="Start the workers on this Ray cluster; auto: the one that runs here.  [default: on this machine]",
        ),
        click.option(
            "--gpus-per-worker",
            type=click.FloatRange(min=0),
            metavar="N",
            help="GPUs of each worker: several for a large model, a part such as 0.5 for a small one.  "
            "[default: 1 where there are any, 4 for llava_ov_72b]",
        ),
        click.option(
            "--num-chunks",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Workers, which take videos from one queue (needs rekv[cluster]).",
        ),
    ):
        command = option(command)
    return command


def wanted(
    model: str | None, device: str | None, num_chunks: int, gpus_per_worker: float | None, ray_address: str | None
) -> "Cluster | None":
    """The workers that were asked for; None: this process does it. Raises `ClusterError` if Ray is missing."""
    from rekv.cluster import Cluster, require_ray

    if num_chunks == 1 and gpus_per_worker is None and ray_address is None:
        return None
    if gpus_per_worker is not None and gpus_per_worker > 1 and gpus_per_worker % 1:
        raise ConfigError(f"--gpus-per-worker is {gpus_per_worker:g}; it must be a whole number, or a part of one GPU")
    require_ray()
    gpus = 0.0 if device == "cpu" and gpus_per_worker is None else gpus_per_worker
    return Cluster(num_chunks, gpus, threads_for(model), ray_address, usual_gpus(model))


def device_of(device: str | None, cluster: "Cluster") -> str | None:
    """Where a worker puts its model: on all of its GPUs, if it has several."""
    return "auto" if device is None and (cluster.gpus_per_worker or 0) > 1 else device


def starting(cluster: "Cluster", model: str | None) -> str:
    """What is told while it takes its time."""
    return f"Starting {counted(cluster.workers, 'worker')}, to load {model or 'the built-in model'} ..."
