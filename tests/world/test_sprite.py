from itertools import combinations

import numpy as np
import pytest

from rekv.world.shapes import CARD, KINDS, PALETTE, SHAPES, Float
from rekv.world.sprite import DARK_INK, LIGHT_INK, Sprite, has_dark_ink, sprite

SMALL, LARGE = (1.0, 4 / 3), (10.0, 10.0)  # pixels per unit: what the model sees, and a film
Scale = tuple[float, float]


def body(thing: Sprite) -> Float:
    """Where the thing's own colour is, without its outline and shadow."""
    return (thing.tint > 0.7).astype(np.float32)


def spread(cover: Float) -> tuple[float, float]:
    """How far the cover is spread across and down (pixels): half the radius of an ellipse."""
    across, down = cover.sum(0), cover.sum(1)
    return (
        float(np.sqrt(np.cov(np.arange(len(across)), aweights=across))),
        float(np.sqrt(np.cov(np.arange(len(down)), aweights=down))),
    )


def test_a_circle_is_round_in_a_film_and_narrow_in_the_models_square() -> None:
    across, down = spread(body(sprite("circle", "large", 0, False, LARGE)))
    assert across == pytest.approx(down, rel=0.01)
    assert across == pytest.approx(0.95 * 8.2 * 10 / 2, rel=0.02)
    across, down = spread(body(sprite("circle", "large", 0, False, SMALL)))
    assert down / across == pytest.approx(4 / 3, rel=0.05)


@pytest.mark.parametrize("scale", [SMALL, LARGE])
def test_a_body_has_a_dark_outline_and_a_shadow_to_the_lower_right(scale: Scale) -> None:
    thing = sprite("square", "large", 0, False, scale)
    row, column = thing.row, thing.column
    across = thing.tint[row]
    edge = int(np.nonzero(across)[0][0])
    assert 0 < across[edge] < 0.7, "the outline is darker than the body"
    assert across[column] > 0.9
    assert thing.keep[row, column] == pytest.approx(0, abs=1e-6), "nothing shines through"
    light = 1 - thing.keep
    light[thing.tint > 0] = 0
    assert light[row:, column:].sum() > 3 * light[:row, :column].sum()
    assert thing.keep[0].min() > 0.98, "the shadow ends within the sprite"
    assert thing.keep[-1].min() > 0.98


def test_every_thing_looks_different_to_the_model() -> None:
    things = [sprite(kind, size, 0, False, SMALL) for kind in SHAPES for size in ("small", "large")]
    middle = slice(-17, None)
    for one, other in combinations(things, 2):
        if one.tint.shape == other.tint.shape:
            assert np.abs(one.tint[middle] - other.tint[middle]).sum() > 10
    assert len({thing.tint.shape for thing in things}) == 2, "small and large"


def test_cards_show_their_digit() -> None:
    cards = [sprite(CARD, "", digit, True, SMALL) for digit in range(10)]
    for one, other in combinations(cards, 2):
        assert (np.abs(one.add - other.add) > 0.5 * DARK_INK).sum() >= 3
        assert np.array_equal(one.keep, other.keep)
    for dark, ink in ((True, DARK_INK), (False, LIGHT_INK)):
        assert sprite(CARD, "", 8, dark, LARGE).add.max() == pytest.approx(ink, rel=1e-4)


def test_ink_differs_from_the_card() -> None:
    dark = {color for color, rgb in PALETTE.items() if has_dark_ink(rgb)}
    assert dark == {"yellow", "orange", "cyan", "white"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_position_within_a_pixel_shifts_the_thing(kind: str) -> None:
    def center(phase: float) -> float:
        thing = sprite(kind, "large", 1, False, SMALL, (phase, 0.0))
        cover = (1 - thing.keep) * (thing.tint > 0)
        return float((cover.sum(0) * np.arange(cover.shape[1])).sum() / cover.sum()) - thing.column

    assert center(0.5) - center(0.0) == pytest.approx(0.5, abs=0.15)


def test_a_cached_sprite_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        sprite("heart", "small", 0, False, SMALL).tint[:] = 0
