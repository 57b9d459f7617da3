"""`rekv ingest`: read a video into a session on disk; again, to go on where that stopped."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from rekv.cli.interrupt import Interrupt, Stopped
from rekv.cli.loading import load_model
from rekv.cli.options import Duration, Levels, Size, Time, given, json_option, readable_part, store_option
from rekv.cli.retrieval import ENCODER_HELP, named_encoder
from rekv.cli.screen import counted, format_bytes, format_seconds, notes
from rekv.timecode import format_span, format_time

if TYPE_CHECKING:
    from rekv.core import Frame
    from rekv.engine import Session
    from rekv.sources import VideoFile
    from rekv.store.folder import SessionFolder
    from rekv.store.keeper import Keeper


@click.command()
@click.argument("video")
@click.option("--session", "name", required=True, metavar="NAME", help="Session to read it into; made if need be.")
@store_option
@click.option("--model", help="An alias, a local folder or a Hub name.  [default: the session's, else built-in]")
@click.option("--device", help="cpu, cuda, cuda:1 or auto (all devices).  [default: cuda if there is one]")
@click.option("--dtype", help="float32, float16 or bfloat16.  [default: the session's, else what suits]")
@click.option("--weights", type=click.Choice(["int8", "int4"]), help="Pack the language model's weights.")
@click.option("--sample-fps", type=float, help="Frames to read per second of video.  [default: the model's]")
@click.option("--n-local", type=int, help="Tokens of the local window.  [default: the model's]")
@click.option("--frame-tokens", type=int, help="Tokens of a frame at most, for Qwen-VL.  [default: the model's]")
@click.option("--encoder", metavar="NAME", help=ENCODER_HELP)
@click.option("--start", type=Time(), help="Read the video from this time on.")
@click.option("--end", type=Time(), help="Read the video up to this time.")
@click.option(
    "--skip-duplicates",
    type=Levels(),
    is_flag=False,
    flag_value="8",
    metavar="[LEVELS]",
    help="Leave out frames that differ by less from the last one read, in 8-bit levels; 8 without a number.",
)
@click.option("--policy", help="What to keep of a frame for questions, such as value-norm:0.5.  [default: all]")
@click.option("--kv", type=click.Choice(["raw", "fp8", "int8", "int4", "auto"]), help="How to store keys and values.")
@click.option("--ram", type=Size(), help="Memory for blocks and index, such as 4GiB.  [default: a quarter of RAM]")
@click.option("--gpu-cache", type=Size(), help="GPU memory for blocks besides.  [default: 0]")
@click.option("--disk", type=Size(), help="Space on disk; beyond it the oldest frames are removed.")
@click.option("--max-age", type=Duration(), help="Remove frames that are older, such as 7d, in time of the video.")
@click.option("--thin-after", type=Duration(), help="Keep only some of the frames that are older, such as 1d.")
@click.option("--thin-keep", type=int, help="Of those, keep every n-th.  [default: 10]")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
def ingest(
    video: str,
    name: str,
    store: str | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    weights: str | None,
    start: float | None,
    end: float | None,
    sample_fps: float | None,
    n_local: int | None,
    frame_tokens: int | None,
    skip_duplicates: float | None,
    encoder: str | None,
    policy: str | None,
    kv: str | None,
    as_json: bool,
    quiet: bool,
    **storage: Any,
) -> None:
    """Read a video into a session, which stays on disk.

    Every frame is read once. After Ctrl-C, or whatever else ended it, the same command goes on where that stopped.
    Another video continues the session's time. Meanwhile and later: `rekv ask --session NAME "..."`.
    """
    first, last = readable_part(start, end, None)
    console = notes(quiet)

    from rekv.cli.going_on import find_source, is_done
    from rekv.core import EncodeConfig, StorageConfig
    from rekv.errors import StoreError, WriteError
    from rekv.sources import video as open_video
    from rekv.store.catalog import FILE
    from rekv.store.codecs import AUTO
    from rekv.store.store import Store

    encode = given(sample_fps=sample_fps, n_local=n_local, frame_tokens=frame_tokens, skip_duplicates=skip_duplicates)
    encode |= named_encoder(encoder) | given(policy=policy)
    limits = given(**storage, kv=AUTO if kv == "auto" else kv)
    EncodeConfig().but(**encode)
    if policy is not None:
        from rekv.memory.policies import find

        find(policy)  # before a model is loaded
    StorageConfig().but(**limits)
    sessions = Store(store)
    source = open_video(video, start=first, end=last)
    if (sessions.path(name) / FILE).exists():
        folder = sessions.open(name)
        _check(folder, encode, limits.get("kv"), dtype)
        known = folder.meta.model
        done = is_done(find_source(folder.catalog.sources(), source.identity, first), source.identity)
        frames = folder.frames
        folder.close()
        if done and model in (None, known.name):  # another name may be another model, which is told once it is loaded
            _report(Report(name, video, "already", frames), as_json, console)
            return
        model, dtype = model or known.name, dtype or known.dtype
    loaded = load_model(console, model, device=device, dtype=dtype, weights=weights)
    try:
        with loaded.session(name, store=sessions.folder, **encode, **limits) as session, Interrupt() as interrupt:
            report = _read(session, source, name, interrupt, console)
    except WriteError as error:
        raise StoreError(
            f"session {name!r} cannot be written: {error.reason}. {counted(error.durable, 'frame')} "
            f"{'is' if error.durable == 1 else 'are'} safe; mend this, and the same command goes on from there"
        ) from error
    except KeyboardInterrupt:
        notes().print("Interrupted. What is on disk is safe; the same command goes on from there.", style="yellow")
        raise SystemExit(130) from None
    _report(report, as_json, console)
    if report.status == "interrupted":
        raise SystemExit(130)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. Times are in seconds of the session."""

    session: str
    video: str
    status: str  # "finished", "interrupted", "already" (there was nothing new)
    frames: int  # of the session
    frames_read: int = 0
    start: float | None = None
    end: float | None = None
    bytes: int | None = None  # of the session on disk
    seconds: float = 0.0  # that it took


def _check(folder: "SessionFolder", encode: dict[str, Any], kv: str | None, dtype: str | None) -> None:
    """Find what cannot continue a session before the model is loaded. Raises `SessionError`."""
    from rekv.errors import SessionError

    meta, where = folder.meta, f"session {folder.path.name!r}"
    meta.require_same_encoding(meta.encode.but(**encode), meta.init_ids, where, meta.grid)
    if dtype is not None and dtype != meta.model.dtype:
        raise SessionError(
            f"{where} was made in {meta.model.dtype}, not {dtype}: appending needs the same model in the same dtype; "
            f"leave out --dtype, or start another session"
        )
    if kv is not None and kv != meta.codec:
        raise SessionError(f"{where} is stored as {meta.codec}: leave out --kv, or start another session")


def _read(session: "Session", video: "VideoFile", name: str, interrupt: Interrupt, console: Console) -> Report:
    """Append what of the video has not been read yet."""
    from rekv.cli.going_on import Reading, plan, text
    from rekv.cli.reading import showing
    from rekv.store.info import taken

    keeper, memory, fps = _keeper(session), session.memory, session.config.sample_fps
    reading = Reading()
    if keeper.exists:
        session.append(())  # from here on nobody else writes it
        reading = plan(keeper.folder.catalog, video.identity, video.start, 1 / fps)
        video.after = reading.after
    before, started = memory.frames, perf_counter()
    frames = _Frames(video, fps, reading.shift, interrupt)
    status = "finished"
    if frames.first is None:
        _finish(keeper, reading.source, video)
        return Report(name, video.path, "already", before)
    session.fit(frames.first.image)
    session.append(())
    path, size = video.identity or (video.path, None)
    number = reading.source or keeper.folder.catalog.begin_source(text(path), size, video.start, reading.shift, before)
    try:
        with showing(session, video, Path(video.path).name, console, reading.shift) as show:
            session.append(frames, on_progress=show)
        _finish(keeper, number, video)
    except Stopped:
        status = "interrupted"
    session.flush()
    new = memory.times[before : memory.frames]
    return Report(
        name,
        video.path,
        status,
        memory.frames,
        len(new),
        new[0] if new else None,
        new[-1] + 1 / fps if new else None,
        taken(keeper.path),
        perf_counter() - started,
    )


class _Frames:
    """The frames of a video in the session's time. The first one is fetched before anything is written."""

    def __init__(self, video: "VideoFile", sample_fps: float, shift: float, interrupt: Interrupt) -> None:
        self._frames, self._shift, self._interrupt = video.frames(sample_fps), shift, interrupt
        self.first = next(self._frames, None)

    def __iter__(self) -> "Iterator[Frame]":
        first, self.first = self.first, None
        if first is not None:
            yield self._shifted(first)
        for frame in self._frames:
            yield self._shifted(frame)

    def _shifted(self, frame: "Frame") -> "Frame":
        if self._interrupt.asked:
            raise Stopped
        return replace(frame, time=frame.time + self._shift) if self._shift else frame


def _keeper(session: "Session") -> "Keeper":
    if session.keeper is None:
        raise RuntimeError("a session with a name has a keeper")
    return session.keeper


def _finish(keeper: "Keeper", source: int | None, video: "VideoFile") -> None:
    """Note that there is no more of it; with --end there may be."""
    if source is not None and video.end is None:
        keeper.finish_source(source)


def _report(report: Report, as_json: bool, console: Console) -> None:
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(report)))
    if report.status == "already":
        console.print(f"{report.video} has already been read into session {report.session}: nothing new.")
        return
    if report.start is not None and report.end is not None:
        console.print(
            f"Read {counted(report.frames_read, 'frame')}, {format_span(report.start, report.end)}, in "
            f"{format_seconds(report.seconds)} ({report.frames_read / report.seconds:.0f} frames/s). "
            f"Session {report.session} has {counted(report.frames, 'frame')}, "
            f"{format_bytes(report.bytes or 0)} on disk.",
            style="dim",
        )
    if report.status == "interrupted":
        at = "before the first frame" if report.end is None else f"at {format_time(report.end)}"
        notes().print(
            f"Stopped {at}. What was read is safe; the same command goes on from there.",
            style="yellow",
        )
