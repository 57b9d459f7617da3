from itertools import combinations

import numpy as np
import pytest

from rekv.world import Scene
from rekv.world.background import BACKGROUNDS, HELD_OUT, Background, draw_background, view
from rekv.world.families import FAMILIES
from rekv.world.shapes import HEIGHT, INPUT, WALL, WIDTH, Float

SEEDS = range(8)


def pixels(family: str, seed: int, wall: bool = False) -> Float:
    return view(Background(family, seed, wall), INPUT, INPUT).pixels


def test_a_seed_decides_the_background() -> None:
    assert draw_background(np.random.default_rng(3)) == draw_background(np.random.default_rng(3))
    background = Background("yard", 5, True)
    first = view(background, INPUT, INPUT).pixels
    view.cache_clear()
    assert np.array_equal(first, view(background, INPUT, INPUT).pixels)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_of_a_family_differ_clearly(family: str) -> None:
    for one, other in combinations([pixels(family, seed) for seed in range(5)], 2):
        assert np.abs(one - other).mean() > 7


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("wall", [False, True])
def test_backgrounds_are_grayish_and_neither_dark_nor_blank(family: str, wall: bool) -> None:
    for seed in SEEDS:
        shown = pixels(family, seed, wall)
        assert 60 < shown.mean() < 190
        assert shown.std((1, 2)).min() > 12
        spread = shown.max(0) - shown.min(0)
        assert np.quantile(spread, 0.99) < 75, "a palette's colour has 145 or more"


def test_a_held_out_family_is_never_drawn_for_known_scenes() -> None:
    families = [Scene.draw(np.random.default_rng(seed), 4).background.family for seed in range(300)]
    assert set(families) == set(BACKGROUNDS["known"]) == set(FAMILIES) - set(HELD_OUT)
    assert len(BACKGROUNDS["known"]) == 5
    held_out = [draw_background(np.random.default_rng(seed), backgrounds="held_out").family for seed in range(30)]
    assert set(held_out) == set(HELD_OUT)


def test_about_half_have_a_wall_unless_it_is_asked_for() -> None:
    walls = [draw_background(np.random.default_rng(seed)).wall for seed in range(400)]
    assert 0.4 < np.mean(walls) < 0.6
    for wall in (True, False):
        assert all(draw_background(np.random.default_rng(seed), wall=wall).wall == wall for seed in SEEDS)


@pytest.mark.parametrize("size", [(INPUT, INPUT), (640, 480)])
def test_a_wall_covers_what_it_must_and_little_more(size: tuple[int, int]) -> None:
    x = (np.arange(size[0]) + 0.5) * WIDTH / size[0]
    y = (np.arange(size[1]) + 0.5) * HEIGHT / size[1]
    left, top, right, bottom = WALL
    for seed in SEEDS:
        wall = view(Background("street", seed, True), *size).wall
        assert wall is not None
        assert wall.shape == size[::-1]
        must = ((x > left) & (x < right))[None, :] & ((y > top) & (y < bottom))[:, None]
        assert wall[must].min() == 1
        assert wall[:, (x < left - 2) | (x > right + 2)].max() == 0
        assert wall[y > bottom + 2].max() == 0


def test_a_wall_is_seen() -> None:
    left, top, right, bottom = WALL
    for family in FAMILIES:
        without, with_wall = (pixels(family, 1, wall) for wall in (False, True))
        rows = slice(top * INPUT // HEIGHT, bottom * INPUT // HEIGHT)
        assert np.abs(without - with_wall)[:, rows, left:right].mean() > 7
        assert view(Background(family, 1), INPUT, INPUT).wall is None


def test_a_cached_view_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        pixels("room", 0)[:] = 0
