"""The clock that the camera writes into every picture: light digits on a dark strip, upper left."""

from functools import lru_cache

import numpy as np

from rekv.world.raster import cells
from rekv.world.shapes import INPUT, Float, digit_dots, frozen

COLUMNS, ROWS = 31, 9  # dots of the strip; a dot is a pixel of what the model sees
DIGITS_LEFT = (2, 8, 18, 24)  # where the digits begin: each is within one of the model's patches of 8 pixels
DIGITS_TOP = 1
_COLON_LEFT, _COLON_DOTS = 15, (3, 5)
_INK = 238.0
_STRIP, _STRIP_ALPHA = 14.0, 0.66


class Clock:
    """Writes the time into pictures of one size."""

    def __init__(self, width: int, height: int) -> None:
        dot = (width / INPUT, height / INPUT)  # pixels
        columns, rows = (int(np.ceil(n * size)) for n, size in zip((COLUMNS, ROWS), dot, strict=True))
        self._across, self._down = cells(columns, 0, dot[0], COLUMNS).T, cells(rows, 0, dot[1], ROWS)
        strip = self._down.sum(1)[:, None] * self._across.sum(0) * np.float32(_STRIP_ALPHA)
        self._keep, self._add = 1 - strip, strip * np.float32(_STRIP)

    def write(self, canvas: Float, minute: int) -> None:
        """Write a minute of the day into a picture, (3, height, width) of 0..255, in place."""
        ink = self._down @ clock_dots(minute) @ self._across
        behind = canvas[:, : len(self._keep), : self._keep.shape[1]]
        behind *= self._keep
        behind += self._add
        behind += (np.float32(_INK) - behind) * ink


@lru_cache(maxsize=1440)
def clock_dots(minute: int) -> Float:
    """Return a minute of the day as dots, 1 where there is ink: (9, 31)."""
    dots = np.zeros((ROWS, COLUMNS), np.float32)
    for left, digit in zip(DIGITS_LEFT, (*divmod(minute // 60, 10), *divmod(minute % 60, 10)), strict=True):
        glyph = digit_dots(digit)
        dots[DIGITS_TOP : DIGITS_TOP + len(glyph), left : left + glyph.shape[1]] = glyph
    dots[list(_COLON_DOTS), _COLON_LEFT] = 1
    return frozen(dots)
