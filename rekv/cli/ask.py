"""`rekv ask`: read a video once, then answer questions of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from rekv.cli.loading import load_model
from rekv.cli.options import PictureFile, Time, given, readable_part
from rekv.cli.screen import notes, printable

if TYPE_CHECKING:
    from rekv.core import Answer, AskConfig
    from rekv.engine import Model, Session

MOST_CHOICES = 26  # they are lettered


@click.command()
@click.argument("video")
@click.argument("questions", metavar="QUESTION...", nargs=-1, required=True)
@click.option("--model", help="An alias such as llava_ov_7b, a local folder or a Hub name.  [default: built-in]")
@click.option("--device", help="cpu, cuda, cuda:1 or auto (all devices).  [default: cuda if there is one]")
@click.option("--dtype", help="float32, float16 or bfloat16.  [default: what suits model and device]")
@click.option("--sample-fps", type=float, help="Frames to read per second of video.  [default: the model's]")
@click.option("--start", type=Time(), help="Read the video from this time on.")
@click.option("--end", type=Time(), help="Read the video up to this time.")
@click.option("--at", type=Time(), help="Answer as of this time: nothing later is seen.")
@click.option("--n-local", type=int, help="Tokens of the local window.  [default: the model's]")
@click.option("--retrieve-size", type=int, help="Frames to retrieve, per layer.  [default: the model's]")
@click.option(
    "--recent-frames",
    type=int,
    help="The newest frames that are read besides.  [default: 1 with the built-in model, else 0]",
)
@click.option("--choice", "choices", multiple=True, help="A possible answer; repeat it for a multiple-choice question.")
@click.option("--max-new-tokens", type=int, help="Length at which an answer is cut.  [default: the model's]")
@click.option("--temperature", type=float, help="Above 0: sample the answer.  [default: 0, greedy]")
@click.option("--top-p", type=float, help="Sample from the most likely tokens of this share.  [default: 1]")
@click.option("--seed", type=int, help="Of sampling.  [default: a new one each time]")
@click.option("--json", "json_lines", is_flag=True, help="Print one JSON object per question.")
@click.option(
    "--save-evidence", type=PictureFile(), metavar="FILE", help="Save the frames that were read as a picture."
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but answers, warnings and errors.")
def ask(
    video: str,
    questions: Sequence[str],
    model: str | None,
    device: str | None,
    dtype: str | None,
    sample_fps: float | None,
    n_local: int | None,
    start: float | None,
    end: float | None,
    at: float | None,
    choices: Sequence[str],
    json_lines: bool,
    save_evidence: Path | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Ask questions of a video.

    It is read once; then each QUESTION is answered in turn, with the moments that were read for it. Times are
    seconds (90), mm:ss (1:30) or hh:mm:ss (0:01:30).

    The built-in model only knows the world of `rekv demo`; real video needs a real --model.
    """
    questions = [_clean(question) for question in questions]
    choices = [_clean(choice) for choice in choices]
    first, last = readable_part(start, end, at)
    _check(video, questions, choices, save_evidence)
    console = notes(quiet)

    from rekv.cli.reading import read
    from rekv.core import AskConfig
    from rekv.sources import video as open_video

    source = open_video(video, sample_fps=sample_fps, start=first, end=last)
    AskConfig(**given(**settings, at=at))
    loaded = load_model(console, model, device=device, dtype=dtype)
    config = _settings(loaded, at, settings)
    session = loaded.session(**given(sample_fps=sample_fps, n_local=n_local))
    _introduce(session, config, console)
    read(session, source, Path(video).name, console)
    answers = []
    for question in questions:
        answer = _answer(session, question, choices, config, json_lines, console)
        if json_lines:
            from rekv.cli.answers import as_json

            click.echo(json.dumps(as_json(answer, session, config, choices, video)))
        answers.append(answer)
    if save_evidence:
        _save(save_evidence, answers, session, video, console)


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


def _settings(model: "Model", at: float | None, settings: dict[str, Any]) -> "AskConfig":
    from rekv.models.registry import BUILTIN

    if settings["recent_frames"] is None and model.family.name == BUILTIN:
        settings = settings | {"recent_frames": 1}
    return model.family.ask_config.but(**given(**settings, at=at))


def _introduce(session: "Session", config: "AskConfig", console: Console) -> None:
    """Say what is going to happen."""
    from rekv.models.registry import BUILTIN

    family, fps, recent = session.model.family, session.config.sample_fps, config.recent_frames
    lines = [
        f"Model {family.name} ({family.device}, {str(family.dtype).removeprefix('torch.')}) reads "
        f"{fps:g} frame{'' if fps == 1 else 's'} per second; each layer retrieves {config.retrieve_size}."
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
    """Ask one question; unless `silent`, its words are shown as they come."""
    from dataclasses import asdict

    from rekv.cli.answers import show

    if silent:
        return session.ask(question, choices=choices, **asdict(config))
    console.print(printable(question), style="bold")
    answer = session.ask(
        question,
        choices=choices,
        on_text=lambda text: click.echo(printable(text), nl=False),
        **asdict(config),
    )
    click.echo()
    show(answer, choices, console)
    return answer


def _save(path: Path, answers: Sequence["Answer"], session: "Session", video: str, console: Console) -> None:
    """Draw the contact sheet."""
    from rekv.cli.stills import best_frames, reread, stills
    from rekv.pictures import Group, contact_sheet
    from rekv.timecode import format_time

    times = session.memory.times
    frames = sorted({frame for answer in answers for frame in best_frames(answer)})
    with console.status(f"Fetching {len(frames)} frames for {path} ..."):
        images = dict(zip(frames, reread(video, [times[frame] for frame in frames]), strict=True))
    groups = []
    for answer in answers:
        shown = stills(answer, images, times)
        read = len(answer.retrieval.union)
        note = f"{read} frames read" if read == len(shown) else f"the best {len(shown)} of {read} frames read"
        groups.append(Group(answer.question, answer.text, shown, note))
    title = f"{Path(video).name}, {format_time(times[0])} to {format_time(times[-1])}"
    try:
        contact_sheet(groups, "Frames put into attention", title).save(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path} cannot be written: {error}") from error
    console.print(f"Saved {path}", style="dim")
