from collections.abc import Callable

import numpy as np
import pytest

from rekv.errors import ConfigError
from rekv.world.event import Event, draw_event, draw_timeline, seen
from rekv.world.scene import Scene
from rekv.world.shapes import CARD, COLORS, KINDS, PLACES

SEEDS = range(30)


def timeline(seed: int, n_frames: int = 60, forbidden: Callable[[Event], bool] | None = None) -> tuple[Event, ...]:
    rng = np.random.default_rng(seed)
    return draw_timeline(rng, n_frames, forbidden) if forbidden else draw_timeline(rng, n_frames)


def test_a_seed_decides_everything() -> None:
    one, other = (Scene.draw(np.random.default_rng(7), 40) for _ in range(2))
    assert one.events == other.events
    assert np.array_equal(one.noise, other.noise)
    assert np.array_equal(one.background.texture, other.background.texture)
    assert one.events != Scene.draw(np.random.default_rng(8), 40).events


@pytest.mark.parametrize("seed", SEEDS)
def test_a_timeline_is_never_crowded(seed: int) -> None:
    events = timeline(seed)
    for frame in range(60):
        together = [event for event in events if event.visible(frame)]
        assert len(together) <= 2
        if len(together) == 2:
            assert together[0].origin != together[1].origin, "they would cover each other"
            assert not any(event.moves for event in together)


@pytest.mark.parametrize("seed", SEEDS)
def test_things_last_long_enough_to_be_seen(seed: int) -> None:
    for event in timeline(seed):
        assert event.stop - event.start <= 6
        assert event.stop - event.start >= (3 if event.moves else 1)
        assert event.kind in KINDS
        assert event.color in COLORS


def test_forbidden_things_never_happen() -> None:
    events = [
        event for seed in SEEDS for event in timeline(seed, forbidden=lambda e: e.kind == "ring" or e.color == "red")
    ]
    assert len(events) > 100
    assert not [event for event in events if event.kind == "ring" or event.color == "red"]


def test_every_kind_color_and_place_occurs() -> None:
    events = [event for seed in SEEDS for event in timeline(seed)]
    assert {event.kind for event in events} == set(KINDS)
    assert {event.color for event in events} == set(COLORS)
    assert {event.origin for event in events} == set(PLACES)
    assert 0.25 < np.mean([event.moves for event in events]) < 0.45
    assert {event.digit for event in events if event.kind == CARD} == set(range(10))


def test_a_moving_thing_goes_from_its_origin_to_its_target() -> None:
    event = Event("ring", "red", "small", 0, "left", "top", (215, 35, 35), (1, -2), start=10, stop=15)
    assert event.position(10) == (PLACES["left"][0] + 1, PLACES["left"][1] - 2)
    assert event.position(12) == (17 + 1, 17 - 2), "half way"
    assert event.position(14) == (PLACES["top"][0] + 1, PLACES["top"][1] - 2)
    assert event.position(14.9) == event.position(14), "it waits until it disappears"


def test_a_drawn_thing_can_have_a_given_kind_and_color() -> None:
    event = draw_event(np.random.default_rng(0), "heart", "cyan")
    assert event.name == "cyan heart"


def test_only_what_the_frames_show_is_seen() -> None:
    event = draw_event(np.random.default_rng(0))
    before, first, last, after = (event.during(*times) for times in ((-3, 0), (-3, 1), (9, 12), (10, 12)))
    assert seen([before, first, last, after], 10) == (first, last)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_scene_knows_what_is_visible(seed: int) -> None:
    scene = Scene.draw(np.random.default_rng(seed), 30)
    for frame in range(30):
        expected = tuple(event for event in scene.events if event.start <= frame < event.stop)
        assert scene.visible(frame) == scene.visible(frame + 0.9) == expected


def test_a_scene_without_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_frames is 0"):
        Scene.draw(np.random.default_rng(0), 0)
