"""Pictures of a scene: as small as the model sees them, or as large as a camera's."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from rekv.core import Frame, Image
from rekv.errors import ConfigError
from rekv.world.background import view
from rekv.world.event import Event
from rekv.world.light import lamps, light
from rekv.world.overlay import Clock
from rekv.world.scene import NOISES, Scene
from rekv.world.shapes import CARD, HEIGHT, INPUT, WIDTH, Float, frozen
from rekv.world.sprite import has_dark_ink, sprite

_NOISE = 2.5  # standard deviation of the sensor's noise, of 255
_NOISE_SEED = 123  # the sensor is the same in every scene
_NOISE_STEP = 7  # pixels between two of its patterns, which are parts of a larger one
_SIDES = 8  # patterns in a row
_FINEST = 4  # pixels per unit, from which on things are put at whole pixels
_PHASES = 4  # below that, positions within a pixel
_CAST = 0.55  # share of the light's colour that things take on: theirs must be told by night, too


class Renderer:
    """Draws a scene in any size; the world is 64 x 48 units, and other shapes than 4:3 show it squashed.

    A time between two frames shows the movement between them.
    """

    def __init__(self, scene: Scene, width: int = INPUT, height: int = INPUT) -> None:
        """`width` and `height` in pixels. Raises `ConfigError` if one is below 1."""
        if min(width, height) < 1:
            raise ConfigError(f"the picture's size is {width} x {height}; both must be at least 1 (pixels)")
        self.scene = scene
        self.width, self.height = width, height
        self._scale = (width / WIDTH, height / HEIGHT)
        self._view = view(scene.background, width, height)
        self._clock = Clock(width, height)

    def picture(self, time: float) -> Image:
        """Return what the camera sees: uint8 RGB of shape (height, width, 3).

        `time` is in frames. Raises `ConfigError` if it is outside the scene.
        """
        if not 0 <= time < self.scene.n_frames:
            raise ConfigError(f"time is {time}; it must be at least 0 and below {self.scene.n_frames} (frames)")
        picture: Image = self.pictures([time])[0]
        return picture

    def pictures(self, times: Sequence[float]) -> Image:
        """Return what the camera sees at these times, in frames: uint8 of shape (n, height, width, 3)."""
        minutes = [self.scene.minute(time) for time in times]
        colors, shine = light(minutes), lamps(minutes)
        canvases = self._view.pixels * colors[:, :, None, None]
        if self._view.glow is not None and shine.any():
            canvases += self._view.glow * shine[:, None, None, None]
            np.minimum(canvases, 255, out=canvases)
        for canvas, time, minute, color in zip(canvases, times, minutes, colors, strict=True):
            for event in self.scene.visible(time):
                self._paint(canvas, event, time, color)
            canvas += _noise(self.width, self.height, int(self.scene.noise[int(time)]))
            self._clock.write(canvas, minute)
        planes = canvases.clip(0, 255, out=canvases).astype(np.uint8)
        pictures: Image = np.empty((len(times), self.height, self.width, 3), np.uint8)
        for channel in range(3):
            pictures[..., channel] = planes[:, channel]
        return pictures

    def _paint(self, canvas: Float, event: Event, time: float, color: Float) -> None:
        (column, phase_x), (row, phase_y) = (
            _pixel(at * scale, scale) for at, scale in zip(event.position(time), self._scale, strict=True)
        )
        card = event.kind == CARD
        digit, ink, size = (event.digit, has_dark_ink(event.rgb), "") if card else (0, False, event.size)
        thing = sprite(event.kind, size, digit, ink, self._scale, (phase_x, phase_y))
        height, width = thing.keep.shape
        left, top = column - thing.column, row - thing.row
        rows = slice(max(0, -top), min(height, self.height - top))
        columns = slice(max(0, -left), min(width, self.width - left))
        place = (slice(max(0, top), max(0, top + height)), slice(max(0, left), max(0, left + width)))
        behind = canvas[:, *place]
        color = color * np.float32(_CAST) + color.sum() * np.float32((1 - _CAST) / 3)
        rgb = np.array(event.rgb, np.float32) * color
        painted = behind * thing.keep[rows, columns]
        painted += rgb[:, None, None] * thing.tint[rows, columns]
        painted += color[:, None, None] * thing.add[rows, columns]
        if event.path == "hide" and self._view.wall is not None:
            painted += (behind - painted) * self._view.wall[place]
        behind[:] = painted


def frames(scene: Scene, width: int = INPUT, height: int = INPUT) -> Iterator[Frame]:
    """Yield the scene's frames, one a second and one picture in memory at a time; by default as the model sees them."""
    renderer = Renderer(scene, width, height)
    for time in range(scene.n_frames):
        yield Frame(renderer.picture(time), float(time))


def render_clip(scene: Scene) -> Image:
    """Return all pictures of a short scene at once, as the model sees them: uint8 of shape (n_frames, 64, 64, 3)."""
    return Renderer(scene).pictures(range(scene.n_frames))


def _pixel(at: float, scale: float) -> tuple[int, float]:
    """Return the pixel that a position, in pixels, lies in, and where in it: 0 at its edge, below 1."""
    if scale >= _FINEST:
        return round(at), 0.0
    steps = round(at * _PHASES)
    return steps // _PHASES, steps % _PHASES / _PHASES


def _noise(width: int, height: int, pattern: int) -> Float:
    down, right = divmod(pattern, _SIDES)
    rows, columns = slice(down * _NOISE_STEP, None), slice(right * _NOISE_STEP, None)
    return _all_noise(width, height)[rows, columns][:height, :width]


@lru_cache(maxsize=4)
def _all_noise(width: int, height: int) -> Float:
    margin = _NOISE_STEP * (NOISES // _SIDES)
    noise = np.random.default_rng(_NOISE_SEED).standard_normal((height + margin, width + margin), np.float32)
    return frozen(noise * np.float32(_NOISE))
