"""What the world is drawn with: its palette, its places, masks of its shapes and cards with a digit."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Coordinates = NDArray[np.float64]

SIDE = 48  # width and height of the world, in its own pixels

PALETTE = {
    "red": (215, 35, 35),
    "green": (35, 165, 55),
    "blue": (45, 75, 225),
    "yellow": (240, 220, 45),
    "purple": (150, 45, 190),
    "orange": (245, 135, 25),
    "cyan": (50, 210, 220),
    "white": (248, 248, 248),
}
COLORS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
CARD = "card"
KINDS = (*SHAPES, CARD)
PLACES = {"left": (10, 24), "right": (37, 24), "top": (24, 10), "bottom": (24, 37), "center": (24, 24)}
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
EDGES = tuple(OPPOSITE)  # the places that things move between
RADIUS = {"small": 6, "large": 9}
SIZES = tuple(RADIUS)
CARD_WIDTH, CARD_HEIGHT = 15, 20

_SUPERSAMPLE = 4  # samples per pixel and axis, for smooth edges
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


def _star(x: Coordinates, y: Coordinates) -> NDArray[np.bool_]:
    """Fold the plane onto half a point of the star; inside is one side of the line from tip to notch."""
    point = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + point / 2) % point - point / 2)
    distance = np.hypot(x, y)
    notch_x, notch_y = _STAR_NOTCH * np.cos(point / 2), _STAR_NOTCH * np.sin(point / 2)
    along, across = distance * np.cos(angle), distance * np.sin(angle)
    inside: NDArray[np.bool_] = (notch_x - _STAR_TIP) * across - notch_y * (along - _STAR_TIP) > 0
    return inside


def _heart(x: Coordinates, y: Coordinates) -> NDArray[np.bool_]:
    x, y = 1.25 * x, 0.1 - 1.2 * y
    inside: NDArray[np.bool_] = (x * x + y * y - 1) ** 3 - x * x * y**3 < 0
    return inside


# Whether a point is inside; x goes right and y down from the shape's centre, in units of its radius.
_INSIDE: dict[str, Callable[[Coordinates, Coordinates], NDArray[np.bool_]]] = {
    "circle": lambda x, y: np.hypot(x, y) < 0.95,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.82,
    "triangle": lambda x, y: (y < 0.8) & (abs(x) < (y + 1) / 1.8),
    "star": _star,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.33) & (np.maximum(abs(x), abs(y)) < 1),
    "diamond": lambda x, y: 1.25 * abs(x) + abs(y) < 1,
    "ring": lambda x, y: (np.hypot(x, y) < 1) & (np.hypot(x, y) > 0.55),
    "heart": _heart,
}


@lru_cache(maxsize=256)
def shape_mask(kind: str, size: str, scale: int = 1) -> Float:
    """Return how much of each pixel a shape covers, 0 to 1: (n, n, 1) with n = (2 * radius + 1) * scale."""
    radius = RADIUS[size]
    side = (2 * radius + 1) * scale
    samples = (np.arange(side * _SUPERSAMPLE) + 0.5) / _SUPERSAMPLE - side / 2
    y, x = np.meshgrid(samples / (radius * scale), samples / (radius * scale), indexing="ij")
    inside = _INSIDE[kind](x, y).reshape(side, _SUPERSAMPLE, side, _SUPERSAMPLE)
    return _frozen(inside.mean((1, 3)).astype(np.float32)[..., None])


@lru_cache(maxsize=64)
def digit_mask(digit: int, scale: int = 1) -> Float:
    """Return where a card has ink, 0 or 1, of shape (20 * scale, 15 * scale, 1)."""
    dots = np.array([[int(dot) for dot in row] for row in _FONT[digit].split()], np.float32)
    mask = np.zeros((CARD_HEIGHT, CARD_WIDTH), np.float32)
    mask[3:17, 2:12] = np.kron(dots, np.ones((2, 2), np.float32))
    return _frozen(np.kron(mask, np.ones((scale, scale), np.float32))[..., None])


def _frozen(array: Float) -> Float:
    array.flags.writeable = False  # it is cached and shared
    return array
