"""`rekv demo`: a generated video, played as a stream, with questions while it plays."""

import math
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click
from rich.console import Console

from rekv.cli.loading import load_model
from rekv.cli.reading import bar
from rekv.cli.screen import format_bytes, format_seconds, plain_streams
from rekv.cli.stills import shrink
from rekv.timecode import format_time

if TYPE_CHECKING:
    from rekv.cli.demo_report import Report
    from rekv.core import Frame, Image
    from rekv.engine import Session
    from rekv.world import Story

SAMPLE_FPS = 1.0  # the world's own clock
RECENT_FRAMES = 1
ENOUGH = 0.6  # share of right answers below which something is broken


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("rekv-demo"),
    show_default=True,
    help="Folder for the video and the pictures.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Another seed, another story.")
@click.option("--minutes", type=click.FloatRange(0.5), help="Stop after this much of the story.  [default: all]")
def demo(out: Path, seed: int, minutes: float | None) -> None:
    """Play a generated video as a stream and ask questions as it goes.

    Draws a story of some minutes as an H.264 file, plays it to the built-in model as fast as that can read,
    and asks about what is on screen and about what is long gone. The exit code is 1 if less than 60 % of the
    answers are right.
    """
    plain_streams()
    console = Console(highlight=False, markup=False)
    _make(out)
    session = load_model(console).session(sample_fps=SAMPLE_FPS)

    from rekv.cli.demo_pictures import save_pictures
    from rekv.cli.demo_report import Report
    from rekv.world import demo_story

    story = shorten(demo_story(seed), minutes)
    film = out / "scene.mp4"
    _render(film, story, console)
    stream = Stream(film)
    report = Report(session, console)
    report.head()
    play(story, stream, session, report)
    report.summary()
    files = save_pictures(out, report.asked, stream.images, session.memory.times, story.scene.n_frames)
    console.print(f"\nFiles: {film}, {', '.join(map(str, files))}", soft_wrap=True)
    command = f"{_program()} ask {shlex.quote(str(film))}"
    console.print(f'Next:  {command} "{story.asks[0].question.text}"', soft_wrap=True)
    console.print(f'       {command} "What is on screen now?" --at 0:43', soft_wrap=True)
    raise SystemExit(0 if report.right >= ENOUGH * len(report.asked) else 1)


def _program() -> str:
    """How to call rekv from here: it may lie in a virtual environment that is not activated."""
    path = Path(sys.argv[0])
    if shutil.which("rekv") or path.name != "rekv":
        return "rekv"
    return shlex.quote(os.path.relpath(path))


def shorten(story: "Story", minutes: float | None) -> "Story":
    """The first minutes of a story."""
    if minutes is None:
        return story
    n_frames = min(round(minutes * 60), story.scene.n_frames)
    asks = tuple(ask for ask in story.asks if ask.time < n_frames)
    return replace(story, scene=replace(story.scene, n_frames=n_frames), asks=asks)


def play(story: "Story", stream: "Stream", session: "Session", report: "Report") -> None:
    """Append the film up to each question's time, ask, go on."""
    memory = session.memory
    with bar(report.console) as progress:
        task = progress.add_task("Playing", total=story.scene.n_frames, where="", speed="")

        def show(_: object) -> None:
            progress.update(task, completed=memory.frames, where=format_time(int(memory.times[-1])))

        def read_until(time: float) -> None:
            started = perf_counter()
            session.append(stream.until(time), show)
            report.seconds_read += perf_counter() - started

        for ask in story.asks:
            read_until(ask.time)
            report.add(ask, session.ask(ask.question.text, recent_frames=RECENT_FRAMES))
        read_until(math.inf)


class Stream:
    """The film as frames, taken a part at a time. Keeps a small picture of each."""

    def __init__(self, film: Path) -> None:
        from rekv.sources import video

        self.images: dict[int, Image] = {}  # by frame id
        self._frames = iter(video(film, sample_fps=SAMPLE_FPS))
        self._next = next(self._frames, None)

    def until(self, time: float) -> "Iterator[Frame]":
        """The frames not yet taken whose time is `time` seconds at most."""
        while self._next is not None and self._next.time <= time:
            frame = self._next
            self.images[len(self.images)] = shrink(frame.image)
            yield frame
            self._next = next(self._frames, None)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(
            f"the folder {folder} cannot be made: {error.strerror}", param_hint="'--out'"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.BadParameter(f"the folder {folder} cannot be written to", param_hint="'--out'")


def _render(film: Path, story: "Story", console: Console) -> None:
    from rekv.world import render_film

    started = perf_counter()
    length = story.scene.n_frames
    with bar(console) as progress:
        task = progress.add_task(f"Drawing {film.name}", total=1.0, where="", speed="")
        render_film(
            film,
            story.scene,
            progress=lambda done: progress.update(task, completed=done, where=format_time(int(done * length))),
        )
    console.print(
        f"Drew {film}: {format_time(length)} of H.264, {format_bytes(film.stat().st_size)}, "
        f"in {format_seconds(perf_counter() - started)}.",
        style="dim",
    )
