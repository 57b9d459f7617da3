"""The demo's two pictures: the frames that were read, and where on the time axis they lie."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from rekv.cli.demo_report import Asked
from rekv.cli.stills import frame_scores, stills
from rekv.core import Image
from rekv.pictures import Group, Row, Tick, contact_sheet, timeline
from rekv.timecode import format_span, format_time

SUBTITLE = "rekv demo, built-in model"


def save_pictures(
    folder: Path, asked: Sequence[Asked], images: Mapping[int, Image], times: Sequence[float], duration: float
) -> tuple[Path, Path]:
    """Write contact-sheet.png and timeline.png; `images` and `times` are by frame id."""
    sheet, axis = folder / "contact-sheet.png", folder / "timeline.png"
    groups, rows = [], []
    for one in asked:
        shown = stills(one.answer, images, times, one.truth)
        groups.append(Group(one.ask.question.text, f"answer: {one.answer.text}", shown, note(one), one.right))
        rows.append(
            Row(
                asked=int(one.ask.time),
                seen=one.seen,
                question=one.ask.question.text,
                answer=said(one),
                ticks=ticks(one, times),
                truth=one.truth,
                window=one.window,
                right=one.right,
            )
        )
    try:
        contact_sheet(groups, "Frames put into attention", f"{SUBTITLE}; framed: shows the answer").save(sheet)
        timeline(rows, duration, "What each question read", SUBTITLE).save(axis)
    except OSError as error:
        raise click.ClickException(f"the pictures cannot be written to {folder}: {error}") from error
    return sheet, axis


def said(asked: Asked) -> str:
    right = "" if asked.right else f" (truth: {asked.ask.question.answer})"
    return f"{asked.answer.text}{right}"


def note(asked: Asked) -> str:
    shown = " and ".join(format_span(*span) for span in asked.truth)
    return (
        f"truth: {asked.ask.question.answer}, "
        + (f"shown at {shown}" if shown else "never shown")
        + (f"; asked at {format_time(int(asked.ask.time))}")
    )


def ticks(asked: Asked, times: Sequence[float]) -> list[Tick]:
    scores = frame_scores(asked.answer)
    return [Tick(times[f], times[f] + 1.0, scores[f]) for f in asked.answer.retrieval.union]
