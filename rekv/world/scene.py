"""A scene: a still background, noise of the camera's sensor, and what happens in front of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rekv.errors import ConfigError
from rekv.world.event import Event, draw_timeline
from rekv.world.shapes import SIDE, Float

NOISES = 64  # different noise patterns of the sensor


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle of the background, in the world's pixels; it may reach over the left and upper edge."""

    x: int
    y: int
    width: int
    height: int
    color: NDArray[np.float64]  # (3,)


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """What the camera sees when nothing happens. Colours are RGB, 0..255."""

    color: NDArray[np.float64]  # (3,)
    slope: tuple[float, float]  # difference of brightness from top to bottom, and from left to right
    patches: tuple[Patch, ...]
    texture: Float  # (SIDE, SIDE, 1), added to every channel


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that decides a scene's pictures. The world's clock: one frame a second."""

    n_frames: int
    events: tuple[Event, ...]  # later ones are drawn over earlier ones
    background: Background
    noise: NDArray[np.int64]  # (n_frames,) which noise pattern each frame has

    def __post_init__(self) -> None:
        if self.n_frames < 1:
            raise ConfigError(f"n_frames is {self.n_frames}; a scene has at least 1 (frames)")

    @classmethod
    def draw(cls, rng: np.random.Generator, n_frames: int, events: Iterable[Event] | None = None) -> Self:
        """Draw a scene of `n_frames` frames; of these events, or of a random timeline."""
        events = draw_timeline(rng, n_frames) if events is None else tuple(events)
        return cls(n_frames, events, draw_background(rng), rng.integers(0, NOISES, n_frames))

    def visible(self, time: float) -> tuple[Event, ...]:
        """Return what is on screen at this time, in frames, in drawing order."""
        return self._by_frame.get(int(time), ())

    @cached_property
    def _by_frame(self) -> dict[int, tuple[Event, ...]]:
        found: dict[int, tuple[Event, ...]] = {}
        for event in self.events:
            for frame in range(max(event.start, 0), min(event.stop, self.n_frames)):
                found[frame] = (*found.get(frame, ()), event)
        return found


def draw_background(rng: np.random.Generator) -> Background:
    color = rng.uniform(25, 150) * np.ones(3) + rng.uniform(-18, 18, 3)
    slope = (rng.uniform(-22, 22), rng.uniform(-22, 22))
    patches = tuple(_draw_patch(rng, color) for _ in range(int(rng.integers(1, 5))))
    texture = rng.normal(0, 2, (SIDE, SIDE, 1)).astype(np.float32)
    return Background(color, slope, patches, texture)


def _draw_patch(rng: np.random.Generator, base: NDArray[np.float64]) -> Patch:
    x, y = rng.integers(-6, SIDE - 6, 2)
    width, height = rng.integers(5, 26, 2)
    color = base + rng.uniform(-30, 30) + rng.uniform(-12, 12, 3)
    return Patch(int(x), int(y), int(width), int(height), color)
