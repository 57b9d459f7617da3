import re

import numpy as np
import pytest

from rekv.errors import ConfigError
from rekv.world import Event, Scene
from rekv.world.background import Background

SEEDS = range(30)


def hiding(start: int = 0) -> Event:
    event = Event("circle", "red", "small", 0, "left", "right", (215, 35, 35), (1, -1), path="hide")
    return event.during(start, start + 6)


def test_a_seed_decides_everything() -> None:
    one, other = (Scene.draw(np.random.default_rng(7), 40) for _ in range(2))
    assert one.events == other.events
    assert one.background == other.background
    assert one.first_minute == other.first_minute
    assert np.array_equal(one.noise, other.noise)
    assert one.events != Scene.draw(np.random.default_rng(8), 40).events


def test_a_frame_is_a_minute_of_the_clock() -> None:
    scene = Scene(200, (), Background("room", 0), np.zeros(200, int), first_minute=22 * 60 + 58)
    assert [scene.clock(frame) for frame in (0, 1, 2, 61, 62, 199)] == [
        "22:58",
        "22:59",
        "23:00",
        "23:59",
        "00:00",
        "02:17",
    ]
    assert scene.clock(61.9) == "23:59"
    assert [scene.minute(frame) for frame in (0, 62)] == [1378, 0]


def test_scenes_begin_at_any_time_of_the_day() -> None:
    clocks = [Scene.draw(np.random.default_rng(seed), 4).clock(0) for seed in range(300)]
    assert all(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", clock) for clock in clocks)
    assert {int(clock[:2]) for clock in clocks} == set(range(24))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_scene_knows_what_is_visible(seed: int) -> None:
    scene = Scene.draw(np.random.default_rng(seed), 30)
    for frame in range(30):
        there = {event for event in scene.events if event.start <= frame < event.stop}
        assert set(scene.present(frame)) == there
        for time in (frame, frame + 0.9):
            assert set(scene.visible(time)) == {event for event in there if event.visible(time)}


def test_what_hides_is_drawn_first() -> None:
    staying = Event("star", "blue", "small", 0, "center", "center", (45, 75, 225), (0, 0), start=0, stop=6)
    scene = Scene.draw(np.random.default_rng(0), 8, [staying, hiding()])
    assert [event.path for event in scene.visible(0)] == ["hide", "stay"]
    assert scene.visible(3) == (staying,)
    assert [event.path for event in scene.present(3)] == ["hide", "stay"]


def test_a_thing_that_hides_gets_a_wall() -> None:
    assert all(Scene.draw(np.random.default_rng(seed), 8, [hiding()]).background.wall for seed in SEEDS)
    walls = {Scene.draw(np.random.default_rng(seed), 8, []).background.wall for seed in SEEDS}
    assert walls == {True, False}
    with pytest.raises(ConfigError, match="no wall"):
        Scene.draw(np.random.default_rng(0), 8, [hiding()], background=Background("room", 0, False))


def test_things_hide_only_where_there_is_a_wall() -> None:
    scenes = [Scene.draw(np.random.default_rng(seed), 60) for seed in range(60)]
    hides = {scene.background.wall: 0 for scene in scenes}
    for scene in scenes:
        hides[scene.background.wall] += sum(event.path == "hide" for event in scene.events)
    assert hides[True] > 20
    assert hides[False] == 0


def test_a_background_can_be_given() -> None:
    background = Background("harbour", 3, True)
    assert Scene.draw(np.random.default_rng(0), 8, background=background).background is background


def test_a_scene_without_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_frames is 0"):
        Scene.draw(np.random.default_rng(0), 0)


@pytest.mark.parametrize("minute", [-1, 1440])
def test_a_minute_outside_the_day_is_refused(minute: int) -> None:
    with pytest.raises(ConfigError, match=f"first_minute is {minute}"):
        Scene(4, (), Background("room", 0), np.zeros(4, int), minute)
