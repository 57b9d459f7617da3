"""Frames that repeat what was already encoded: left out, they extend the time of the frame they repeat."""

import struct
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image as PIL

from rekv.core import Frame, Image
from rekv.errors import ConfigError

# 8-bit levels: the lowest that a sensor noise of 8 levels does not reach in H.264 of usual quality
# (benchmarks/duplicates.py).
DEFAULT_THRESHOLD = 8.0
MAX_SPAN = 10.0  # seconds

TILES = 64  # along a picture's longer side: so narrow that an object of 2 % of it fills much of one
MIN_TILE = 4  # pixels: smaller ones would let the noise of single pixels through
_HEADER = struct.Struct("<dII")  # time, height, width


class Duplicates:
    """Tells which frames of a stream repeat the last one that was kept.

    The picture is divided into tiles; a frame repeats the kept one if no tile's mean red, green or blue differs
    by more than `threshold`. So the noise of pixels averages out and a small object still fills its tile. Because
    the kept frame is compared with, not the neighbour, slow changes add up until they count.
    """

    def __init__(self, threshold: float = DEFAULT_THRESHOLD, max_span: float = MAX_SPAN) -> None:
        """`threshold` in 8-bit levels (0 to 255), `max_span` in seconds.

        Raises ConfigError if one of them is out of range.
        """
        if not 0 <= threshold <= 255:
            raise ConfigError(f"the threshold of near-duplicates is {threshold}; it must be from 0 to 255 (levels)")
        if not max_span >= 0:
            raise ConfigError(f"the longest span of near-duplicates is {max_span}; it must be at least 0 (seconds)")
        self.threshold = threshold
        self.max_span = max_span
        self._kept: _Kept | None = None

    @classmethod
    def resume(cls, state: bytes | None, threshold: float = DEFAULT_THRESHOLD, max_span: float = MAX_SPAN) -> Self:
        """Continue from the `state` of another one: with its settings, its decisions.

        Raises ConfigError if these bytes are not such a state.
        """
        duplicates = cls(threshold, max_span)
        if state is not None:
            duplicates._kept = _Kept.unpack(state)
        return duplicates

    @property
    def state(self) -> bytes | None:
        """All that later decisions depend on, in less than 13 KB; None before the first frame."""
        return None if self._kept is None else self._kept.pack()

    def repeats(self, frame: Frame) -> bool:
        """Say whether to leave a frame out, for it repeats the last one that was not.

        A frame more than `max_span` seconds after that one, before it, or of another size never does.
        """
        new = _Kept(frame.time, frame.image.shape[:2], tiles(frame.image))
        old = self._kept
        if (
            old is not None
            and 0 <= new.time - old.time <= self.max_span
            and new.size == old.size
            and difference(new.tiles, old.tiles) <= self.threshold
        ):
            return True
        self._kept = new
        return False


def tiles(image: Image) -> Image:
    """The mean colour of each tile: uint8 RGB (rows, columns, 3)."""
    rows, columns = _grid(*image.shape[:2])
    # In two steps: whole tiles are averaged, then what is left is, which is much faster.
    return np.asarray(PIL.fromarray(image).resize((columns, rows), PIL.Resampling.BOX, reducing_gap=2.0))


def difference(left: Image, right: Image) -> int:
    """The largest difference of any tile, in levels."""
    return int(np.abs(left.astype(np.int16) - right).max())


def _grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles, as square as can be."""
    side = max(height, width)
    count = min(TILES, max(1, side // MIN_TILE))
    return max(1, round(height * count / side)), max(1, round(width * count / side))


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """What is remembered of a frame."""

    time: float  # seconds
    size: tuple[int, ...]  # height and width of the picture, in pixels
    tiles: Image

    def pack(self) -> bytes:
        return _HEADER.pack(self.time, *self.size) + self.tiles.tobytes()

    @classmethod
    def unpack(cls, state: bytes) -> Self:
        try:
            time, height, width = _HEADER.unpack_from(state)
            rows, columns = _grid(height, width)
            values = np.frombuffer(state, np.uint8, offset=_HEADER.size).reshape(rows, columns, 3)
        except (struct.error, ValueError, ZeroDivisionError) as error:
            raise ConfigError(
                "the state of the near-duplicates is not one that this version wrote; "
                "resume from None, then the next frame is kept"
            ) from error
        return cls(time, (height, width), values)
