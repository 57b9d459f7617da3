"""Pictures to learn from: scenes drawn from a seed, spoilt as cameras and codecs do, with what is in them."""

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from rekv.world import Event, Scene, render_clip
from rekv.world.background import draw_background
from rekv.world.event import draw_event, draw_length
from rekv.world.shapes import COLORS, INPUT, KINDS, PALETTE
from rekv.world.splits import PAIRS
from training.labels import UNSAID, Things, things

_PER_BACKGROUND = 8  # pictures
_NUMBERS = (0.04, 0.16, 0.35, 0.45)  # shares of pictures with none to three things
_DISTANCE = 15.0  # units between the centres of two things, along one axis at least
UNNAMED = ""  # colour
_MUTED = 60  # levels of 255 between a colour's strongest and weakest part, below which backgrounds are like it
_ODD = 0.5  # share of things of a colour without a name, whose kinds are told by their outlines

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pictures:
    """A batch for the vision tower: n pictures and what each should know."""

    images: torch.Tensor  # uint8 (n, INPUT, INPUT, 3)
    things: Things
    seen: torch.Tensor  # float (n, kinds + colours): 1 where there is such a thing, UNSAID where that is not clear
    clock: torch.Tensor  # int64 (n, 4): digits of the clock

    def to(self, device: torch.device) -> "Pictures":
        return Pictures(*(getattr(self, name).to(device) for name in self.__slots__))


def draw_pictures(rng: np.random.Generator, n: int) -> Pictures:
    """Draw n pictures: eight of each background, each with things and an hour of its own.

    Frames of one clip would show the same few things again and again: of as many pictures much less is learned.
    """
    images = np.empty((n, INPUT, INPUT, 3), np.uint8)
    seen = np.zeros((n, len(KINDS) + len(COLORS)), np.float32)
    clock = np.empty((n, 4), np.int64)
    scenes = []
    for i in range(n):
        if i % _PER_BACKGROUND == 0:
            background = draw_background(rng)
        scene = Scene.draw(rng, 1, draw_things(rng, wall=background.wall), background=background)
        scenes.append(scene)
        images[i] = spoil(rng, render_clip(scene))[0]
        clock[i] = [int(digit) for digit in scene.clock(0).replace(":", "")]
        for event in scene.visible(0):
            seen[i, KINDS.index(event.kind)] = 1
            if event.color in COLORS:
                seen[i, len(KINDS) + COLORS.index(event.color)] = 1
        if any(event.color == UNNAMED for event in scene.events):
            seen[i, len(KINDS) :] = UNSAID
    return Pictures(torch.from_numpy(images), things(scenes), torch.from_numpy(seen), torch.from_numpy(clock))


def draw_things(rng: np.random.Generator, *, wall: bool) -> list[Event]:
    """Draw none to three things that are apart from each other, each somewhere on its way."""
    things: list[Event] = []
    for _ in range(int(rng.choice(len(_NUMBERS), p=_NUMBERS))):
        event = _odd(rng, draw_event(rng, wall=wall))
        length = draw_length(rng, event)
        before = int(rng.integers(length))
        event = event.during(-before, length - before)
        if event.visible(0) and all(_apart(event, other) for other in things):
            things.append(event)
    return things


def _odd(rng: np.random.Generator, event: Event) -> Event:
    """Give half of the things a colour without a name: not one, though, that is nearest to one held out of its kind."""
    if rng.random() > _ODD:
        return event
    while True:
        rgb = rng.uniform(20, 250, 3)
        nearest = min(COLORS, key=lambda color: float(np.square(np.subtract(PALETTE[color], rgb)).sum()))
        if np.ptp(rgb) > _MUTED and (nearest, event.kind) in PAIRS["known"]:
            return replace(event, color=UNNAMED, rgb=(float(rgb[0]), float(rgb[1]), float(rgb[2])))


def _apart(one: Event, other: Event) -> bool:
    return any(abs(a - b) > _DISTANCE for a, b in zip(one.position(0), other.position(0), strict=True))


def spoil(rng: np.random.Generator, images: Bytes) -> Bytes:
    """Do to a clip (n, h, w, 3) what cameras, codecs and scaling do: light, noise, blur, blocks. Half stay clean."""
    if rng.random() < 0.5:
        return images
    picture = images.astype(np.float32)
    if rng.random() < 0.6:
        gain = rng.uniform(0.5, 1.15) * rng.uniform(0.93, 1.07, 3)
        picture = picture * gain.astype(np.float32) + np.float32(rng.uniform(-12, 12))
    if rng.random() < 0.4:
        picture = _blurred(picture, float(rng.uniform(0.05, 0.3)))
    if rng.random() < 0.4:
        picture += rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(2, 14))
    spoilt = picture.clip(0, 255).astype(np.uint8)
    return _compressed(spoilt, int(rng.integers(35, 90))) if rng.random() < 0.25 else spoilt


def _blurred(picture: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Mix each pixel with its neighbours above, below, left and right."""
    for axis in (1, 2):
        picture = (1 - 2 * weight) * picture + weight * (np.roll(picture, 1, axis) + np.roll(picture, -1, axis))
    return picture


def _compressed(images: Bytes, quality: int) -> Bytes:
    """Write and read a clip as one tall JPEG."""
    n, height, width, _ = images.shape
    file = io.BytesIO()
    Pillow.fromarray(images.reshape(n * height, width, 3)).save(file, "JPEG", quality=quality)
    with Pillow.open(file) as picture:
        return np.asarray(picture).reshape(n, height, width, 3)
