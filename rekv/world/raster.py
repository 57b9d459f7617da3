"""From the world's units to pixels: how much of each pixel something covers."""

from functools import lru_cache

import numpy as np

from rekv.world.shapes import Float, frozen


@lru_cache(maxsize=256)
def cells(n_pixels: int, start: float, pitch: float, n_cells: int) -> Float:
    """Return the share of each pixel that each of a row of cells covers: (n_pixels, n_cells).

    The first cell begins at `start` and each is `pitch` long, both in pixels from the first pixel's edge.
    """
    left = np.arange(n_pixels)[:, None]
    begin = start + pitch * np.arange(n_cells)
    covered = np.minimum(left + 1, begin + pitch) - np.maximum(left, begin)
    return frozen(covered.clip(0, 1).astype(np.float32))


@lru_cache(maxsize=64)
def blend(n_pixels: int, n_knots: int) -> Float:
    """Return weights that stretch `n_knots` values over `n_pixels`, straight in between: (n_pixels, n_knots)."""
    at = ((np.arange(n_pixels) + 0.5) * n_knots / n_pixels - 0.5).clip(0, n_knots - 1)
    weights = np.maximum(1 - np.abs(at[:, None] - np.arange(n_knots)), 0)
    return frozen(weights.astype(np.float32))


@lru_cache(maxsize=64)
def blur(n_pixels: int, sigma: float) -> Float:
    """Return the weights of a Gaussian blur along one axis, `sigma` in pixels: (n_pixels, n_pixels)."""
    distance = np.arange(n_pixels)[:, None] - np.arange(n_pixels)
    weights = np.exp(-0.5 * (distance / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return frozen(weights.astype(np.float32))
