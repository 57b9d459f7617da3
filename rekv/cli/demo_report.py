"""What the demo says: a row per question as it goes, and a summary."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rekv.cli.demo import RECENT_FRAMES
from rekv.cli.screen import format_seconds
from rekv.core import Answer, Span
from rekv.engine import Session
from rekv.timecode import format_span, format_time
from rekv.world import Ask

WIDEST = 116  # columns of the terminal that are used
MOST_SPANS = 4
_INDENT = 10


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question of the story and its answer."""

    ask: Ask
    answer: Answer
    window: float  # seconds: where the local window began

    @property
    def right(self) -> bool:
        return self.answer.text.strip().lower() == self.ask.question.answer

    @property
    def truth(self) -> Sequence[tuple[float, float]]:
        """Where the answer was shown, in seconds; the world has one frame a second."""
        return [(float(start), float(stop)) for start, stop in self.ask.question.evidence]

    @property
    def seen(self) -> float:
        """Seconds of the film that had been seen, a frame a second."""
        return float(self.answer.frames_seen)

    @property
    def age(self) -> float:
        """Seconds since all that the question is about was gone; below 0 if it never was there."""
        return self.seen - max((end for _, end in self.truth), default=float("inf"))

    def shows(self, span: Span) -> bool:
        """Whether the span shows something of the answer."""
        return any(span.start < end and start < span.end for start, end in self.truth)

    @property
    def found(self) -> bool:
        """Whether of everything the question is about something was read."""
        return all(
            any(span.start < end and start < span.end for span in self.answer.evidence) for start, end in self.truth
        )


class Report:
    """Collects answers and shows them."""

    def __init__(self, session: Session, console: Console) -> None:
        self.session = session
        self.console = console
        self.asked: list[Asked] = []
        self.seconds_read = 0.0  # how long all reading took
        self.window = session.config.n_local // session.memory.tokens_per_frame  # frames
        self._width = min(console.width, WIDEST)

    @property
    def right(self) -> int:
        return sum(asked.right for asked in self.asked)

    def head(self) -> None:
        size = self.session.model.family.ask_config.retrieve_size
        self._say(
            f"Now the film plays as a stream: each frame is read once, one per second, and then gone. "
            f"While it is read, a frame sees the {self.window} before it. Each layer of the model retrieves "
            f"{size} frames for a question, from all that has been read. No search by content can know what "
            f"is on screen at the moment, so the newest frame is always read besides "
            f"(recent_frames={RECENT_FRAMES}).\n",
            "dim",
        )
        self._row(*(Text(text, "dim underline") for text in ("", "asked", "question", "answer", "truth")))

    def add(self, ask: Ask, answer: Answer) -> None:
        times = self.session.memory.times
        asked = Asked(ask, answer, times[max(0, len(times) - self.window)])
        self.asked.append(asked)
        self._row(
            _mark(asked.right),
            Text(format_time(int(ask.time))),
            Text(ask.question.text),
            Text(answer.text, "bold" if asked.right else "bold red"),
            Text(ask.question.answer),
        )
        self.console.print(Padding(where(asked), (0, 0, 0, _INDENT)), width=self._width)

    def summary(self) -> None:
        memory = self.session.memory
        old = [asked for asked in self.asked if asked.age > self.window]
        first = [a.timings.wait + a.timings.question + a.timings.first_token for a in (x.answer for x in self.asked)]
        self.console.print(f"\n{self.right} of {len(self.asked)} right.", style="bold")
        if old:
            self._say(
                f"{len(old)} questions were about things that had left the local window; "
                f"{sum(a.right for a in old)} of these are right. "
                f"The oldest was gone for {length(max(a.age for a in old))}."
            )
        shown = [asked for asked in self.asked if asked.truth]
        self._say(
            f"The evidence holds what the answer needs (green) in {sum(a.found for a in shown)} of {len(shown)} cases."
        )
        self._say(
            f"Read {memory.frames} frames in {format_seconds(self.seconds_read)}: "
            f"{memory.frames / self.seconds_read:.0f} per second, decoding included. "
            f"First word of an answer after {format_seconds(median(first))} (median)."
        )
        for asked in self.asked:
            if asked.ask.question.type == "order":
                self._say(
                    f'"{asked.ask.question.text}" is of the type that is expected to be weak '
                    f"({'right' if asked.right else 'wrong'} this time): the method searches with the mean over "
                    f"the question's words, and that of two things also finds their mixtures, the colour of one "
                    f"with the shape of the other."
                )

    def _row(self, *cells: Text) -> None:
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(width=1)
        table.add_column(width=5, justify="right")
        for ratio in (9, 7, 7):
            table.add_column(ratio=ratio)
        table.add_row(*cells)
        self.console.print(table, width=self._width)

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, width=self._width)


def length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{format_time(seconds)} min"


def _mark(right: bool) -> Text:
    return Text("✓", "bold green") if right else Text("✗", "bold red")


def where(asked: Asked) -> Text:
    """The line below an answer: when it was shown, and what was read."""
    line = Text(style="dim")
    if not asked.truth:
        line.append("never shown")
    else:
        line.append("shown " + " and ".join(format_span(*span) for span in asked.truth))
        line.append(f", {length(asked.age)} ago" if asked.age > 0 else ", now")
    line.append("; read ")
    spans = sorted(asked.answer.evidence, key=lambda span: not asked.shows(span))
    for i, span in enumerate(spans[:MOST_SPANS]):
        line.append(", " if i else "")
        line.append(format_span(span.start, span.end), "green" if asked.shows(span) else "")
    if len(spans) > MOST_SPANS:
        line.append(f" and {len(spans) - MOST_SPANS} more")
    return line
