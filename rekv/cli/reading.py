"""Reading a video into a session, with a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rekv.cli.screen import counted, format_bytes, format_seconds, notes
from rekv.timecode import format_span, format_time

if TYPE_CHECKING:
    from rekv.engine import Session
    from rekv.sources.file import VideoFile


def read(session: "Session", video: "VideoFile", name: str, console: Console) -> None:
    """Append the video. Ctrl-C ends the reading early, if there is anything yet to answer from."""
    memory = session.memory
    started = perf_counter()
    interrupted = False
    with showing(session, video, name, console) as show:
        try:
            session.append(video, on_progress=show)
        except KeyboardInterrupt:
            if not memory.frames:
                raise
            interrupted = True
    took = perf_counter() - started
    span = format_span(memory.times[0], memory.times[-1] + 1 / session.config.sample_fps)
    console.print(
        f"Read {counted(memory.frames, 'frame')}, {span}, in {format_seconds(took)} "
        f"({memory.frames / took:.0f} frames/s); kept {format_bytes(memory.bytes)}.",
        style="dim",
    )
    if interrupted:
        notes().print(
            f"Warning: stopped at {format_time(memory.times[-1])}; answering from what was read. Ctrl-C again quits.",
            style="yellow",
        )


@contextmanager
def showing(
    session: "Session", video: "VideoFile", name: str, console: Console, shift: float = 0.0
) -> Iterator[Callable[[object], None]]:
    """A progress bar of a video that is read; call what is given after every encode call.

    `shift` is what is added to the video's times, in seconds.
    """
    memory, started = session.memory, perf_counter()
    before = video.start if video.after is None else video.after
    with bar(console) as progress:
        task = progress.add_task(_short(name), total=_length(video), speed="", where="")

        def show(_: object) -> None:
            time = memory.times[-1] - shift
            progress.update(
                task,
                completed=time - video.start,
                where=f"{format_time(time)}  {counted(memory.frames, 'frame')}",
                speed=f"{(time - before) / (perf_counter() - started):.0f}x realtime",
            )

        yield show


def bar(console: Console) -> Progress:
    """A progress bar on a terminal, gone when done; its tasks have the fields `where` and `speed`.

    It leaves room in its line: the ^C that a terminal shows would break a full one.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=max(10, min(40, console.width - 60))),
        TextColumn("{task.fields[where]}", markup=False),
        TextColumn("{task.fields[speed]}", style="dim", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=console.quiet or not console.is_terminal,
    )


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:9]}...{name[-8:]}"


def _length(video: "VideoFile") -> float | None:
    """Seconds that will be read, if they can be known beforehand."""
    ends = [end for end in (video.end, video.duration) if end is not None]
    return max(min(ends) - video.start, 0.0) if ends else None
