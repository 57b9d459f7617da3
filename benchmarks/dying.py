"""A process that kills itself inside a file operation: a write that got only so far, a sync, a rename, a commit."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import rekv.store.catalog
import rekv.store.writer
from rekv.store.files import Buffer, Files
from rekv.store.writer import Writer

KINDS = ("write", "sync", "sync_folder", "create", "unlink", "rename", "commit")
SLOTS = 6  # frames of a segment: calls go across segments


@dataclass
class Death:
    """Where a process kills itself: in the `left`-th operation of a kind. Without a kind it only counts."""

    kind: str | None = None
    left: int = 0
    share: float = 0.0  # of a write that gets done, or of a millisecond until a sync or commit is cut off
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, kind: str) -> bool:
        """Count an operation; say whether it is the last one."""
        self.counts[kind] += 1
        return kind == self.kind and self.counts[kind] == self.left

    def soon(self) -> None:
        """Die within a millisecond, wherever the process is by then: SIGALRM's default action ends it as SIGKILL."""
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + 1e-3 * self.share)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class DyingFiles(Files):
    """File operations in the middle of which the process is killed."""

    def __init__(self, death: Death) -> None:
        self._death = death

    def create(self, path: Path, size: int) -> int:
        if self._death("create"):
            path.touch()
            die()
        return super().create(path, size)

    def write(self, descriptor: int, buffers: Sequence[Buffer], offset: int) -> None:
        if self._death("write"):
            data = b"".join(buffers)
            os.pwrite(descriptor, data[: int(len(data) * self._death.share)], offset)
            die()
        super().write(descriptor, buffers, offset)

    def sync(self, descriptor: int) -> None:
        if self._death("sync"):
            self._death.soon()
        super().sync(descriptor)

    def sync_folder(self, path: Path) -> None:
        if self._death("sync_folder"):
            self._death.soon()
        super().sync_folder(path)

    def unlink(self, path: Path) -> None:
        last = self._death("unlink")
        if last and self._death.share < 0.5:
            die()
        super().unlink(path)
        if last:
            die()


def prepare(death: Death, on_commit: Callable[[int], None], commit_seconds: float) -> None:
    """In a child: small commits and segments, news of each commit, death in a rename or a commit of SQLite."""
    rekv.store.writer.COMMIT_SECONDS = commit_seconds
    rekv.store.writer.SEGMENT_SLOTS = (SLOTS, SLOTS)
    commit, rename, connect = Writer._commit, os.rename, rekv.store.catalog._connect  # noqa: SLF001

    def told_commit(self: Writer) -> None:
        commit(self)
        on_commit(self.durable)

    def dying_rename(old: Path, new: Path) -> None:
        last = death("rename")
        if last and death.share < 0.5:
            die()
        rename(old, new)
        if last:
            die()

    def traced(statement: str) -> None:
        if statement == "COMMIT" and death("commit"):
            death.soon()

    def traced_connect(path: Path, writable: bool) -> Any:
        connection = connect(path, writable)
        if writable:
            connection.set_trace_callback(traced)
        return connection

    Writer._commit = told_commit  # type: ignore[method-assign]  # noqa: SLF001
    os.rename = dying_rename  # type: ignore[assignment]
    rekv.store.catalog._connect = traced_connect  # noqa: SLF001
