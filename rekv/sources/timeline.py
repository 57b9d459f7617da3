"""From a track's timestamps to seconds from the stream's start, as a player counts them."""

import math
from fractions import Fraction

RESTART = 1  # seconds by which decoding time must fall back to be taken for a restart of the clock


class Timeline:
    """One track's clock: timestamps (pts, dts) are integers in units of `tick` seconds.

    `origin`, in seconds on that clock, is time 0. `rate`, in pictures per second, stands in for timestamps
    where there are none.
    """

    def __init__(self, tick: Fraction, origin: Fraction, rate: Fraction) -> None:
        # seconds(pts) = (pts * numerator - offset) / denominator, in integers: rounded once, and correctly.
        self._denominator = math.lcm(tick.denominator, origin.denominator)
        self._numerator = tick.numerator * (self._denominator // tick.denominator)
        self._offset = origin.numerator * (self._denominator // origin.denominator)
        self._period = float(1 / rate)  # seconds
        self._frame = max(1, round(1 / (rate * tick)))  # ticks
        self._restart = math.ceil(RESTART / tick)  # ticks
        self._shift = 0  # ticks
        self._next_dts: int | None = None
        self._last: float | None = None

    def seconds(self, pts: int) -> float:
        """The time of a timestamp; negative before the origin."""
        return (pts * self._numerator - self._offset) / self._denominator

    def timestamp(self, seconds: float) -> int:
        """The last timestamp that is not after a time."""
        return math.floor((Fraction(seconds) * self._denominator + self._offset) / self._numerator)

    def picture(self, pts: int | None, dts: int | None) -> float:
        """The time of the next decoded picture, in the order they are shown.

        Without a presentation timestamp it is the decoding time of the packet that released the picture (they
        differ by a constant), and without either, one picture period after the picture before.
        """
        stamp = dts if pts is None else pts
        if stamp is not None:
            self._last = self.seconds(stamp)
        else:
            self._last = 0.0 if self._last is None else self._last + self._period
        return self._last

    def shift(self, dts: int | None, duration: int | None) -> int:
        """The ticks to add to the timestamps of the next packet in the file; `duration` in ticks, if known.

        Where recordings were joined the clock starts anew. Decoding times only ever rise, so where they fall
        back, what follows is moved to where the part before ended.
        """
        if dts is None:
            return self._shift
        if self._next_dts is not None and self._next_dts - (dts + self._shift) > self._restart:
            self._shift = self._next_dts - dts
        self._next_dts = dts + self._shift + (duration or self._frame)
        return self._shift
