"""Pictures to learn from: scenes drawn from a seed, spoilt as cameras and codecs do, with what is in them."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from rekv.world import Event, Scene, render_clip
from rekv.world.background import draw_background
from rekv.world.event import draw_event, draw_length
from rekv.world.shapes import CARD, COLORS, HEIGHT, INPUT, KINDS, SIZES, WIDTH

GRID = 4  # tokens of a frame, down and across
TOKENS = GRID * GRID
_PER_BACKGROUND = 8  # pictures
_NUMBERS = (0.04, 0.16, 0.35, 0.45)  # shares of pictures with none to three things
_DISTANCE = 15.0  # units between the centres of two things, along one axis at least
_EDGE = 2.0  # units beyond a token in which a thing's centre still counts as its own
MOST_THINGS = 4  # that a frame's labels name
NOTHING = -1
UNSAID = -100  # a label that does not count

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pictures:
    """A batch for the vision tower: n pictures and what each token of them should know."""

    images: torch.Tensor  # uint8 (n, INPUT, INPUT, 3)
    kind: torch.Tensor  # int64 (n, TOKENS); len(KINDS) where nothing's centre is
    color: torch.Tensor  # (n, TOKENS), UNSAID without a thing; so are the next three
    size: torch.Tensor  # UNSAID for a card
    digit: torch.Tensor  # UNSAID but for a card
    place: torch.Tensor  # float (n, TOKENS, 2): centre, -0.5..0.5
    seen: torch.Tensor  # float (n, kinds + colours): 1 where such a thing is in the picture
    clock: torch.Tensor  # int64 (n, 4): digits of the clock


def draw_pictures(rng: np.random.Generator, n: int) -> Pictures:
    """Draw n pictures: eight of each background, each with things and an hour of its own.

    Frames of one clip would show the same few things again and again: of as many pictures much less is learned.
    """
    images = np.empty((n, INPUT, INPUT, 3), np.uint8)
    labels = np.full((n, TOKENS, 4), UNSAID)
    labels[..., 0] = len(KINDS)
    place = np.zeros((n, TOKENS, 2), np.float32)
    seen = np.zeros((n, len(KINDS) + len(COLORS)), np.float32)
    clock = np.empty((n, 4), np.int64)
    for i in range(n):
        if i % _PER_BACKGROUND == 0:
            background = draw_background(rng)
        scene = Scene.draw(rng, 1, _things(rng, wall=background.wall), background=background)
        images[i] = spoil(rng, render_clip(scene))[0]
        clock[i] = [int(digit) for digit in scene.clock(0).replace(":", "")]
        for event in scene.visible(0):
            x, y = event.position(0)
            tokens = _tokens(x, y)
            labels[i, tokens] = (
                KINDS.index(event.kind),
                COLORS.index(event.color),
                UNSAID if event.kind == CARD else SIZES.index(event.size),
                event.digit if event.kind == CARD else UNSAID,
            )
            place[i, tokens] = x / WIDTH - 0.5, y / HEIGHT - 0.5
            seen[i, [KINDS.index(event.kind), len(KINDS) + COLORS.index(event.color)]] = 1
    return Pictures(
        torch.from_numpy(images),
        kind=torch.from_numpy(labels[..., 0]),
        color=torch.from_numpy(labels[..., 1]),
        size=torch.from_numpy(labels[..., 2]),
        digit=torch.from_numpy(labels[..., 3]),
        place=torch.from_numpy(place),
        seen=torch.from_numpy(seen),
        clock=torch.from_numpy(clock),
    )


def _things(rng: np.random.Generator, *, wall: bool) -> list[Event]:
    """Draw none to three things that are apart from each other, each somewhere on its way."""
    things: list[Event] = []
    for _ in range(int(rng.choice(len(_NUMBERS), p=_NUMBERS))):
        event = draw_event(rng, wall=wall)
        length = draw_length(rng, event)
        before = int(rng.integers(length))
        event = event.during(-before, length - before)
        if event.visible(0) and all(_apart(event, other) for other in things):
            things.append(event)
    return things


def _apart(one: Event, other: Event) -> bool:
    return any(abs(a - b) > _DISTANCE for a, b in zip(one.position(0), other.position(0), strict=True))


def _tokens(x: float, y: float) -> list[int]:
    """Return the token that a centre lies in, and those at whose edge it lies."""
    rows, columns = (
        [i for i in range(GRID) if i * step - _EDGE <= at < (i + 1) * step + _EDGE]
        for at, step in ((y, HEIGHT / GRID), (x, WIDTH / GRID))
    )
    return [row * GRID + column for row in rows for column in columns]


def contents(scene: Scene) -> Numbers:
    """Return (kind, colour) of what each frame shows: (n_frames, MOST_THINGS, 2), NOTHING for the rest."""
    found = np.full((scene.n_frames, MOST_THINGS, 2), NOTHING)
    for frame in range(scene.n_frames):
        for i, event in enumerate(scene.visible(frame)[:MOST_THINGS]):
            found[frame, i] = KINDS.index(event.kind), COLORS.index(event.color)
    return found


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
