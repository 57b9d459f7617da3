"""A scene: a camera's fixed view of a place, the time of day, and what happens there."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rekv.errors import ConfigError
from rekv.world.background import Background, draw_background
from rekv.world.event import Event, draw_timeline
from rekv.world.light import DAY
from rekv.world.splits import Split

NOISES = 64  # different noise patterns of the sensor


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that decides a scene's pictures. One frame a second; each is a minute of the world's clock.

    Raises `ConfigError` if there is no frame, no such minute, or a thing that hides where there is no wall.
    """

    n_frames: int
    events: tuple[Event, ...]  # later ones are drawn over earlier ones, and all over those that hide
    background: Background
    noise: NDArray[np.int64]  # (n_frames,) which noise pattern each frame has
    first_minute: int = 12 * 60  # the first frame's minute of the day, 0 to 1439

    def __post_init__(self) -> None:
        if self.n_frames < 1:
            raise ConfigError(f"n_frames is {self.n_frames}; a scene has at least 1 (frames)")
        if not 0 <= self.first_minute < DAY:
            raise ConfigError(f"first_minute is {self.first_minute}; it must be 0 to {DAY - 1} (minutes of the day)")
        if not self.background.wall and _any_hides(self.events):
            raise ConfigError('a thing hides, but the background has no wall; draw one with "wall=True"')

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        n_frames: int,
        events: Iterable[Event] | None = None,
        *,
        background: Background | None = None,
        pairs: Split = "known",
        backgrounds: Split = "known",
    ) -> Self:
        """Draw a scene of `n_frames` frames; of these events, or of a random timeline with things of `pairs`.

        Without a `background` one is drawn from that side of the split, with a wall if an event needs it.
        """
        events = None if events is None else tuple(events)
        if background is None:
            wall = True if events and _any_hides(events) else None
            background = draw_background(rng, wall=wall, backgrounds=backgrounds)
        if events is None:
            events = draw_timeline(rng, n_frames, wall=background.wall, pairs=pairs)
        first_minute = int(rng.integers(DAY))
        return cls(n_frames, events, background, rng.integers(0, NOISES, n_frames), first_minute)

    def minute(self, time: float) -> int:
        """Return the world's minute of the day at this time, in frames: 0 to 1439."""
        return (self.first_minute + int(time)) % DAY

    def clock(self, time: float) -> str:
        """Return what the picture's clock shows at this time, in frames, as "14:05"."""
        return "{:02}:{:02}".format(*divmod(self.minute(time), 60))

    def present(self, time: float) -> tuple[Event, ...]:
        """Return what is there at this time, in frames, in sight or not; in drawing order, what hides comes first."""
        return self._by_frame.get(int(time), ())

    def visible(self, time: float) -> tuple[Event, ...]:
        """Return what is in sight at this time, in frames, in drawing order."""
        return tuple(event for event in self.present(time) if event.visible(time))

    @cached_property
    def _by_frame(self) -> dict[int, tuple[Event, ...]]:
        found: dict[int, tuple[Event, ...]] = {}
        for event in sorted(self.events, key=lambda event: event.path != "hide"):
            for frame in range(max(event.start, 0), min(event.stop, self.n_frames)):
                found[frame] = (*found.get(frame, ()), event)
        return found


def _any_hides(events: Iterable[Event]) -> bool:
    return any(event.path == "hide" for event in events)
