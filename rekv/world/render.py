"""Pictures of a scene: at the world's own 48 x 48 pixels, as the built-in model was trained on, or larger."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from rekv.core import Frame, Image
from rekv.errors import ConfigError
from rekv.world.event import Event
from rekv.world.scene import NOISES, Background, Scene
from rekv.world.shapes import CARD, CARD_HEIGHT, CARD_WIDTH, SIDE, Float, digit_mask, shape_mask

_NOISE = 2.5  # standard deviation of the sensor's noise, of 255
_NOISE_SEED = 123  # the sensor is the same in every scene
_DARK_INK, _LIGHT_INK = 20.0, 250.0


class Renderer:
    """Draws a scene with `scale` pixels per pixel of the world: larger pictures are sharper, nothing else.

    At scale 1 things move in whole pixels and only whole times are the world's frames; at larger scales
    a time between two frames shows the movement between them.
    """

    def __init__(self, scene: Scene, scale: int = 1) -> None:
        if scale < 1:
            raise ConfigError(f"scale is {scale}; it must be at least 1 (pixels per pixel of the world)")
        self.scene = scene
        self.scale = scale
        self._background = _background(scene.background, scale)

    def picture(self, time: float) -> Image:
        """Return what the camera sees: uint8 RGB of shape (48 * scale, 48 * scale, 3).

        `time` is in frames. Raises `ConfigError` if it is outside the scene.
        """
        if not 0 <= time < self.scene.n_frames:
            raise ConfigError(f"time is {time}; it must be at least 0 and below {self.scene.n_frames} (frames)")
        noise = _enlarged(_noise()[self.scene.noise[int(time)]], self.scale)
        canvas = self._background + noise
        for event in self.scene.visible(time):
            self._paint(canvas, event, time)
        picture: Image = np.clip(canvas, 0, 255).astype(np.uint8)
        return picture

    def _paint(self, canvas: Float, event: Event, time: float) -> None:
        paint, cover = _sprite(event, self.scale)
        height, width = cover.shape[:2]
        x, y = event.position(time)
        left = round(x * self.scale) - width // self.scale // 2 * self.scale
        top = round(y * self.scale) - height // self.scale // 2 * self.scale
        rows = slice(max(0, -top), min(height, len(canvas) - top))
        columns = slice(max(0, -left), min(width, len(canvas) - left))
        behind = canvas[max(0, top) : top + height, max(0, left) : left + width]
        behind[:] = behind * (1 - cover[rows, columns]) + paint[rows, columns]


def frames(scene: Scene) -> Iterator[Frame]:
    """Yield the scene's frames in the world's own size, one a second, one picture in memory at a time."""
    renderer = Renderer(scene)
    for time in range(scene.n_frames):
        yield Frame(renderer.picture(time), float(time))


def render_clip(scene: Scene) -> Image:
    """Return all pictures of a short scene at once: uint8 of shape (n_frames, 48, 48, 3)."""
    renderer = Renderer(scene)
    return np.stack([renderer.picture(time) for time in range(scene.n_frames)])


@lru_cache(maxsize=64)
def _sprite(event: Event, scale: int) -> tuple[Float, Float]:
    """Return a thing's colour times its cover (height, width, 3) and the cover (height, width, 1), 0 to 1."""
    rgb = np.array(event.rgb, np.float32)
    if event.kind != CARD:
        cover = shape_mask(event.kind, event.size, scale)
        return rgb * cover, cover
    digit = digit_mask(event.digit, scale)
    ink = np.float32(_DARK_INK if rgb.mean() > 110 else _LIGHT_INK)
    cover = np.ones((CARD_HEIGHT * scale, CARD_WIDTH * scale, 1), np.float32)
    return rgb * (1 - digit) + ink * digit, cover


@lru_cache(maxsize=1)
def _noise() -> Float:
    shape = (NOISES, SIDE, SIDE, 1)
    return np.random.default_rng(_NOISE_SEED).normal(0, _NOISE, shape).astype(np.float32)


def _background(background: Background, scale: int) -> Float:
    side = SIDE * scale
    edge = 0.5 + (1 - 1 / scale) / (2 * (SIDE - 1))  # the slope spans the centres of the world's outer pixels
    ramp = np.linspace(-edge, edge, side, dtype=np.float32)
    down, right = background.slope
    picture = np.empty((side, side, 3), np.float32)
    picture[:] = background.color
    picture += ramp[:, None, None] * np.float32(down) + ramp[None, :, None] * np.float32(right)
    for patch in background.patches:
        rows = slice(max(patch.y, 0) * scale, (patch.y + patch.height) * scale)
        columns = slice(max(patch.x, 0) * scale, (patch.x + patch.width) * scale)
        picture[rows, columns] = patch.color
    picture += _enlarged(background.texture, scale)
    return picture.clip(0, 255)


def _enlarged(pattern: Float, scale: int) -> Float:
    return pattern.repeat(scale, 0).repeat(scale, 1)
