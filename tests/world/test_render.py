from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture

from rekv.core import Image
from rekv.errors import ConfigError
from rekv.world import Event, Renderer, Scene, frames, needle_stream, render_clip
from rekv.world.background import Background
from rekv.world.event import draw_event, stay
from rekv.world.families import FAMILIES
from rekv.world.overlay import COLUMNS, ROWS, clock_dots
from rekv.world.shapes import CARD, COLORS, HEIGHT, INPUT, KINDS, PALETTE, PLACES, RADIUS, SIZES, WALL, WIDTH

SEEDS = range(15)
FILM = (640, 480)
TIMES = {"day": 11 * 60, "dusk": 18 * 60 + 45, "night": 30}  # minutes


def scene(seed: int, n_frames: int = 16) -> Scene:
    return Scene.draw(np.random.default_rng(seed), n_frames)


def filmed(events: list[Event], n_frames: int = 4, minute: int = 12 * 60, seed: int = 0, family: str = "room") -> Scene:
    wall = any(event.path == "hide" for event in events)
    return Scene(n_frames, tuple(events), Background(family, seed, wall), np.arange(n_frames) % 64, minute)


def red_circle(**changes: str | int | tuple[int, int]) -> Event:
    event = Event("circle", "red", "small", 0, "left", "left", (215, 35, 35), (0, 0), start=0, stop=4)
    return replace(event, **changes)  # type: ignore[arg-type]


def nearest_color(pixels: NDArray[np.uint8]) -> str:
    """The colour of the palette with the same hue, however bright the light is."""
    palette = np.array([PALETTE[color] for color in COLORS], float)
    color = pixels.reshape(-1, 3).mean(0)
    distance = np.abs(color / color.max() - palette / palette.max(1, keepdims=True)).sum(1)
    return COLORS[int(distance.argmin())]


def ink(image: Image, event: Event, time: float) -> NDArray[np.uint8]:
    """A patch of the picture that lies on the thing: its centre, or a ring's or card's side."""
    x, y = event.position(time)
    if event.kind == "ring":
        x += 0.78 * RADIUS[event.size]
    if event.kind == CARD:
        x -= 5.6
    height, width = image.shape[:2]
    column, row = int(x * width / WIDTH), int(y * height / HEIGHT)
    return image[row : row + 1, column : column + 1]


@pytest.mark.parametrize("size", [(INPUT, INPUT), FILM])
@pytest.mark.parametrize("minute", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_told_at_every_place_and_time_of_day(kind: str, minute: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(minute)
    sights = [(color, place) for color in COLORS for place in PLACES]
    events = [stay(draw_event(rng, kind, color), place).during(i, i + 1) for i, (color, place) in enumerate(sights)]
    family = tuple(FAMILIES)[KINDS.index(kind) % len(FAMILIES)]
    drawn = filmed(events, len(events), minute, minute, family)
    renderer = Renderer(drawn, *size)
    for frame in range(0, len(events), 1 if size[0] == INPUT else 7):
        (event,) = drawn.visible(frame)
        assert nearest_color(ink(renderer.picture(frame), event, frame)) == event.color, event


def test_a_stream_has_the_same_pictures_as_a_batch() -> None:
    stream = needle_stream(np.random.default_rng(3), 160)
    streamed = list(stream.frames())
    assert [frame.time for frame in streamed] == list(range(160))
    assert np.array_equal(np.stack([frame.image for frame in streamed]), render_clip(stream.scene))


def test_a_stream_is_drawn_one_picture_at_a_time() -> None:
    endless = Scene.draw(np.random.default_rng(0), 100_000, events=())
    first = next(frames(endless))
    assert first.image.shape == (INPUT, INPUT, 3)
    assert np.array_equal(first.image, Renderer(endless).picture(0))
    assert next(frames(endless, 320, 240)).image.shape == (240, 320, 3)


def test_a_seed_decides_the_pictures() -> None:
    assert np.array_equal(render_clip(scene(4)), render_clip(scene(4)))
    assert not np.array_equal(render_clip(scene(4)), render_clip(scene(5)))


def test_an_empty_scene_is_its_background_with_noise() -> None:
    pictures = render_clip(filmed([], 40)).astype(float)[:, ROWS:]
    assert 1.5 < (pictures[1:] - pictures[:-1]).std() / np.sqrt(2) < 3.5
    assert pictures.std((1, 2)).mean() > 10, "there is something to see"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("filter", [Picture.Resampling.BOX, Picture.Resampling.BICUBIC])
def test_a_film_made_small_is_what_the_model_was_trained_on(seed: int, filter: Picture.Resampling) -> None:
    drawn = scene(seed, 6)
    large = Renderer(drawn, *FILM)
    for frame, small in enumerate(render_clip(drawn)):
        shrunk = np.asarray(Picture.fromarray(large.picture(frame)).resize((INPUT, INPUT), filter))
        assert np.abs(shrunk.astype(int) - small).mean() < 5, "of which the noise is 2"


def test_a_circle_is_round_in_a_film() -> None:
    event = red_circle(size="large")
    picture = Renderer(filmed([event]), *FILM).picture(0).astype(int)
    rows, columns = np.nonzero(picture[..., 0] - picture[..., 2] > 100)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=3)
    assert columns.mean() == pytest.approx(10 * PLACES["left"][0], abs=2)
    assert rows.mean() == pytest.approx(10 * PLACES["left"][1], abs=2)


@pytest.mark.parametrize("size", [(INPUT, INPUT), (256, 192)])
def test_movement_between_two_frames_is_drawn(size: tuple[int, int]) -> None:
    event = red_circle(target="right", path="move", stop=3)
    renderer = Renderer(filmed([event], 3), *size)
    centers = []
    for time in (0, 0.25, 0.5, 1, 2, 2.75):
        red = renderer.picture(time).astype(int)
        shown = np.nonzero(red[..., 0] - red[..., 2] > 100)[1]
        centers.append((shown.mean() + 0.5) * WIDTH / size[0])
    assert centers == pytest.approx([13, 17.75, 22.5, 32, 51, 51], abs=0.4)


def test_a_wall_hides_what_is_behind_it() -> None:
    event = red_circle(target="right", path="hide", stop=7)
    drawn = filmed([event], 7)
    empty = replace(drawn, events=())
    left, top, right, bottom = (side * n // of for side, n, of in zip(WALL, FILM * 2, (WIDTH, HEIGHT) * 2, strict=True))
    for time in (0, 0.8, 1.2, 2, 3.5, 4, 4.8, 6):
        shown, background = (Renderer(it, *FILM).picture(time).astype(int) for it in (drawn, empty))
        differs = (shown != background).any(-1)
        assert not differs[top:bottom, left:right].any(), "the wall is in front"
        assert differs.any() == event.visible(time)
    partly = Renderer(drawn, *FILM).picture(1).astype(int)
    red = (partly[..., 0] - partly[..., 2] > 100).sum()
    whole = Renderer(drawn, *FILM).picture(0).astype(int)
    assert 0.1 < red / (whole[..., 0] - whole[..., 2] > 100).sum() < 0.95


def test_what_stays_is_in_front_of_the_wall() -> None:
    behind = red_circle(target="right", path="hide", stop=7)
    front = red_circle(origin="center", target="center", stop=7)
    picture = Renderer(filmed([front, behind], 7)).picture(3)
    assert nearest_color(ink(picture, front, 3)) == "red"


@pytest.mark.parametrize("minute", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_white_things_stand_out(family: str, minute: int) -> None:
    for seed in range(3):
        for place in PLACES:
            event = Event("circle", "white", "small", 0, place, place, PALETTE["white"], (0, 0), start=0, stop=4)
            drawn = filmed([event], 4, minute, seed, family)
            picture = Renderer(drawn).picture(0).astype(int)
            x, y = PLACES[place]
            row = picture[round(y * INPUT / HEIGHT), max(x - 8, 0) : x + 8].mean(-1)
            assert row[8 - 2 : 8 + 2].mean() - row.min() > 45, "from its outline at least"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_thing_may_reach_over_the_edge(kind: str, size: str) -> None:
    for place, offset in (("left", (-9, 0)), ("right", (9, 0)), ("bottom", (0, 8))):
        event = Event(kind, "cyan", size, 8, place, place, PALETTE["cyan"], offset, start=0, stop=4)
        drawn = filmed([event])
        empty = replace(drawn, events=())
        changed = (Renderer(drawn).picture(0) != Renderer(empty).picture(0)).any(-1)
        edge = {"left": changed[:, 0], "right": changed[:, -1], "bottom": changed[-1]}[place]
        assert edge.any()
        assert not changed[20, 25:39].any()


def test_every_picture_shows_the_clock() -> None:
    for seed in SEEDS:
        drawn = scene(seed)
        for frame, picture in enumerate(render_clip(drawn)):
            dots = clock_dots(drawn.minute(frame)) == 1
            shown = picture[:ROWS, :COLUMNS].mean(-1)
            assert shown[dots].min() > 225
            assert shown[~dots].max() < 130


def test_lamps_shine_at_night() -> None:
    by_day, at_night = (Renderer(filmed([], 4, TIMES[time], 2, "street")).picture(0) for time in ("day", "night"))
    below = slice(ROWS, None)
    assert at_night[below].mean() < 0.75 * by_day[below].mean()
    assert (at_night[below].astype(int) - by_day[below])[..., 0].max() > 15, "a lamp or a window"


@pytest.mark.parametrize("time", [-1, 16, 16.5])
def test_a_time_outside_the_scene_is_refused(time: float) -> None:
    with pytest.raises(ConfigError, match="below 16"):
        Renderer(scene(0)).picture(time)


@pytest.mark.parametrize("size", [(0, 64), (64, -1)])
def test_a_size_below_one_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Renderer(scene(0), *size)


@pytest.mark.parametrize("size", [(1, 1), (8, 6), (33, 47), (224, 224)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    drawn = scene(1)
    for frame in range(0, 16, 5):
        assert Renderer(drawn, *size).picture(frame).shape == (size[1], size[0], 3)
