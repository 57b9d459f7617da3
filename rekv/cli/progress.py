"""How far work on many videos is: a bar with the time that is left on a terminal, a line now and then elsewhere."""

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Self

from rich.console import Console

from rekv.cli.interrupt import Interrupt
from rekv.cli.reading import bar
from rekv.cli.screen import counted
from rekv.timecode import format_time

if TYPE_CHECKING:
    from rekv.evaluation.cell import Cell
    from rekv.evaluation.unit import Outcome

_LINE_EVERY = 60.0  # seconds, where there is no terminal


class Videos:
    """Shows it. Ctrl-C ends the work at the next sign of progress; what was done before is kept."""

    def __init__(self, console: Console, interrupt: Interrupt) -> None:
        self._console = console
        self._interrupt = interrupt
        self._bar = bar(console)
        self._task = self._bar.add_task("", total=None, where="", speed="", visible=False)
        self._started = self._told = perf_counter()
        self._videos = self._done = self._failed = 0
        self._encoded = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def start(self, what: str, videos: int, seconds: float) -> None:
        """So many videos are to come, of so many seconds in all, 0 if nobody knows."""
        self._videos = videos
        self._done, self._failed, self._encoded, self._started = 0, 0, 0.0, perf_counter()
        self._bar.reset(self._task, total=seconds or None, description=what[:24], visible=True)

    def encoded(self, seconds: float) -> None:
        self._interrupt.check()
        self._encoded += seconds
        self._update()

    def finished(self, *, failed: bool) -> None:
        """One of them is done."""
        self._done += 1
        self._failed += failed
        self._update()
        if not self._console.is_terminal and perf_counter() - self._told > _LINE_EVERY:
            self._told = perf_counter()
            self._console.print(f"{self._where()}, {self._left()} left", style="dim")
        self._interrupt.check()

    def _update(self) -> None:
        speed = self._encoded / max(perf_counter() - self._started, 1e-9)
        self._bar.update(self._task, completed=self._encoded, where=self._where(), speed=f"{speed:.0f}x realtime")

    def _where(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._done} of {self._videos} videos{failed}"

    def _left(self) -> str:
        """Time that is left, by the share of videos done."""
        took = perf_counter() - self._started
        return format_time(round(took / self._done * (self._videos - self._done)))


class Shown(Videos):
    """Of an evaluation."""

    def begin(self, cells: Sequence["Cell"], videos: int, seconds: float) -> None:
        what = f"{cells[0].model} {cells[0].dataset}"
        self._console.print(
            f"{what}: {counted(videos, 'video')} to encode for {counted(len(cells), 'run')}.", style="dim"
        )
        self.start(what, videos, seconds)

    def answered(self, outcome: "Outcome") -> None:
        self.finished(failed=any(record.failed for record, _ in outcome.values()))
