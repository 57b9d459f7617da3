"""Which pictures of a video are read: a rule on their timestamps alone."""

import math

from rekv.errors import ConfigError

MAX_SAMPLE_FPS = 1000.0
TOLERANCE = 1e-6  # seconds; finer than any camera, coarser than the rounding of containers' clocks


class Sampler:
    """Takes the first picture at or after `start + k / sample_fps`, for k = 0, 1, 2, ...

    Indices and nominal frame rates play no part, so variable frame rates and gaps need no special case. A
    picture is taken at most once: where pictures are rarer than samples, each comes once and the grid stays.
    Pictures are offered in the order they are shown. One that is not later than the last one taken, as where
    timestamps repeat or go backwards, is not taken.

    With `after`, sampling goes on where it was interrupted: what is taken is what would be taken without it,
    as far as it is later than that time. Pictures from `wanted` on must be offered, also those up to `after`,
    for they decide whether a later one is the first at or after its sample.
    """

    def __init__(
        self, sample_fps: float, start: float = 0.0, end: float | None = None, after: float | None = None
    ) -> None:
        """`sample_fps` in pictures per second; `start`, `end` (exclusive; None = to the end), `after` in seconds.

        Raises ConfigError if one of them is out of range.
        """
        if not 0 < sample_fps <= MAX_SAMPLE_FPS:
            raise ConfigError(
                f"sample_fps is {sample_fps}; it must be above 0 and at most {MAX_SAMPLE_FPS:g} (frames per second)"
            )
        if not 0 <= start < math.inf:
            raise ConfigError(f"start is {start}; it must be a time in the video, in seconds from 0")
        if end is not None and not end > start:
            raise ConfigError(f"end is {end}; it must be after start ({start})")
        if after is not None and not 0 <= after < math.inf:
            raise ConfigError(f"after is {after}; it must be a time in the video, in seconds from 0")
        self._fps = sample_fps
        self._start = start
        self._end = math.inf if end is None else end - TOLERANCE
        self._after = -math.inf if after is None else after
        self._taken = -math.inf  # seconds: the last picture taken
        # Seconds: pictures before this time will not be taken.
        self.wanted = start if after is None else self._sample(max(self._index(after), 0))
        self.done = self.wanted >= self._end  # no more pictures will be taken

    def take(self, time: float) -> bool:
        """Say whether the picture shown at `time` (seconds) is taken."""
        self.done = self.done or time >= self._end
        if self.done or time < self.wanted - TOLERANCE or time <= self._taken:
            return False
        self.wanted = self._sample(self._index(time) + 1)
        self._taken = time
        self.done = self.wanted >= self._end
        return time > self._after

    def _index(self, time: float) -> int:
        """The last sample at or before a time."""
        return math.floor((time - self._start + TOLERANCE) * self._fps)

    def _sample(self, k: int) -> float:
        """The time of sample k, in seconds."""
        return self._start + k / self._fps
