from collections import Counter

import numpy as np
import pytest

from rekv.errors import ConfigError
from rekv.world.event import LONGEST, SHORTEST, Event, Path, draw_again, draw_event, draw_timeline, seen
from rekv.world.shapes import CARD, CARD_HEIGHT, CARD_WIDTH, COLORS, KINDS, PLACES, RADIUS, WALL

SEEDS = range(30)
RGB = (215.0, 35.0, 35.0)
MOVING = Event("ring", "red", "small", 0, "left", "top", RGB, (1, -2), start=10, stop=15, path="move")
HIDING = Event("ring", "red", "small", 0, "left", "right", RGB, (1, -2), start=10, stop=16, path="hide")


def timeline(seed: int, n_frames: int = 60, *, wall: bool = True) -> tuple[Event, ...]:
    return draw_timeline(np.random.default_rng(seed), n_frames, wall=wall)


def test_a_moving_thing_goes_from_its_origin_to_its_target() -> None:
    (x0, y0), (x1, y1) = PLACES["left"], PLACES["top"]
    assert MOVING.position(10) == (x0 + 1, y0 - 2)
    assert MOVING.position(12) == ((x0 + x1) / 2 + 1, (y0 + y1) / 2 - 2), "half way"
    assert MOVING.position(14) == (x1 + 1, y1 - 2)
    assert MOVING.position(14.9) == MOVING.position(14), "it waits until it disappears"


def test_a_hiding_thing_waits_behind_the_wall() -> None:
    positions = [HIDING.position(time) for time in range(10, 16)]
    assert positions[0] == (PLACES["left"][0] + 1, PLACES["left"][1] - 2)
    assert positions[2] == positions[3] == PLACES["center"]
    assert positions[5] == (PLACES["right"][0] + 1, PLACES["right"][1] - 2)
    assert [x for x, _ in positions] == sorted(x for x, _ in positions)
    assert [HIDING.visible(time) for time in range(9, 17)] == [False, True, True, False, False, True, True, False]
    assert [HIDING.present(time) for time in range(9, 17)] == [False, *[True] * 6, False]
    assert HIDING.visible(11.5)
    assert not HIDING.visible(11.99)


@pytest.mark.parametrize("length", range(SHORTEST["hide"], LONGEST["hide"] + 1))
def test_a_hiding_thing_is_out_of_sight_for_one_to_three_frames(length: int) -> None:
    event = HIDING.during(0, length)
    assert [event.visible(frame) for frame in range(length)] == [True] * 2 + [False] * (length - 4) + [True] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_wall_covers_whatever_is_out_of_sight(kind: str) -> None:
    left, top, right, bottom = WALL
    hiding = [
        e for seed in range(200) if (e := draw_event(np.random.default_rng(seed), kind, wall=True)).path == "hide"
    ]
    assert hiding
    for event in hiding:
        width, height = (CARD_WIDTH / 2, CARD_HEIGHT / 2) if kind == CARD else (RADIUS[event.size],) * 2
        event = event.during(0, 6)
        for time in np.arange(0, 6, 0.125):
            x, y = event.position(time)
            assert event.visible(time) or (left <= x - width < x + width <= right and top <= y - height)
            assert event.visible(time) or y + height <= bottom


def test_the_span_is_from_the_first_to_the_last_sight() -> None:
    assert HIDING.span() == (10, 16)
    assert HIDING.span(15) == (10, 15)
    assert HIDING.span(14) == (10, 12), "it has not come out yet"
    assert HIDING.span(10) is None
    assert HIDING.during(-2, 4).span() == (2, 4)
    assert HIDING.during(-2, 4).span(2) is None, "it is behind the wall all the time"
    assert MOVING.during(-2, 4).span(9) == (0, 4)
    assert MOVING.during(-4, 0).span() is None


def test_only_what_the_frames_show_is_seen() -> None:
    before, first, last, after = (MOVING.during(*times) for times in ((-3, 0), (-3, 1), (9, 12), (10, 12)))
    behind = HIDING.during(-2, 5)
    assert seen([before, first, last, after, behind], 10) == (first, last, behind)
    assert seen([behind], 3) == ()


@pytest.mark.parametrize(
    ("path", "origin", "target"),
    [("stay", "left", "top"), ("move", "left", "left"), ("hide", "top", "left"), ("hide", "left", "center")],
)
def test_places_that_do_not_suit_the_path_are_refused(path: Path, origin: str, target: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot {path} from {origin} to {target}"):
        Event("ring", "red", "small", 0, origin, target, RGB, (0, 0), path=path)


def test_a_drawn_thing_can_have_a_given_kind_and_color() -> None:
    rng = np.random.default_rng(0)
    assert draw_event(rng, "heart", "cyan").name == "cyan heart"
    assert draw_event(rng, "heart", "green").name == "green heart", "any pair that is asked for"
    assert {draw_event(rng, "heart").kind for _ in range(20)} == {"heart"}
    assert {draw_event(rng, color="cyan").color for _ in range(20)} == {"cyan"}


def test_a_pair_that_a_split_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match='pairs is "held_out"'):
        draw_event(np.random.default_rng(0), CARD, pairs="held_out")


def test_what_comes_again_is_the_same_thing_elsewhere() -> None:
    rng = np.random.default_rng(0)
    again = [draw_again(rng, HIDING, wall=True) for _ in range(200)]
    assert {(e.kind, e.color, e.size, e.digit, e.rgb, e.offset) for e in again} == {
        (HIDING.kind, HIDING.color, HIDING.size, HIDING.digit, HIDING.rgb, HIDING.offset)
    }
    assert {event.path for event in again} == {"stay", "move", "hide"}
    assert {event.path for event in (draw_again(rng, HIDING) for _ in range(100))} == {"stay", "move"}, "no wall"


def test_a_seed_decides_the_timeline() -> None:
    assert timeline(3) == timeline(3) != timeline(4)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_timeline_is_never_crowded(seed: int) -> None:
    events = timeline(seed)
    for frame in range(60):
        together = [event for event in events if event.present(frame)]
        assert len(together) <= 2
        if len(together) == 2:
            assert together[0].origin != together[1].origin, "they would cover each other"
            assert not any(event.moves for event in together)


@pytest.mark.parametrize("seed", SEEDS)
def test_things_last_long_enough_to_be_seen(seed: int) -> None:
    for event in timeline(seed):
        assert SHORTEST[event.path] <= event.stop - event.start <= LONGEST[event.path]
        assert event.kind in KINDS
        assert event.color in COLORS


@pytest.mark.parametrize("seed", SEEDS)
def test_two_of_a_name_are_apart(seed: int) -> None:
    events = timeline(seed, 200)
    for event in events:
        assert not [
            e for e in events if e is not event and e.name == event.name and event.start <= e.start <= event.stop
        ]


def test_forbidden_things_never_happen() -> None:
    def forbidden(event: Event) -> bool:
        return event.kind == "ring" or event.color == "red"

    events = [event for seed in SEEDS for event in draw_timeline(np.random.default_rng(seed), 60, forbidden)]
    assert len(events) > 100
    assert not [event for event in events if forbidden(event)]


def test_every_kind_color_place_and_path_occurs() -> None:
    events = [event for seed in SEEDS for event in timeline(seed)]
    assert {event.kind for event in events} == set(KINDS)
    assert {event.color for event in events} == set(COLORS)
    assert {event.origin for event in events} == set(PLACES)
    assert {event.digit for event in events if event.kind == CARD} == set(range(10))
    shares = Counter(event.path for event in events)
    assert shares["move"] > 0.15 * len(events)
    assert shares["hide"] > 0.1 * len(events)
    assert {event.path for seed in SEEDS for event in timeline(seed, wall=False)} == {"stay", "move"}


def test_there_is_something_new_every_few_frames_and_some_come_again() -> None:
    clips = [seen(timeline(seed, 16, wall=seed % 2 == 0), 16) for seed in range(400)]
    assert 3 < np.mean([len(events) for events in clips]) < 5
    most = Counter(max(Counter(event.name for event in events).values(), default=0) for events in clips)
    assert 0.2 < (most[2] + most[3] + most[4]) / len(clips) < 0.6
    assert most[3] > 5
