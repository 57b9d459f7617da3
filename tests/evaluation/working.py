"""What tests let workers do. They import this file, and with it nothing that is large."""

import logging
import os
import signal
import tempfile
import time
from pathlib import Path

from rekv.cluster import Progress
from rekv.errors import ConfigError


def load() -> list[int]:
    """What each loads once: its process's number, and how often it was used."""
    return [os.getpid(), 0]


def use(loaded: list[int], seconds: float, progress: Progress) -> tuple[int, int, str]:
    """Take so long; tell of it in halves. Where that was, how often, with how many threads."""
    for _ in range(2):
        time.sleep(seconds / 2)
        progress(seconds / 2)
    loaded[1] += 1
    return loaded[0], loaded[1], os.environ["OMP_NUM_THREADS"]


def kill_once(loaded: list[int], marker: Path, progress: Progress) -> str:
    """The first worker that does this is killed at it."""
    progress(5.0)
    if not marker.exists():
        marker.touch()
        time.sleep(1.5)  # long enough to be heard
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def kill(loaded: list[int], deadly: bool, progress: Progress) -> str:
    if deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def refuse(loaded: list[int], item: int, progress: Progress) -> None:
    raise ConfigError(f"{item} is too much")


def warn(loaded: list[int], text: str, progress: Progress) -> str:
    """Say something, and where temporary files go."""
    logging.getLogger("rekv.some.where").warning("it says %s", text)
    return tempfile.gettempdir()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
