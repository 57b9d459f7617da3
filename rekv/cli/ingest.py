"""`rekv ingest`: read a video into a session on disk, or many; again, to go on where that stopped."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from rekv.cli.ingest_list import ingest_list
from rekv.cli.interrupt import Interrupt
from rekv.cli.loading import load_model
from rekv.cli.options import Duration, Levels, Size, Time, given, json_option, readable_part, store_option
from rekv.cli.retrieval import ENCODER_HELP, named_encoder
from rekv.cli.screen import counted, format_bytes, format_seconds, notes
from rekv.cli.workers import wanted, workers_options
from rekv.timecode import format_span, format_time

if TYPE_CHECKING:
    from rekv.engine import Session
    from rekv.ingestion.unit import Report
    from rekv.sources import VideoFile


@click.command()
@click.argument("video", required=False)
@click.option("--session", "name", metavar="NAME", help="Session to read it into; made if need be.")
@click.option(
    "--from-list",
    "listed",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Instead: many videos, one path a line, or name, tab, path; each gets a session of its own.",
)
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
@click.option(
    "--ram",
    type=Size(),
    help="Memory for blocks and index, such as 4GiB.  [default: a quarter of RAM, which workers share]",
)
@click.option("--gpu-cache", type=Size(), help="GPU memory for blocks besides.  [default: 0]")
@click.option("--disk", type=Size(), help="Space on disk; beyond it the oldest frames are removed.")
@click.option("--max-age", type=Duration(), help="Remove frames that are older, such as 7d, in time of the video.")
@click.option("--thin-after", type=Duration(), help="Keep only some of the frames that are older, such as 1d.")
@click.option("--thin-keep", type=int, help="Of those, keep every n-th.  [default: 10]")
@workers_options
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
def ingest(
    video: str | None,
    name: str | None,
    listed: Path | None,
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
    num_chunks: int,
    gpus_per_worker: float | None,
    ray_address: str | None,
    **storage: Any,
) -> None:
    """Read a video, or each of many, into a session on disk.

    Every frame is read once. After Ctrl-C, or whatever else ended it, the same command goes on where that stopped.
    Another video continues the session's time. Meanwhile and later: `rekv ask --session NAME "..."`.
    """
    first, last = readable_part(start, end, None)
    console = notes(quiet)

    from rekv.core import EncodeConfig, StorageConfig
    from rekv.store.codecs import AUTO

    encode = given(sample_fps=sample_fps, n_local=n_local, frame_tokens=frame_tokens, skip_duplicates=skip_duplicates)
    encode |= named_encoder(encoder) | given(policy=policy)
    limits = given(**storage, kv=AUTO if kv == "auto" else kv)
    EncodeConfig().but(**encode)
    if policy is not None:
        from rekv.memory.policies import find

        find(policy)  # before a model is loaded
    StorageConfig().but(**limits)
    loading = {"device": device, "dtype": dtype, "weights": weights}
    if listed is not None:
        if video is not None or name is not None or start is not None or end is not None:
            raise click.UsageError("--from-list names the videos and their sessions, and reads them whole.")
        cluster = wanted(model, device, num_chunks, gpus_per_worker, ray_address)
        ingest_list(listed, store, encode, limits, model, loading, cluster, as_json=as_json, console=console)
        return
    if video is None or name is None:
        missing = "argument 'VIDEO'" if video is None else "option '--session'"
        raise click.UsageError(f"Missing {missing}: name a video and its session, or many videos with --from-list.")
    if num_chunks != 1 or gpus_per_worker is not None or ray_address is not None:
        raise click.UsageError("Workers share many videos: --num-chunks and the like go with --from-list.")
    report = _one(video, first, last, name, store, encode, limits, model, loading, console)
    if as_json:
        click.echo(json.dumps(report.as_json()))
    _report(report, console)
    if report.status == "interrupted":
        raise SystemExit(130)


def _one(
    path: str,
    start: float,
    end: float | None,
    name: str,
    store: str | None,
    encode: dict[str, Any],
    limits: dict[str, Any],
    model: str | None,
    loading: dict[str, str | None],
    console: Console,
) -> "Report":
    from rekv.cli.reading import showing
    from rekv.ingestion.unit import Report, look, read
    from rekv.sources import video as open_video
    from rekv.store.store import Store

    sessions = Store(store)
    video = open_video(path, start=start, end=end)
    found = look(sessions, name, video)
    if found is not None:
        found.require(encode, kv=limits.get("kv"), dtype=loading["dtype"])
        if found.done and model in (None, found.model):  # another name may be another model: told once it is loaded
            return Report(name, path, "already", found.frames)
        model, loading = model or found.model, {**loading, "dtype": loading["dtype"] or found.dtype}
    loaded = load_model(console, model, **loading)

    def show(session: "Session", video: "VideoFile", shift: float) -> AbstractContextManager[Callable[[object], None]]:
        return showing(session, video, Path(video.path).name, console, shift)

    try:
        with Interrupt() as interrupt:
            return read(loaded, video, name, sessions.folder, encode | limits, lambda: interrupt.asked, show)
    except KeyboardInterrupt:
        notes().print("Interrupted. What is on disk is safe; the same command goes on from there.", style="yellow")
        raise SystemExit(130) from None


def _report(report: "Report", console: Console) -> None:
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
