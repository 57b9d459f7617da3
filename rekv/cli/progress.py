"""How far an evaluation is: a bar with the time that is left on a terminal, a line now and then elsewhere."""

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


class Shown:
    """Shows it. Ctrl-C ends the work at the next encode call; what was answered before is kept."""

    def __init__(self, console: Console, interrupt: Interrupt) -> None:
        self._console = console
        self._interrupt = interrupt
        self._bar = bar(console)
        self._task = self._bar.add_task("", total=None, where="", speed="", visible=False)
        self._started = self._told = perf_counter()
        self._videos = self._done = self._failed = 0
        self._seconds = self._encoded = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def begin(self, cells: Sequence["Cell"], videos: int, seconds: float) -> None:
        cell = cells[0]
        what = f"{cell.model} {cell.dataset}"
        self._videos, self._seconds = videos, seconds
        self._done, self._failed, self._encoded, self._started = 0, 0, 0.0, perf_counter()
        self._console.print(
            f"{what}: {counted(videos, 'video')} to encode for {counted(len(cells), 'run')}.", style="dim"
        )
        self._bar.reset(self._task, total=seconds or None, description=what[:24], visible=True)

    def encoded(self, seconds: float) -> None:
        if self._interrupt.asked:
            raise KeyboardInterrupt
        self._encoded += seconds
        self._update()

    def answered(self, outcome: "Outcome") -> None:
        self._done += 1
        self._failed += any(record.failed for record, _ in outcome.values())
        self._update()
        if not self._console.is_terminal and perf_counter() - self._told > _LINE_EVERY:
            self._told = perf_counter()
            self._console.print(f"{self._where()}, {self._left()} left", style="dim")
        if self._interrupt.asked:
            raise KeyboardInterrupt

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
