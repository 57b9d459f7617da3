"""What there is to hide behind, in the middle of some backgrounds: a pillar, crates or a screen."""

import numpy as np

from rekv.world.canvas import Canvas, Color, muted
from rekv.world.shapes import WALL, Float

_MARGIN = 0.6  # units that it is larger than what it must cover


def draw_wall(canvas: Canvas, rng: np.random.Generator) -> Float:
    """Draw a wall; return how much of each pixel it covers, 0 to 1: (height, width)."""
    left, top, right, bottom = (end + side * _MARGIN for end, side in zip(WALL, (-1, -1, 1, 1), strict=True))
    color = muted(rng, rng.uniform(85, 150), 0.07)
    canvas.cloud(34, bottom - 0.3, 12.5, 2.6, color * 0.2, 0.75)
    kind = int(rng.integers(3))
    if kind == 0:
        top -= rng.uniform(5, 17)
        _pillar(canvas, left, top, right, bottom, color)
    elif kind == 1:
        _crates(canvas, left, top, right, bottom, color)
    else:
        top -= rng.uniform(0, 3)
        _screen(canvas, left, top, right, bottom, color)
    for start, end in (((left, top), (right, top)), ((left, top), (left, bottom)), ((right, top), (right, bottom))):
        canvas.line(start, end, 0.4, color * 0.4, 0.7)
    return canvas.cover(left, top, right, bottom)


def _pillar(canvas: Canvas, left: float, top: float, right: float, bottom: float, color: Color) -> None:
    canvas.rect(left, top, right, bottom, color)
    canvas.rect(left, top, left + 1.6, bottom, color * 1.2)
    for i in range(5):  # it is round: darker to the right
        canvas.rect(right - 2 * (5 - i), top, right, bottom, color * 0.55, 0.13)
    for edge in (top, bottom - 2):
        canvas.rect(left, edge, right, edge + 2, color * 0.8, below=color * 0.62)


def _crates(canvas: Canvas, left: float, top: float, right: float, bottom: float, color: Color) -> None:
    half = (top + bottom) / 2
    for upper, lower, tint in ((top, half, 1.05), (half, bottom, 0.92)):
        canvas.rect(left, upper, right, lower, color * tint, below=color * tint * 0.86)
        canvas.panes((left, upper, right, lower), 1, 4, color * 0.5, 0.55, share=(1.0, 0.1))
        canvas.line((left + 1, lower - 1), (right - 1, upper + 1), 1.3, color * tint * 1.12)
        for x in (left, right - 1.6):
            canvas.rect(x, upper, x + 1.6, lower, color * tint * 1.15, below=color * tint)
        for y in (upper, lower - 1.4):
            canvas.rect(left, y, right, y + 1.4, color * tint * 1.15, below=color * tint)
        canvas.rect(left, lower - 0.3, right, lower, color * 0.4)


def _screen(canvas: Canvas, left: float, top: float, right: float, bottom: float, color: Color) -> None:
    width = (right - left) / 3
    for i, tint in enumerate((1.1, 0.86, 1.02)):
        x = left + i * width
        canvas.rect(x, top, x + width, bottom, color * tint, below=color * tint * 0.82)
        canvas.rect(x + 0.8, top + 1, x + width - 0.8, bottom - 1.6, color * tint * 1.13, below=color * tint * 0.95)
        canvas.rect(x + width - 0.3, top, x + width, bottom, color * 0.45)
