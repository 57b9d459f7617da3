"""A timeline: where on a video's time axis lies what each question read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from rekv.pictures.style import (
    BODY,
    GREEN,
    INK,
    LINE,
    MARGIN,
    MUTED,
    PAPER,
    SMALL,
    TITLE,
    WIDTH,
    Color,
    heat,
    heat_scale,
    mark,
    write,
)
from rekv.timecode import format_time

_TOP = 132
_ROW = 62
_BAR = 20  # height of a row's time axis
_BAR_TOP = 30  # within the row
_SEEN: Color = (233, 239, 246)
_WINDOW: Color = (196, 214, 234)
_UNSEEN: Color = (238, 238, 236)
_STRIPE: Color = (224, 224, 221)
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)  # seconds
_MOST_LABELS = 16


@dataclass(frozen=True, slots=True)
class Tick:
    """A retrieved frame. Times in seconds."""

    start: float
    end: float
    score: float  # standard score


@dataclass(frozen=True, slots=True)
class Row:
    """One question. Times in seconds."""

    asked: float
    seen: float  # up to where the video had been seen
    question: str
    answer: str
    ticks: Sequence[Tick]
    truth: Sequence[tuple[float, float]] = ()  # spans that show the answer, as far as they are known
    window: float | None = None  # where the local window began
    right: bool | None = None  # None: not known


def timeline(rows: Sequence[Row], duration: float, title: str, subtitle: str = "") -> Image.Image:
    """Draw one time axis of `duration` seconds per question."""
    bottom = _TOP + _ROW * len(rows)
    picture = Image.new("RGB", (WIDTH, bottom + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    write(draw, (MARGIN, 48), title, TITLE, bold=True, width=WIDTH - 2 * MARGIN - 240)
    write(draw, (MARGIN, 74), subtitle, BODY, MUTED, width=WIDTH - 2 * MARGIN)
    heat_scale(draw, WIDTH - MARGIN, 48)
    _legend(draw, 102)
    scale = Scale(duration)
    for i, row in enumerate(rows):
        _draw_row(draw, row, scale, _TOP + i * _ROW)
    for time in scale.labels():
        write(draw, (scale(time), bottom + 16), format_time(time), SMALL, MUTED, anchor="ms")
    return picture


@dataclass(frozen=True, slots=True)
class Scale:
    """From seconds to pixels."""

    duration: float

    def __call__(self, time: float) -> int:
        share = min(max(time / self.duration, 0.0), 1.0) if self.duration > 0 else 0.0
        return round(MARGIN + share * (WIDTH - 2 * MARGIN))

    def labels(self) -> Iterator[float]:
        """Round times along the axis, few enough to be read."""
        step = next((s for s in _STEPS if self.duration / s <= _MOST_LABELS), _STEPS[-1])
        for i in range(min(int(self.duration // step), _MOST_LABELS) + 1):
            yield float(i * step)


def _draw_row(draw: ImageDraw.ImageDraw, row: Row, scale: Scale, top: int) -> None:
    left, middle = MARGIN, top + 20
    if row.right is not None:
        mark(draw, (left + 8, middle - 5), row.right)
        left += 26
    left += round(write(draw, (left, middle), format_time(row.asked), BODY, MUTED)) + 12
    left += round(write(draw, (left, middle), row.question, BODY, width=WIDTH * 0.6)) + 16
    write(draw, (left, middle), row.answer, BODY, MUTED, width=WIDTH - MARGIN - left)
    upper, lower = top + _BAR_TOP, top + _BAR_TOP + _BAR
    seen = scale(row.seen)
    _block(draw, scale(0), seen, upper, lower, _SEEN)
    if row.window is not None:
        _block(draw, scale(row.window), seen, upper, lower, _WINDOW)
    _unseen(draw, seen, scale(scale.duration), upper, lower)
    for start, end in row.truth:
        draw.rectangle(
            (scale(start) - 1, upper - 4, max(scale(end), scale(start) + 2), lower + 4),
            outline=GREEN,
            width=2,
        )
    for tick in sorted(row.ticks, key=lambda tick: tick.score):
        _block(
            draw,
            scale(tick.start),
            max(scale(tick.end), scale(tick.start) + 2),
            upper,
            lower,
            heat(tick.score),
        )
    draw.line([(seen, upper - 4), (seen, lower + 4)], INK, 2)


def _block(draw: ImageDraw.ImageDraw, left: int, right: int, upper: int, lower: int, color: Color) -> None:
    if right > left:
        draw.rectangle((left, upper, right - 1, lower - 1), color)


def _unseen(draw: ImageDraw.ImageDraw, left: int, right: int, upper: int, lower: int) -> None:
    """What came after the question: grey with stripes."""
    _block(draw, left, right, upper, lower, _UNSEEN)
    height = lower - upper
    for x in range(left - height, right, 9):
        low, high = max(0, left - x), min(height - 1, right - 1 - x)
        if high > low:
            draw.line([(x + low, lower - 1 - low), (x + high, lower - 1 - high)], _STRIPE)


def _legend(draw: ImageDraw.ImageDraw, base: int) -> None:
    x = float(MARGIN)
    for color, text in (
        (_SEEN, "seen before the question"),
        (_WINDOW, "still in the local window"),
        (_UNSEEN, "not yet seen"),
        (heat(2.0), "frame put into attention"),
        (GREEN, "shows the answer"),
    ):
        box = (x, base - 11, x + 18, base)
        if color == GREEN:
            draw.rectangle(box, outline=GREEN, width=2)
        else:
            draw.rectangle(box, color, outline=LINE)
        if color == _UNSEEN:
            _unseen(draw, round(x) + 1, round(x) + 18, base - 10, base)
        x += 26
        x += write(draw, (x, base), text, SMALL, MUTED) + 26
