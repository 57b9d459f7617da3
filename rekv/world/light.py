"""The light of the day: what the clock does to a scene's colours."""

from collections.abc import Sequence

import numpy as np

from rekv.world.shapes import Float

DAY = 24 * 60  # minutes

_HOURS = (0, 4.5, 6, 7.5, 9.5, 15.5, 17.5, 19, 20.5, 22, 24)
_RED = (0.58, 0.58, 0.78, 0.97, 1.04, 1.05, 1.04, 0.98, 0.72, 0.59, 0.58)
_GREEN = (0.64, 0.64, 0.71, 0.89, 1.02, 1.02, 0.96, 0.81, 0.66, 0.63, 0.64)
_BLUE = (0.80, 0.80, 0.77, 0.84, 1.00, 1.00, 0.88, 0.71, 0.75, 0.79, 0.80)
_LAMPS = (1, 1, 0.7, 0.1, 0, 0, 0.05, 0.6, 1, 1, 1)
_DRIFTS = ((0.03, 36), (0.02, 16))  # clouds: share of the light, and a period in minutes that a day is made of


def light(minutes: Sequence[int]) -> Float:
    """Return what the sky's light does at these minutes of the day: (n, 3) factors of red, green and blue.

    Days are bright, dusk is warm, nights are dim and blue; about 0.55 to 1.1, with a slow drift.
    """
    minute = np.asarray(minutes)
    colors = np.stack([np.interp(minute / 60, _HOURS, channel) for channel in (_RED, _GREEN, _BLUE)], 1)
    drift = np.ones(len(minute))
    for share, period in _DRIFTS:
        drift += share * np.sin(2 * np.pi * minute / period)
    factors: Float = (colors * drift[:, None]).astype(np.float32)
    return factors


def lamps(minutes: Sequence[int]) -> Float:
    """Return how bright lamps and windows shine at these minutes of the day: (n,), 0 by day to 1 at night."""
    shine: Float = np.interp(np.asarray(minutes) / 60, _HOURS, _LAMPS).astype(np.float32)
    return shine
