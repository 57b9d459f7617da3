"""An answer on the screen and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rekv.cli.screen import counted, format_bytes, format_seconds
from rekv.evaluation.choices import letter as named
from rekv.timecode import format_span

if TYPE_CHECKING:
    from rekv.core import Answer, AskConfig, Span
    from rekv.engine import Session

MOST_SPANS = 5


def show(answer: "Answer", choices: Sequence[str], console: Console) -> None:
    """What there is to say about an answer, below it."""
    if not answer.text.strip():
        console.print("  (an answer without words)", style="dim")
    if choices:
        letter = named(answer.text, choices)
        said = f"({letter}) {choices[ord(letter) - ord('A')]}" if letter else "none of the choices"
        console.print(f"  chose    {said}")
    if not answer.stands_out:
        console.print(f"  doubt    {doubt(answer)}", style="yellow")
    if answer.finish_reason == "length":
        console.print("  cut off: the answer may go on; see --max-new-tokens", style="yellow")
    for i, span in enumerate(answer.evidence[:MOST_SPANS]):
        console.print(f"  {'' if i else 'evidence':8} {describe(span, len(answer.retrieval.frames))}")
    if (more := len(answer.evidence) - MOST_SPANS) > 0:
        console.print(f"           and {more} more (all of them: --json)", style="dim")
    console.print(f"  {footer(answer)}\n", style="dim")


def doubt(answer: "Answer") -> str:
    """What to say where nothing stands out."""
    return (
        f"nothing in what was seen stands out for this question (margin {answer.margin:+.1f}): the answer may be made "
        f"up, unless it is about the newest frames"
    )


def describe(span: "Span", layers: int) -> str:
    time = format_span(span.start, span.end)
    return f"{time:15} score {span.score:+.1f}, read by {round(span.votes * layers)} of {counted(layers, 'layer')}"


def footer(answer: "Answer") -> str:
    timings = answer.timings
    first = timings.wait + timings.question + timings.first_token
    per_layer = max(map(len, answer.retrieval.frames), default=0)
    return (
        f"{counted(answer.frames_seen, 'frame')} seen, {per_layer} per layer read "
        f"({where_from(answer)}); "
        f"first token {format_seconds(first)}, total {format_seconds(timings.total)}"
    )


def where_from(answer: "Answer") -> str:
    """In which tier the blocks were that a question read."""
    names = {"gpu": "GPU", "ram": "RAM", "disk": "disk"}
    tiers = [
        f"{names[tier]} {counted(read.blocks, 'block')}, {format_bytes(read.bytes)}, {format_seconds(read.seconds)}"
        for tier, read in answer.reads.items()
    ]
    return "; ".join(tiers) or "no blocks"


def as_json(
    answer: "Answer", session: "Session", config: "AskConfig", choices: Sequence[str], video: str | None
) -> dict[str, Any]:
    """Everything about an answer. Times are in seconds; `frames` are those that any layer read.

    `video` is the file that was read for it; None where a session in a store is asked.
    """
    from rekv.retrieval.scoring import standard_scores

    retrieval, family = answer.retrieval, session.model.family
    candidates = retrieval.candidates
    scores = dict(zip(candidates, standard_scores(retrieval.scores).tolist(), strict=True))
    times = session.memory.times
    letter = named(answer.text, choices)
    return {
        "question": answer.question,
        "text": answer.text,
        **({"choices": list(choices), "choice": letter} if choices else {}),
        "finish_reason": answer.finish_reason,
        "evidence": [asdict(span) for span in answer.evidence],
        "frames": [{"frame": f, "time": times[f], "score": scores[f]} for f in retrieval.union],
        "retrieval": {
            "by": retrieval.by,
            "candidates": [candidates[0], candidates[-1] + 1] if candidates else [0, 0],
            "layers": [list(frames) for frames in retrieval.frames],
        },
        "margin": answer.margin,
        "stands_out": answer.stands_out,
        "frames_seen": answer.frames_seen,
        "tokens": len(answer.token_ids),
        "timings": asdict(answer.timings),
        "reads": {tier: asdict(read) for tier, read in answer.reads.items()},
        "settings": asdict(session.config) | asdict(config),
        "model": {
            "name": family.name,
            "device": str(family.device),
            "dtype": str(family.dtype).removeprefix("torch."),
        },
        "warnings": list(answer.warnings),
        **_of(session, video),
    }


def _of(session: "Session", video: str | None) -> dict[str, Any]:
    if video is None:
        return {"session": {"name": session.name, "frames": session.memory.frames}}
    return {"video": {"path": video, "frames": session.memory.frames}}
