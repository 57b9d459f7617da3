"""What the pictures share: colours, type, and text that fits its place."""

from functools import lru_cache

from PIL import ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont
from PIL.ImageFont import ImageFont as BitmapFont

Color = tuple[int, int, int]
Font = FreeTypeFont | BitmapFont

PAPER: Color = (252, 252, 250)
PANEL: Color = (255, 255, 255)
INK: Color = (28, 32, 38)
MUTED: Color = (108, 115, 125)
LINE: Color = (214, 218, 223)
GREEN: Color = (22, 136, 84)
RED: Color = (200, 48, 48)

WIDTH = 1240  # pixels
MARGIN = 36
TITLE, HEADING, BODY, SMALL = 26, 18, 15, 13  # pixels per em

_HEAT: tuple[Color, ...] = ((226, 214, 160), (245, 166, 50), (206, 62, 33))  # from weak to strong
_WEAK, _STRONG = 0.0, 3.0  # standard scores that the ends of the scale stand for

# Pillow's own font has ASCII only. Other letters need one of the system's, where it has one.
_SYSTEM_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")


def heat(score: float) -> Color:
    """The colour of a standard score."""
    place = min(max((score - _WEAK) / (_STRONG - _WEAK), 0.0), 1.0) * (len(_HEAT) - 1)
    low = min(int(place), len(_HEAT) - 2)
    share = place - low
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_HEAT[low], _HEAT[low + 1], strict=True))
    return red, green, blue


@lru_cache
def font(size: int, ascii_only: bool = True) -> Font:
    if not ascii_only:
        for name in _SYSTEM_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    color: Color = INK,
    *,
    width: float | None = None,
    anchor: str = "ls",
    bold: bool = False,
) -> float:
    """Write one line, cut to `width` pixels; return how wide it became. `place` is on the base line."""
    text = " ".join(text.split())
    face = font(size, text.isascii())
    if width is not None:
        text = fit(text, face, width)
    draw.text(place, text, color, face, anchor=anchor, stroke_width=0.35 if bold else 0)
    return face.getlength(text)


def fit(text: str, face: Font, width: float) -> str:
    """Cut text to a width in pixels, with three dots where it was cut."""
    if face.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if face.getlength(text[:middle].rstrip() + "...") <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "..."


def mark(draw: ImageDraw.ImageDraw, place: tuple[float, float], right: bool, size: float = 14) -> None:
    """Draw a tick or a cross whose centre is `place`."""
    x, y = place
    s = size / 2
    if right:
        draw.line([(x - s, y), (x - s * 0.3, y + s * 0.7), (x + s, y - s * 0.7)], GREEN, 3, joint="curve")
    else:
        draw.line([(x - s * 0.7, y - s * 0.7), (x + s * 0.7, y + s * 0.7)], RED, 3)
        draw.line([(x - s * 0.7, y + s * 0.7), (x + s * 0.7, y - s * 0.7)], RED, 3)


def heat_scale(draw: ImageDraw.ImageDraw, right: float, base: float) -> None:
    """Draw the legend of `heat`, which ends at `right` and stands on the base line `base`."""
    write(draw, (right, base), f"{_STRONG:g}+", SMALL, MUTED, anchor="rs")
    left = right - 26 - 90
    for i in range(90):
        draw.line([(left + i, base - 10), (left + i, base)], heat(_WEAK + (_STRONG - _WEAK) * i / 89))
    write(draw, (left - 8, base), f"score {_WEAK:g}", SMALL, MUTED, anchor="rs")
