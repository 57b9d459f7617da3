"""Options that say how frames are chosen, and what there is to say about it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rekv.timecode import parse_time

if TYPE_CHECKING:
    from rekv.core import AskConfig
    from rekv.engine import Session

Command = TypeVar("Command", bound=Callable[..., Any])

ENCODER_HELP = (
    "SigLIP or CLIP that also sees each frame, for --retriever external and fusion; none: do without.  "
    "[default: the built-in one with the built-in model, else none]"
)


class TimeSpan(click.ParamType[tuple[float, float]]):
    """START-END, each in seconds, mm:ss or hh:mm:ss."""

    name = "start-end"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        start, dash, end = value.partition("-")
        try:
            if not dash:
                raise ValueError
            return parse_time(start), parse_time(end)
        except ValueError:
            self.fail(f"{value!r} is not a span of time; write 1:05-1:20 or 65-80", param, ctx)


def retrieval_options(command: Command) -> Command:
    """What chooses the frames, and how many."""
    options = (
        click.option(
            "--retriever",
            metavar="NAME",
            help="Who chooses frames: internal (the paper), external, fusion, auto, recent, uniform, oracle, or what "
            "is installed.  [default: internal]",
        ),
        click.option("--retrieve-size", type=int, help="Frames to retrieve, per layer.  [default: the model's]"),
        click.option("--retrieve-tokens", type=int, help="Instead: as many frames as have so many tokens."),
        click.option(
            "--recent-frames",
            type=int,
            help="The newest frames that are read besides.  [default: 1 with the built-in model, else 0]",
        ),
        click.option(
            "--query",
            type=click.Choice(["mean", "phrases", "tokens"]),
            help="Search by the question as a whole, by each of its phrases, or by each token.  [default: mean]",
        ),
        click.option("--min-gap", type=float, metavar="SECONDS", help="Least distance of any two frames retrieved."),
        click.option("--detrend", is_flag=True, default=None, help="Take a drift of the scores with time out."),
        click.option("--shared-picks", is_flag=True, default=None, help="Let all layers read the same frames."),
        click.option(
            "--span",
            "spans",
            type=TimeSpan(),
            multiple=True,
            metavar="START-END",
            help="What --retriever oracle reads; repeat it for several.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def named_encoder(name: str | None) -> dict[str, str | None]:
    """The setting that --encoder means."""
    return {} if name is None else {"encoder": None if name == "none" else name}


def require_pictures(session: "Session", retriever: str) -> None:
    """Find out before anything takes time that a retriever needs a dual encoder, and there is none."""
    from rekv.retrieval import needs_pictures

    if session.config.encoder is None and needs_pictures(retriever):
        why = "this session was read without one" if session.name else "none is named"
        raise click.UsageError(
            f"--retriever {retriever} chooses by a dual encoder that has seen the frames, and {why}: read the video "
            f"with --encoder NAME, a SigLIP or CLIP checkpoint such as google/siglip2-base-patch16-224."
        )


def chooses(config: "AskConfig") -> str:
    """Who chooses frames, and how many."""
    much = f"{config.retrieve_size}" if config.retrieve_tokens is None else f"{config.retrieve_tokens} tokens"
    if config.retriever == "internal" and not config.shared_picks:
        return f"each layer retrieves {much}"
    return f"{config.retriever} retrieval of {much}"
