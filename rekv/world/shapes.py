"""What the world is made of: its size, its palette, its places, the outlines of its things and a font of dots."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Coordinates = NDArray[np.float64]
Inside = NDArray[np.bool_]

WIDTH, HEIGHT = 64, 48  # the world, in its own units; x goes right and y down from the upper left corner
INPUT = 64  # pixels: the side of the square that the built-in model sees, whatever a picture's shape is

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (35, 165, 55),
    "blue": (45, 75, 225),
    "yellow": (240, 220, 45),
    "purple": (150, 45, 190),
    "orange": (245, 135, 25),
    "cyan": (50, 210, 220),
    "white": (248, 248, 248),
}
COLORS: tuple[str, ...] = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
CARD = "card"
KINDS: tuple[str, ...] = (*SHAPES, CARD)
PLACES = {"left": (13, 27), "right": (51, 27), "top": (32, 17), "bottom": (32, 38), "center": (32, 27)}
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
EDGES = tuple(OPPOSITE)  # the places that things move between
RADIUS = {"small": 5.2, "large": 8.2}
SIZES = tuple(RADIUS)
CARD_WIDTH, CARD_HEIGHT = 13, 17
WALL = (25, 18, 39, 36)  # left, top, right, bottom: what is sure to be hidden behind a scene's wall, if it has one

_CORNER = 1.2  # radius of a card's corners
_STAR_NOTCH = 0.42  # radius of a star's inner corners
_STAR_TIP = 1.05

_FONT = (  # 5 x 7 dots, a row per group
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00010 00100 01000 11111",
    "11111 00010 00100 00010 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)


def _star(x: Coordinates, y: Coordinates) -> Inside:
    """Fold the plane onto half a point of the star; inside is one side of the line from tip to notch."""
    point = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + point / 2) % point - point / 2)
    distance = np.hypot(x, y)
    notch_x, notch_y = _STAR_NOTCH * np.cos(point / 2), _STAR_NOTCH * np.sin(point / 2)
    along, across = distance * np.cos(angle), distance * np.sin(angle)
    inside: Inside = (notch_x - _STAR_TIP) * across - notch_y * (along - _STAR_TIP) > 0
    return inside


def _heart(x: Coordinates, y: Coordinates) -> Inside:
    x, y = 1.25 * x, 0.1 - 1.2 * y
    inside: Inside = (x * x + y * y - 1) ** 3 - x * x * y**3 < 0
    return inside


# Whether a point is inside; x goes right and y down from the shape's centre, in units of its radius.
_INSIDE: dict[str, Callable[[Coordinates, Coordinates], Inside]] = {
    "circle": lambda x, y: np.hypot(x, y) < 0.95,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.82,
    "triangle": lambda x, y: (y < 0.8) & (abs(x) < (y + 1) / 1.8),
    "star": _star,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.33) & (np.maximum(abs(x), abs(y)) < 1),
    "diamond": lambda x, y: 1.25 * abs(x) + abs(y) < 1,
    "ring": lambda x, y: (np.hypot(x, y) < 1) & (np.hypot(x, y) > 0.55),
    "heart": _heart,
}


def inside(kind: str, size: str, x: Coordinates, y: Coordinates) -> Inside:
    """Say which points lie inside a thing; x and y in units from its centre. A card's size does not matter."""
    if kind == CARD:
        right = np.maximum(abs(x) - CARD_WIDTH / 2 + _CORNER, 0)
        down = np.maximum(abs(y) - CARD_HEIGHT / 2 + _CORNER, 0)
        return np.hypot(right, down) < _CORNER
    return _INSIDE[kind](x / RADIUS[size], y / RADIUS[size])


def reach(kind: str, size: str) -> tuple[float, float]:
    """Return how far a thing reaches from its centre: to its sides, and up and down (units)."""
    if kind == CARD:
        return CARD_WIDTH / 2, CARD_HEIGHT / 2
    return RADIUS[size] * _STAR_TIP, RADIUS[size] * _STAR_TIP


@lru_cache(maxsize=10)
def digit_dots(digit: int) -> Float:
    """Return a digit of the font: 7 rows of 5 dots, 1 where there is ink."""
    return frozen(np.array([[int(dot) for dot in row] for row in _FONT[digit].split()], np.float32))


def frozen(array: Float) -> Float:
    array.flags.writeable = False  # it is cached and shared
    return array
