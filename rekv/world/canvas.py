"""A canvas for backgrounds: simple forms with smooth edges, in the world's units, at any number of pixels."""

from collections.abc import Sequence
from math import ceil, hypot

import numpy as np

from rekv.world.raster import blend
from rekv.world.shapes import HEIGHT, WIDTH, Float

Color = Float  # (3,): red, green and blue, 0..255
Point = tuple[float, float]  # x, y

_TILES = 36  # rows of tiles as wide as a unit between the picture's bottom and half way to the horizon


def muted(rng: np.random.Generator, level: float, spread: float = 0.1) -> Color:
    """Draw a colour of about this brightness that is too grayish to be taken for one of the palette's."""
    color: Color = (level * (1 + rng.uniform(-spread, spread, 3))).astype(np.float32)
    return color


def color(red: float, green: float, blue: float) -> Color:
    return np.array((red, green, blue), np.float32)


class Canvas:
    """Paints `pixels`, the place by day, and `glow`, what lamps add at night: (3, height, width), 0..255.

    Every form has an `alpha`, the share of what is behind it that it covers.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.scale = (width / WIDTH, height / HEIGHT)  # pixels per unit
        self.pixels: Float = np.zeros((3, height, width), np.float32)
        self.glow: Float = np.zeros((3, height, width), np.float32)
        self.glows = False
        self._columns = (np.arange(width, dtype=np.float32) + 0.5)[None, :]
        self._rows = (np.arange(height, dtype=np.float32) + 0.5)[:, None]

    def rect(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        color: Color,
        alpha: float = 1.0,
        *,
        below: Color | None = None,
    ) -> None:
        """Fill a rectangle with a colour, or from `color` at its top to `below` at its bottom."""
        x, across = _span(left * self.scale[0], right * self.scale[0], self.width)
        y, down = _span(top * self.scale[1], bottom * self.scale[1], self.height)
        paint = color[:, None, None]
        if below is not None:
            share = (self._rows[y] - np.float32(top * self.scale[1])) * np.float32(1 / (bottom - top) / self.scale[1])
            paint = paint + (below - color)[:, None, None] * share
        behind = self.pixels[:, y, x]
        behind += (paint - behind) * ((alpha * down)[:, None] * across)

    def polygon(self, points: Sequence[Point], color: Color, alpha: float = 1.0) -> None:
        """Fill a convex polygon; its corners are given clockwise as seen on the screen."""
        x = [x * self.scale[0] for x, _ in points]
        y = [y * self.scale[1] for _, y in points]
        columns = slice(max(int(min(x)) - 1, 0), max(int(max(x)) + 2, 0))
        rows = slice(max(int(min(y)) - 1, 0), max(int(max(y)) + 2, 0))
        behind = self.pixels[:, rows, columns]
        if not behind.size:
            return
        right, down = self._columns[:, columns], self._rows[rows]
        cover: Float = np.full(behind.shape[1:], 1 - len(x), np.float32)
        for i in range(len(x)):
            along, fall = x[i] - x[i - 1], y[i] - y[i - 1]
            length = hypot(along, fall)
            across, deep = np.float32(-fall / length), np.float32(along / length)
            start = np.float32(0.5 + (fall * x[i] - along * y[i]) / length)
            edge = right * across + (down * deep + start)
            cover += np.minimum(np.maximum(edge, 0, out=edge), 1, out=edge)
        behind += (color[:, None, None] - behind) * (np.maximum(cover, 0, out=cover) * np.float32(alpha))

    def line(self, start: Point, end: Point, width: float, color: Color, alpha: float = 1.0) -> None:
        """Draw a straight line, `width` units thick."""
        (x0, y0), (x1, y1) = start, end
        length = hypot(x1 - x0, y1 - y0)
        right, down = (y0 - y1) / length * width / 2, (x1 - x0) / length * width / 2
        corners = ((x0 - right, y0 - down), (x1 - right, y1 - down), (x1 + right, y1 + down), (x0 + right, y0 + down))
        self.polygon(corners, color, alpha)

    def ellipse(self, x: float, y: float, across: float, down: float, color: Color, alpha: float = 1.0) -> None:
        """Fill an ellipse around (x, y) that reaches `across` to its sides, and `down` up and down."""
        columns, rows, cover = self._round(x, y, across, down)
        edge = np.float32(min(across * self.scale[0], down * self.scale[1]))
        cover = ((1 - np.sqrt(cover)) * edge + np.float32(0.5)).clip(0, 1)
        behind = self.pixels[:, rows, columns]
        behind += (color[:, None, None] - behind) * (cover * np.float32(alpha))

    def cloud(self, x: float, y: float, across: float, down: float, color: Color, alpha: float = 1.0) -> None:
        """Fill an ellipse that is faint at its edge: a cloud, a shadow, a spot of light."""
        columns, rows, cover = self._round(x, y, across, down)
        behind = self.pixels[:, rows, columns]
        behind += (color[:, None, None] - behind) * (np.maximum(1 - cover, 0) ** 2 * np.float32(alpha))

    def shine(self, x: float, y: float, across: float, down: float, color: Color) -> None:
        """Let a lamp glow at night: bright around (x, y), faint further away."""
        columns, rows, cover = self._round(x, y, across, down)
        self.glow[:, rows, columns] += color[:, None, None] * np.maximum(1 - cover, 0) ** 2
        self.glows = True

    def panes(
        self,
        area: tuple[float, float, float, float],
        columns: int,
        rows: int,
        color: Color,
        alpha: float = 1.0,
        *,
        share: tuple[float, float] = (0.5, 0.5),
        shining: tuple[Float, Color] | None = None,
    ) -> None:
        """Fill a grid of equal rectangles: windows, boards, boxes.

        `area`: left, top, right and bottom; `share`: how much of its cell a rectangle takes, across and down;
        `shining`: which of them, (rows, columns), glow at night, 0 to 1, and their colour.
        """
        left, top, right, bottom = area
        x, across = _row_of(left * self.scale[0], right * self.scale[0], columns, share[0], self.width)
        y, down = _row_of(top * self.scale[1], bottom * self.scale[1], rows, share[1], self.height)
        behind = self.pixels[:, y, x]
        behind += (color[:, None, None] - behind) * ((alpha * down.sum(1))[:, None] * across.sum(1))
        if shining:
            which, light = shining
            self.glow[:, y, x] += light[:, None, None] * (down @ which @ across.T)
            self.glows = True

    def floor(
        self,
        top: float,
        horizon: float,
        vanishing: float,
        tile: float,
        color: Color,
        alpha: float,
        *,
        planks: bool = False,
    ) -> None:
        """Draw the joints of a floor from `top` down, in perspective towards (`vanishing`, `horizon`).

        `tile`: the width of a tile at the picture's bottom (units); planks have no joints across.
        """
        first = round(top * self.scale[1])
        depth = (self._rows[first:] / np.float32(self.scale[1]) - np.float32(horizon)) / np.float32(HEIGHT - horizon)
        away = (self._columns / np.float32(self.scale[0]) - np.float32(vanishing)) / np.float32(tile)
        at = away / depth
        at -= np.rint(at)
        width = depth * np.float32(0.35 * self.scale[0])  # pixels, as all below
        cover = _joint(np.abs(at) * (depth * np.float32(tile * self.scale[0])), width) * depth
        if not planks:
            repeats = _TILES / tile
            at = np.float32(repeats) / depth
            at -= np.rint(at)
            spacing = depth * depth * np.float32((HEIGHT - horizon) * self.scale[1] / repeats)
            across = _joint(np.abs(at) * spacing, width) * depth
            cover = np.maximum(cover, across)
        behind = self.pixels[:, first:]
        behind += (color[:, None, None] - behind) * (cover * np.float32(alpha))

    def texture(self, values: Float) -> None:
        """Brighten and darken the picture by a grid of values, smooth in between."""
        self.pixels += blend(self.height, len(values)) @ values @ blend(self.width, values.shape[1]).T

    def cover(self, left: float, top: float, right: float, bottom: float) -> Float:
        """Return how much of each pixel a rectangle covers, 0 to 1: (height, width)."""
        covered: Float = np.zeros((self.height, self.width), np.float32)
        x, across = _span(left * self.scale[0], right * self.scale[0], self.width)
        y, down = _span(top * self.scale[1], bottom * self.scale[1], self.height)
        covered[y, x] = down[:, None] * across
        return covered

    def vignette(self, loss: float) -> None:
        """Darken the corners by this share."""
        x = self._columns / np.float32(self.width / 2) - 1
        y = self._rows / np.float32(self.height / 2) - 1
        self.pixels *= 1 - np.float32(loss / 2) * (x * x + y * y)

    def _round(self, x: float, y: float, across: float, down: float) -> tuple[slice, slice, Float]:
        """Return columns and rows around an ellipse and there the squared distance from its centre, 1 at its edge."""
        columns = _around(x * self.scale[0], across * self.scale[0], self.width)
        rows = _around(y * self.scale[1], down * self.scale[1], self.height)
        right = (self._columns[:, columns] - np.float32(x * self.scale[0])) / np.float32(across * self.scale[0])
        below = (self._rows[rows] - np.float32(y * self.scale[1])) / np.float32(down * self.scale[1])
        return columns, rows, right * right + below * below


def _around(middle: float, reach: float, n_pixels: int) -> slice:
    first = int(max(middle - reach - 1, 0))
    return slice(first, max(int(min(middle + reach + 2, n_pixels)), first))


def _span(start: float, stop: float, n_pixels: int) -> tuple[slice, Float]:
    """Return the pixels that [start, stop) touches, and the share of each that it covers."""
    start, stop = max(start, 0.0), min(stop, float(n_pixels))
    if stop <= start:
        return slice(0, 0), np.empty(0, np.float32)
    first, last = int(start), ceil(stop)
    cover = np.ones(last - first, np.float32)
    cover[0] -= start - first
    cover[-1] -= last - stop
    return slice(first, last), cover


def _row_of(start: float, stop: float, n: int, share: float, n_pixels: int) -> tuple[slice, Float]:
    """Return the pixels of `n` equal cells in [start, stop), and what share of each pixel is in the middle
    `share` of each cell: (pixels, n)."""
    first = int(max(start, 0))
    last = max(min(ceil(stop), n_pixels), first)
    pitch = (stop - start) / n
    left = np.arange(first, last, dtype=np.float32)[:, None]
    begin = (start + pitch * (np.arange(n) + (1 - share) / 2)).astype(np.float32)
    cover: Float = np.minimum(left + 1, begin + np.float32(pitch * share)) - np.maximum(left, begin)
    return slice(first, last), np.maximum(cover, 0, out=cover)


def _joint(distance: Float, width: Float) -> Float:
    """Return how much of a pixel a line covers whose middle is `distance` away, both in pixels."""
    covered: Float = np.minimum((width * np.float32(0.5) + np.float32(0.5) - distance).clip(0, 1), width)
    return covered
