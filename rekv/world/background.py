"""Backgrounds: what the camera sees when nothing happens, drawn once for a scene, at any size."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rekv.world.canvas import Canvas
from rekv.world.event import pick
from rekv.world.families import FAMILIES
from rekv.world.shapes import Float, frozen
from rekv.world.splits import Split
from rekv.world.walls import draw_wall

HELD_OUT = ("harbour",)
BACKGROUNDS: dict[Split, tuple[str, ...]] = {
    "known": tuple(family for family in FAMILIES if family not in HELD_OUT),
    "held_out": HELD_OUT,
}
_WALLS = 0.5  # share of backgrounds that have one
_EXPOSURE = 1.14  # factor of the places' colours
_VIGNETTE = 0.14  # share of the light that the corners lose
_GRAIN = 2.2  # of 255: standard deviation of the ground's texture
_GRID = (24, 32)  # rows and columns of its values


@dataclass(frozen=True, slots=True)
class Background:
    """A place to film. Two of the same family are alike, but their seeds decide on everything in them."""

    family: str  # one of `FAMILIES`
    seed: int
    wall: bool = False  # whether there is something to hide behind


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A background in pixels: (3, height, width), 0..255."""

    pixels: Float  # by day
    glow: Float | None  # what its lamps add at night
    wall: Float | None  # (height, width): how much of each pixel the wall covers, 0 to 1


def draw_background(rng: np.random.Generator, *, wall: bool | None = None, backgrounds: Split = "known") -> Background:
    """Draw a background from that side of the split; with a wall, without one, or by chance."""
    family = pick(rng, BACKGROUNDS[backgrounds])
    seed = int(rng.integers(2**32))
    by_chance = bool(rng.random() < _WALLS)
    return Background(family, seed, by_chance if wall is None else wall)


@lru_cache(maxsize=4)
def view(background: Background, width: int, height: int) -> View:
    """Return what the background looks like at this size in pixels."""
    rng = np.random.default_rng(background.seed)
    canvas = Canvas(width, height)
    FAMILIES[background.family](canvas, rng)
    canvas.texture(rng.standard_normal(_GRID, np.float32) * np.float32(_GRAIN))
    cover = frozen(draw_wall(canvas, rng)) if background.wall else None
    canvas.vignette(_VIGNETTE)
    canvas.pixels *= np.float32(_EXPOSURE)
    pixels = frozen(canvas.pixels.clip(0, 255, out=canvas.pixels))
    return View(pixels, frozen(canvas.glow) if canvas.glows else None, cover)
