"""`rekv ask`: answer questions of a video, which is read once, or of a session that is on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from rekv.cli.loading import load_model
from rekv.cli.options import PictureFile, Size, Time, given, readable_part, store_option
from rekv.cli.retrieval import ENCODER_HELP, chooses, named_encoder, require_pictures, retrieval_options
from rekv.cli.screen import counted, format_rate, notes, printable, silent
from rekv.timecode import format_span

if TYPE_CHECKING:
    from rekv.core import Answer, AskConfig, Image
    from rekv.engine import Model, Session
    from rekv.store.info import SessionInfo

MOST_CHOICES = 26  # they are lettered


@click.command()
@click.argument("words", metavar="[VIDEO] QUESTION...", nargs=-1)
@click.option("--session", "name", metavar="NAME", help="Ask this session instead of a video; see `rekv ls`.")
@store_option
@click.option(
    "--model",
    help="An alias such as llava_ov_7b, a local folder or a Hub name.  [default: the session's, else built-in]",
)
@click.option("--device", help="cpu, cuda, cuda:1 or auto (all devices).  [default: cuda if there is one]")
@click.option("--dtype", help="float32, float16 or bfloat16.  [default: what suits model and device]")
@click.option("--weights", type=click.Choice(["int8", "int4"]), help="Pack the language model's weights.")
@click.option("--sample-fps", type=float, help="Frames to read per second of video.  [default: the model's]")
@click.option("--start", type=Time(), help="Read the video, or see of the session, what is from this time on.")
@click.option("--end", type=Time(), help="Read or see what is up to this time.")
@click.option("--at", type=Time(), help="Answer as of this time: nothing later is seen.")
@click.option("--n-local", type=int, help="Tokens of the local window.  [default: the model's]")
@click.option("--frame-tokens", type=int, help="Tokens of a frame at most, for Qwen-VL.  [default: the model's]")
@click.option("--encoder", metavar="NAME", help=ENCODER_HELP)
@retrieval_options
@click.option("--choice", "choices", multiple=True, help="A possible answer; repeat it for a multiple-choice question.")
@click.option("--max-new-tokens", type=int, help="Length at which an answer is cut.  [default: the model's]")
@click.option("--temperature", type=float, help="Above 0: sample the answer.  [default: 0, greedy]")
@click.option("--top-p", type=float, help="Sample from the most likely tokens of this share.  [default: 1]")
@click.option("--seed", type=int, help="Of sampling.  [default: a new one each time]")
@click.option("--ram", type=Size(), help="Memory for blocks and index, such as 4GiB.")
@click.option("--gpu-cache", type=Size(), help="GPU memory for blocks besides.  [default: 0]")
@click.option("--json", "json_lines", is_flag=True, help="Print one JSON object per question.")
@click.option(
    "--save-evidence", type=PictureFile(), metavar="FILE", help="Save the frames that were read as a picture."
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but answers, warnings and errors.")
def ask(
    words: Sequence[str],
    name: str | None,
    store: str | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    weights: str | None,
    sample_fps: float | None,
    n_local: int | None,
    frame_tokens: int | None,
    encoder: str | None,
    start: float | None,
    end: float | None,
    at: float | None,
    choices: Sequence[str],
    ram: int | None,
    gpu_cache: int | None,
    json_lines: bool,
    save_evidence: Path | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Ask questions of a video or of a session.

    A VIDEO is read once; a --session was read before, by `rekv ingest`, or is being read at this moment. Each
    QUESTION is answered in turn, with the moments that were read for it. Times are seconds (90), mm:ss (1:30) or
    hh:mm:ss (0:01:30).

    The built-in model only knows the world of `rekv demo`; real video needs a real --model.
    """
    video, questions = _video_and_questions(words, name)
    questions = [_clean(question) for question in questions]
    choices = [_clean(choice) for choice in choices]
    first, last = readable_part(start, end, at)
    _check(video, questions, choices, save_evidence)
    encode = given(sample_fps=sample_fps, n_local=n_local, frame_tokens=frame_tokens) | named_encoder(encoder)
    storage = given(ram=ram, gpu_cache=gpu_cache)
    if name is None and store is not None:
        raise click.UsageError("--store is where a session lies: give its name too, with --session.")
    if name is not None and encode:
        raise click.UsageError(
            "--sample-fps, --n-local, --frame-tokens, --encoder are for reading a video; a session has been read."
        )
    console = notes(quiet)

    from rekv.core import AskConfig
    from rekv.retrieval.registry import find

    scope = given(start=start, end=end, at=at) if name is not None else given(at=at)
    settings |= scope | {"spans": settings["spans"] or None}
    AskConfig(**given(**settings))
    if settings["retriever"] is not None:
        find(settings["retriever"])
        if settings["retriever"] == "oracle" and settings["spans"] is None:
            raise click.UsageError("--retriever oracle reads the spans that it is given: --span START-END.")
    if name is not None:
        session, config = _opened(console, name, store, model, device, dtype, weights, storage, settings)
    else:
        from rekv.cli.reading import read
        from rekv.sources import video as open_video

        source = open_video(video, sample_fps=sample_fps, start=first, end=last)
        loaded = load_model(console, model, device=device, dtype=dtype, weights=weights)
        config = _settings(loaded, settings)
        session = loaded.session(**encode, **storage)
        require_pictures(session, config.retriever)
        _introduce(session, config, console)
        read(session, source, Path(video).name, console)
    answers = []
    for question in questions:
        answer = _answer(session, question, choices, config, json_lines, console)
        if json_lines:
            from rekv.cli.answers import as_json

            click.echo(json.dumps(as_json(answer, session, config, choices, video or None)))
        answers.append(answer)
    if save_evidence:
        _save(save_evidence, answers, session, video, console)


def _video_and_questions(words: Sequence[str], session: str | None) -> tuple[str, Sequence[str]]:
    """Take the arguments apart; the video is "" if a session is asked."""
    if session is None:
        if not words:
            raise click.UsageError("Missing argument 'VIDEO', or --session NAME.")
        if len(words) == 1:
            raise click.UsageError("Missing argument 'QUESTION...'.")
        return words[0], words[1:]
    if not words:
        raise click.UsageError("Missing argument 'QUESTION...'.")
    if Path(words[0]).exists():
        raise click.UsageError(f"{words[0]} is a file, and --session is given: ask either the one or the other.")
    return "", words


def _opened(
    console: Console,
    name: str,
    store: str | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    weights: str | None,
    storage: dict[str, Any],
    settings: dict[str, Any],
) -> "tuple[Session, AskConfig]":
    """A session on disk, with its own model unless another one is named."""
    from rekv.store.info import info
    from rekv.store.store import Store

    sessions = Store(store)
    known = info(sessions, name)
    if not known.frames:
        raise click.ClickException(f"Session {name} has no frames yet; wait until `rekv ingest` has read some.")
    if known.frames == known.gone + known.damaged:
        lost = f"{known.gone} of its frames were removed, {known.damaged} are damaged"
        raise click.ClickException(
            f"Session {name} has no frame left that can be read: {lost}. Restore it from a copy, or ask another."
        )
    loaded = load_model(console, model or known.meta.model.name, device=device, dtype=dtype, weights=weights)
    config = _settings(loaded, settings)
    with silent("rekv.store.keeper"):  # answers say what is left out
        session = loaded.session(name, store=sessions.folder, **storage)
    _require_frames(session, config, known)
    require_pictures(session, config.retriever)
    _introduce(session, config, console)
    return session, config


def _require_frames(session: "Session", config: "AskConfig", known: "SessionInfo") -> None:
    """Find out that a question would see nothing. What is damaged is the engine's to tell."""
    from rekv.retrieval import in_scope

    memory = session.memory
    scope = in_scope(memory.times, memory.frames, config, memory.last_pictures)
    if not memory.table.there(scope) and not any(frame in scope for frame in memory.table.damage):
        there = "" if known.start is None or known.end is None else f": it has {format_span(known.start, known.end)}"
        raise click.ClickException(f"Session {known.name} has no frames of that time{there}. Ask about another one.")


def _clean(text: str) -> str:
    """Text from the command line, in which bytes that are not in the terminal's encoding are surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()


def _check(video: str, questions: Sequence[str], choices: Sequence[str], save_evidence: Path | None) -> None:
    """Find what cannot work before anything takes time."""
    if not all(questions):
        raise click.UsageError("A question is empty.")
    if len(choices) == 1 or len(choices) > MOST_CHOICES:
        raise click.UsageError(f"--choice is given once per possible answer: 2 to {MOST_CHOICES} times.")
    if save_evidence and Path(video).is_fifo():
        raise click.UsageError(f"--save-evidence reads {video} once more, which a pipe does not allow.")


def _settings(model: "Model", settings: dict[str, Any]) -> "AskConfig":
    from rekv.models.aliases import BUILTIN

    if settings["recent_frames"] is None and model.family.name == BUILTIN:
        settings = settings | {"recent_frames": 1}
    return model.family.ask_config.but(**given(**settings))


def _introduce(session: "Session", config: "AskConfig", console: Console) -> None:
    """Say what is going to happen."""
    from rekv.models.aliases import BUILTIN

    family, fps, recent = session.model.family, session.config.sample_fps, config.recent_frames
    per_second = format_rate(fps)
    what = f"reads {per_second}" if session.name is None else f"has read session {session.name}, {per_second}"
    lines = [
        f"Model {family.name} ({family.device}, {str(family.dtype).removeprefix('torch.')}) {what}; {chooses(config)}."
    ]
    if recent:
        newest = "newest frame is" if recent == 1 else f"newest {recent} frames are"
        lines.append(f"The {newest} always read besides (--recent-frames {recent}).")
    if family.name == BUILTIN:
        lines.append("The built-in model only knows the world of `rekv demo`; see --model.")
    console.print("\n".join(lines), style="dim")


def _answer(
    session: "Session",
    question: str,
    choices: Sequence[str],
    config: "AskConfig",
    silent: bool,
    console: Console,
) -> "Answer":
    """Ask one question; unless `silent`, its words are shown as they come. What was left out is told in any case."""
    from dataclasses import asdict

    from rekv.cli.answers import show

    if silent:
        answer = session.ask(question, choices=choices, **asdict(config))
    else:
        console.print(printable(question), style="bold")
        answer = session.ask(
            question,
            choices=choices,
            on_text=lambda text: click.echo(printable(text), nl=False),
            **asdict(config),
        )
        click.echo()
        show(answer, choices, console)
    for warning in answer.warnings:
        notes().print(f"Warning: {printable(warning)}", style="yellow")
    return answer


def _save(path: Path, answers: Sequence["Answer"], session: "Session", video: str, console: Console) -> None:
    """Draw the contact sheet."""
    from rekv.cli.stills import best_frames, stills
    from rekv.pictures import Group, contact_sheet
    from rekv.timecode import format_time

    times = session.memory.times
    frames = sorted({frame for answer in answers for frame in best_frames(answer)})
    with console.status(f"Fetching {counted(len(frames), 'frame')} for {path} ..."):
        images = _images(session, video, frames)
    groups = []
    for answer in answers:
        shown = stills(answer, images, times)
        read = len(answer.retrieval.union)
        all_read = f"{counted(read, 'frame')} read"
        note = all_read if read == len(shown) else f"the best {len(shown)} of {read} frames read"
        groups.append(Group(answer.question, answer.text, shown, note))
    title = f"{session.name or Path(video).name}, {format_time(times[0])} to {format_time(times[-1])}"
    try:
        contact_sheet(groups, "Frames put into attention", title).save(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path} cannot be written: {error}") from error
    console.print(f"Saved {path}", style="dim")


def _images(session: "Session", video: str, frames: Sequence[int]) -> "dict[int, Image]":
    """Small pictures of frames: those that a session keeps, or from the video."""
    from rekv.cli.stills import kept, reread

    if session.keeper is not None:
        return kept(session.keeper.folder.catalog, frames)
    times = session.memory.times
    return dict(zip(frames, reread(video, [times[frame] for frame in frames]), strict=True))
