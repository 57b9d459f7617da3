import numpy as np
import pytest
from numpy.typing import NDArray

from rekv.core import Image
from rekv.errors import ConfigError
from rekv.world import Event, Renderer, Scene, frames, needle_stream, render_clip
from rekv.world.shapes import CARD, COLORS, KINDS, PALETTE, SHAPES, SIDE, SIZES, digit_mask, shape_mask

SEEDS = range(15)


def scene(seed: int, n_frames: int = 16) -> Scene:
    return Scene.draw(np.random.default_rng(seed), n_frames)


def nearest_color(pixels: NDArray[np.uint8]) -> str:
    distance = np.abs(pixels.reshape(-1, 3).mean(0) - np.array([PALETTE[color] for color in COLORS])).sum(1)
    return COLORS[int(distance.argmin())]


def ink(image: Image, event: Event, time: float, scale: int = 1) -> NDArray[np.uint8]:
    """A patch of the picture that lies on the thing: its centre, or a ring's or card's side."""
    x, y = event.position(time)
    if event.kind == "ring":
        x += 0.78 * (6 if event.size == "small" else 9)
    if event.kind == CARD:
        x -= 6
    column, row = round(x * scale + scale / 2 - 0.5), round(y * scale + scale / 2 - 0.5)
    return image[max(row, 0) : row + 1, max(column, 0) : column + 1]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", [1, 8])
def test_things_are_where_they_should_be_in_their_color(seed: int, scale: int) -> None:
    drawn = scene(seed)
    renderer = Renderer(drawn, scale)
    for frame in range(drawn.n_frames):
        image = renderer.picture(frame)
        assert image.shape == (SIDE * scale, SIDE * scale, 3)
        for event in drawn.visible(frame):
            assert nearest_color(ink(image, event, frame, scale)) == event.color


def test_a_stream_has_the_same_pictures_as_a_batch() -> None:
    stream = needle_stream(np.random.default_rng(3), 160)
    streamed = list(stream.frames())
    assert [frame.time for frame in streamed] == list(range(160))
    assert np.array_equal(np.stack([frame.image for frame in streamed]), render_clip(stream.scene))


def test_a_stream_is_drawn_one_picture_at_a_time() -> None:
    endless = Scene.draw(np.random.default_rng(0), 100_000, events=())
    first = next(frames(endless))
    assert first.image.shape == (SIDE, SIDE, 3)
    assert np.array_equal(first.image, Renderer(endless).picture(0))


def test_an_empty_scene_is_its_background_with_noise() -> None:
    empty = Scene.draw(np.random.default_rng(5), 40, events=())
    pictures = render_clip(empty).astype(float)
    assert 1.5 < pictures.std(0).mean() < 3.5
    assert pictures.std((1, 2)).mean() > 3, "there is something to see"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_larger_picture_shows_the_same(seed: int) -> None:
    drawn = scene(seed, 6)
    small, large = Renderer(drawn), Renderer(drawn, 4)
    for frame in range(6):
        shrunk = large.picture(frame).reshape(SIDE, 4, SIDE, 4, 3).mean((1, 3))
        in_between = any(event.moves for event in drawn.visible(frame))  # there it is not in whole pixels
        assert np.abs(shrunk - small.picture(frame)).mean() < (3 if in_between else 1)


def test_movement_between_two_frames_is_drawn_at_a_larger_scale() -> None:
    event = Event("square", "red", "large", 0, "left", "right", (215, 35, 35), (0, 0), start=0, stop=3)
    renderer = Renderer(Scene.draw(np.random.default_rng(0), 3, [event]), 4)
    centers = []
    for time in (0, 0.25, 0.5, 1, 2, 2.75):
        red = renderer.picture(time).astype(int)
        centers.append(np.nonzero(red[..., 0] - red[..., 2] > 120)[1].mean() / 4 - 0.375)
    assert centers == pytest.approx([10, 13.375, 16.75, 23.5, 37, 37], abs=0.2)


def test_shapes_and_digits_are_told_apart() -> None:
    masks = [shape_mask(kind, "large", 2) for kind in SHAPES]
    digits = [digit_mask(digit) for digit in range(10)]
    for group in (masks, digits):
        for i, one in enumerate(group):
            assert all(np.abs(one - other).mean() > 0.02 for other in group[:i])
    assert all(shape_mask(kind, "large").sum() > 1.5 * shape_mask(kind, "small").sum() for kind in SHAPES)


def test_a_cached_mask_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        shape_mask("circle", "small")[:] = 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_thing_may_reach_over_the_edge(kind: str, size: str) -> None:
    event = Event(kind, "white", size, 8, "top", "top", (248, 248, 248), (0, -9), start=0, stop=2)
    picture = Renderer(Scene.draw(np.random.default_rng(0), 2, [event])).picture(0)
    assert picture.shape == (SIDE, SIDE, 3)
    assert picture[:12].max() > 230
    assert picture[24:].max() < 230


def test_a_dark_card_has_light_ink_and_a_light_card_dark_ink() -> None:
    for color, ink_level in (("red", 250), ("yellow", 20)):
        event = Event(CARD, color, "small", 1, "center", "center", PALETTE[color], (0, 0), start=0, stop=2)
        picture = Renderer(Scene.draw(np.random.default_rng(0), 2, [event])).picture(0)
        assert picture[24, 24].tolist() == [ink_level] * 3


@pytest.mark.parametrize("time", [-1, 16, 16.5])
def test_a_time_outside_the_scene_is_refused(time: float) -> None:
    with pytest.raises(ConfigError, match="below 16"):
        Renderer(scene(0)).picture(time)


def test_a_scale_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="scale is 0"):
        Renderer(scene(0), 0)
