"""A contact sheet: the frames that questions put into attention, with times and scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from PIL import Image, ImageDraw

from rekv.core import Image as Pixels
from rekv.pictures.style import (
    BODY,
    GREEN,
    HEADING,
    LINE,
    MARGIN,
    MUTED,
    PANEL,
    PAPER,
    SMALL,
    TITLE,
    WIDTH,
    heat,
    heat_scale,
    mark,
    write,
)
from rekv.timecode import format_time

_COLUMNS, _GAP = 7, 14
_CELL = (WIDTH - 2 * MARGIN - (_COLUMNS - 1) * _GAP) // _COLUMNS  # pixels, the width of a still
_TALLEST = _CELL  # pixels; higher pictures are scaled down to it
_CAPTION = 30  # below a still
_HEAD = 66  # above a group's stills
_TOP = 96
_SPACE = 26  # between groups


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """A frame that was put into attention."""

    image: Pixels
    time: float  # seconds
    score: float  # standard score
    votes: int  # layers that read it
    layers: int  # layers of the model
    true: bool = False  # it shows the answer, as far as this is known


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One question and its frames."""

    question: str
    answer: str
    stills: Sequence[Still]
    note: str = ""
    right: bool | None = None  # None: not known


def contact_sheet(groups: Sequence[Group], title: str, subtitle: str = "") -> Image.Image:
    """Draw the groups below each other; stills in the order given."""
    heights = [_height(group) for group in groups]
    sheet = Image.new("RGB", (WIDTH, _TOP + sum(heights) + _SPACE * len(groups) + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    write(draw, (MARGIN, 48), title, TITLE, bold=True, width=WIDTH - 2 * MARGIN - 240)
    write(draw, (MARGIN, 74), subtitle, BODY, MUTED, width=WIDTH - 2 * MARGIN - 340)
    heat_scale(draw, WIDTH - MARGIN, 48)
    write(draw, (WIDTH - MARGIN, 74), "time, score, layers that read it", SMALL, MUTED, anchor="rs")
    top = _TOP
    for group, height in zip(groups, heights, strict=True):
        _draw_group(sheet, draw, group, top)
        top += height + _SPACE
    return sheet


def _picture_height(group: Group) -> int:
    """The room for a still: what the widest format of the group needs, at most a square."""
    shapes = [still.image.shape for still in group.stills]
    return min(max((round(_CELL * h / w) for h, w, _ in shapes), default=0), _TALLEST)


def _height(group: Group) -> int:
    rows = ceil(len(group.stills) / _COLUMNS)
    return _HEAD + rows * (_picture_height(group) + _CAPTION + _GAP)


def _draw_group(sheet: Image.Image, draw: ImageDraw.ImageDraw, group: Group, top: int) -> None:
    draw.line([(MARGIN, top), (WIDTH - MARGIN, top)], LINE)
    left = MARGIN
    if group.right is not None:
        mark(draw, (MARGIN + 8, top + 21), group.right)
        left += 26
    wide = WIDTH - MARGIN - left
    write(draw, (left, top + 28), group.question, HEADING, bold=True, width=wide)
    used = write(draw, (left, top + 52), group.answer or "(no words)", BODY, width=wide * 0.6)
    write(draw, (left + used + 14, top + 52), group.note, BODY, MUTED, width=wide - used - 14)
    room = _picture_height(group)
    for i, still in enumerate(group.stills):
        row, column = divmod(i, _COLUMNS)
        x = MARGIN + column * (_CELL + _GAP)
        y = top + _HEAD + row * (room + _CAPTION + _GAP)
        _draw_still(sheet, draw, still, x, y, room)


def _draw_still(sheet: Image.Image, draw: ImageDraw.ImageDraw, still: Still, x: int, y: int, room: int) -> None:
    draw.rectangle((x, y, x + _CELL - 1, y + room - 1), PANEL)
    picture = Image.fromarray(still.image)
    scale = min(_CELL / picture.width, room / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    sheet.paste(picture.resize(size, method), (x + (_CELL - size[0]) // 2, y + (room - size[1]) // 2))
    bottom = y + room
    draw.rectangle((x, bottom + 1, x + _CELL - 1, bottom + 5), heat(still.score))
    if still.true:
        draw.rectangle((x - 3, y - 3, x + _CELL + 2, bottom + 8), outline=GREEN, width=3)
    write(draw, (x + 1, bottom + 24), format_time(still.time), BODY)
    write(
        draw,
        (x + _CELL - 1, bottom + 24),
        f"{still.score:+.1f}, {still.votes}/{still.layers} layers",
        SMALL,
        MUTED,
        anchor="rs",
    )
