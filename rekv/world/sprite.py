"""Things as they are drawn: a coloured body with a thin dark outline, some shading and a soft shadow below it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rekv.world.raster import blur, cells
from rekv.world.shapes import CARD, Coordinates, Float, Inside, digit_dots, frozen, inside, reach

DARK_INK, LIGHT_INK = 22.0, 250.0
_DARK_INK_FROM = 130  # brightness of a card's colour, 0..255: lighter cards have dark ink
_DOT_WIDTH, _DOT_HEIGHT = 1.9, 1.9  # of a card's digit, units

_OUTLINE = 0.55  # units
_OUTLINE_SHADE = 0.34  # of the body's colour
_DIRECTIONS = 16  # in which the body is shifted to find its outline
_SHADOW_RIGHT, _SHADOW_DOWN = 0.9, 1.3  # units
_SHADOW_SOFTNESS = 0.75  # units
_SHADOW = 0.42  # share of the light that it takes
_MARGIN = 3.6  # units around the body, for all of these
_SLOPE = 0.13  # loss of light from the centre to the lower right
_GLOSS = 20.0  # of 255, in the upper left
_SAMPLES = 8  # per unit and axis, at least, for smooth edges
_FEWEST_SAMPLES = 3  # per pixel and axis


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """How to draw a thing of any colour: behind * keep + colour * tint + add. All (height, width), `keep` and
    `tint` as factors, `add` of 255; (column, row) is the pixel that the thing's centre lies in."""

    keep: Float
    tint: Float
    add: Float
    column: int
    row: int


def has_dark_ink(rgb: tuple[float, float, float]) -> bool:
    """Say whether a card of this colour has a dark digit; else it has a light one."""
    red, green, blue = rgb
    return 0.30 * red + 0.59 * green + 0.11 * blue > _DARK_INK_FROM


@lru_cache(maxsize=1024)
def sprite(
    kind: str,
    size: str,
    digit: int,
    dark_ink: bool,
    scale: tuple[float, float],
    phase: tuple[float, float] = (0.0, 0.0),
) -> Sprite:
    """Return a thing at `scale` (x, y) pixels per unit; `phase`: where in its pixel the centre is, 0 to 1 (x, y)."""
    (width, column), (height, row) = (_extent(at, by) for at, by in zip(reach(kind, size), scale, strict=True))
    center = (column + phase[0], row + phase[1])
    body, outer = _body_and_outline(kind, size, scale, center, (width, height))
    shade, gloss = _shading(kind, size, scale, center, (width, height))
    shadow = _SHADOW * _shadow(outer, scale)
    tint = body * shade + (outer - body) * np.float32(_OUTLINE_SHADE)
    add = body * gloss
    if kind == CARD:
        ink = _digit(digit, scale, center, (width, height))
        tint, add = tint * (1 - ink), ink * np.float32(DARK_INK if dark_ink else LIGHT_INK)
    return Sprite(frozen((1 - shadow) * (1 - outer)), frozen(tint), frozen(add), column, row)


def _extent(reach: float, scale: float) -> tuple[int, int]:
    """Return how many pixels a sprite needs along one axis, and in which of them its centre lies."""
    middle = int(np.ceil((reach + _MARGIN) * scale))
    return 2 * middle + 1, middle


def _body_and_outline(
    kind: str, size: str, scale: tuple[float, float], center: tuple[float, float], extent: tuple[int, int]
) -> tuple[Float, Float]:
    """Return how much of each pixel the body covers, and how much the body with its outline."""
    samples = max(_FEWEST_SAMPLES, int(np.ceil(_SAMPLES / min(scale))))
    x, y = (_units(*axis, samples) for axis in zip(extent, center, scale, strict=True))
    body = inside(kind, size, x[None, :], y[:, None])
    outer = body.copy()
    for angle in np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS:
        right = round(_OUTLINE * np.cos(angle) * scale[0] * samples)
        down = round(_OUTLINE * np.sin(angle) * scale[1] * samples)
        outer |= np.roll(body, (down, right), (0, 1))
    return _covered(body, samples), _covered(outer, samples)


def _units(n_pixels: int, center: float, scale: float, samples: int = 1) -> Coordinates:
    at: Coordinates = ((np.arange(n_pixels * samples) + 0.5) / samples - center) / scale
    return at


def _covered(mask: Inside, samples: int) -> Float:
    height, width = (side // samples for side in mask.shape)
    covered: Float = mask.reshape(height, samples, width, samples).mean((1, 3)).astype(np.float32)
    return covered


def _shading(
    kind: str, size: str, scale: tuple[float, float], center: tuple[float, float], extent: tuple[int, int]
) -> tuple[Float, Float]:
    """Light falls from the upper left: return factors of the body's colour, and the gloss to add to it."""
    right, down = reach(kind, size)
    x = (_units(extent[0], center[0], scale[0]) / right)[None, :]
    y = (_units(extent[1], center[1], scale[1]) / down)[:, None]
    shade = 1 - _SLOPE * (x + y)
    gloss = _GLOSS * np.exp(-3 * ((x + 0.4) ** 2 + (y + 0.45) ** 2))
    return shade.astype(np.float32), gloss.astype(np.float32)


def _shadow(outer: Float, scale: tuple[float, float]) -> Float:
    shifted = np.roll(outer, (round(_SHADOW_DOWN * scale[1]), round(_SHADOW_RIGHT * scale[0])), (0, 1))
    height, width = outer.shape
    down, across = blur(height, _SHADOW_SOFTNESS * scale[1]), blur(width, _SHADOW_SOFTNESS * scale[0])
    return np.asarray(down @ shifted @ across, np.float32)


def _digit(digit: int, scale: tuple[float, float], center: tuple[float, float], extent: tuple[int, int]) -> Float:
    dots = digit_dots(digit)
    rows, columns = dots.shape
    pitch = (_DOT_WIDTH * scale[0], _DOT_HEIGHT * scale[1])
    across = cells(extent[0], center[0] - columns / 2 * pitch[0], pitch[0], columns)
    down = cells(extent[1], center[1] - rows / 2 * pitch[1], pitch[1], rows)
    return np.asarray(down @ dots @ across.T, np.float32)
