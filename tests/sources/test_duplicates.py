"""Which frames repeat the last one kept: noise does not count, small objects and slow changes do."""

from pathlib import Path

import numpy as np
import pytest

from rekv.core import Frame, Image
from rekv.errors import ConfigError
from rekv.sources import Duplicates, VideoWriter, video
from rekv.sources.duplicates import DEFAULT_THRESHOLD, MAX_SPAN, difference, tiles
from tests.sources import films

HEIGHT, WIDTH = 360, 640


def background(light: float = 0.0) -> Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([90 + 40 * np.sin(x / 50), 100 + 30 * np.cos(y / 40), 110 + 20 * np.sin((x + y) / 70)], -1)
    return (image + light).clip(0, 255).astype(np.uint8)


def noisy(image: Image, rng: np.random.Generator, deviation: float) -> Image:
    return (image + rng.normal(0, deviation, image.shape)).round().clip(0, 255).astype(np.uint8)


def with_object(image: Image, x: int, y: int, side: int, levels: int = 60) -> Image:
    image = image.copy()
    image[y : y + side, x : x + side] += np.uint8(levels)
    return image


def decisions(duplicates: Duplicates, images: list[Image], period: float = 1.0, first: int = 0) -> list[bool]:
    return [duplicates.repeats(Frame(image, (first + i) * period)) for i, image in enumerate(images)]


def test_noise_of_a_sensor_is_no_change() -> None:
    rng = np.random.default_rng(0)
    for deviation in (1, 4, 8):
        assert decisions(Duplicates(), [noisy(background(), rng, deviation) for _ in range(8)]) == [False] + [True] * 7


def test_noise_of_encoders_is_no_change(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [noisy(background(), rng, 3) for _ in range(5)]
    for crf in (18, 35):
        options = {"g": "10", "preset": "veryfast"}
        with VideoWriter(tmp_path / "film.mp4", WIDTH, HEIGHT, 5, crf=crf, options=options) as writer:
            for i in range(45):
                writer.write(images[i * i % 5])
        frames = list(video(tmp_path / "film.mp4", sample_fps=1))
        assert len(frames) == 9
        duplicates = Duplicates()
        assert [duplicates.repeats(frame) for frame in frames] == [False] + [True] * 8


@pytest.mark.parametrize("levels", [40, 100])
def test_an_object_of_two_percent_of_the_width_counts_wherever_it_is(levels: int) -> None:
    rng = np.random.default_rng(0)
    side = round(0.02 * WIDTH)
    for _ in range(30):
        x, y = int(rng.integers(WIDTH - side)), int(rng.integers(HEIGHT - side))
        changed = with_object(background(), x, y, side, levels)
        before, after = (noisy(image, rng, 3) for image in (background(), changed))
        assert decisions(Duplicates(), [before, after, before]) == [False, False, False]


def test_a_small_object_that_moves_counts() -> None:
    images = [with_object(background(), 100 + 13 * i, 200, 13) for i in range(5)]
    assert decisions(Duplicates(), images) == [False] * 5


def test_slow_changes_add_up_since_it_is_the_kept_frame_that_is_compared_with() -> None:
    step = DEFAULT_THRESHOLD / 3.5
    seen = decisions(Duplicates(max_span=100), [background(step * i) for i in range(13)])
    assert seen == [i % 4 != 0 for i in range(13)]


def test_the_threshold_is_the_largest_difference_that_is_none() -> None:
    first = np.full((90, 160, 3), 100, np.uint8)
    for color in range(3):
        changed = first.copy()
        changed[40:60, 40:60, color] += 9
        for threshold in (8, 9):
            assert decisions(Duplicates(threshold), [first, changed]) == [False, threshold == 9]


def test_a_span_has_its_longest_length() -> None:
    images = [background()] * 26
    assert [i for i, repeats in enumerate(decisions(Duplicates(), images)) if not repeats] == [0, 11, 22]
    assert MAX_SPAN == 10
    assert [i for i, repeats in enumerate(decisions(Duplicates(max_span=3.0), images, 0.5)) if not repeats] == [
        0,
        7,
        14,
        21,
    ]
    assert decisions(Duplicates(max_span=0.0), images[:3]) == [False] * 3


def test_time_that_goes_back_is_a_change() -> None:
    duplicates = Duplicates()
    times = [5.0, 6.0, 2.0, 3.0, 11.5]
    assert [duplicates.repeats(Frame(background(), time)) for time in times] == [False, True, False, True, True]


def test_another_size_is_a_change() -> None:
    grey = [np.full((*size, 3), 90, np.uint8) for size in ((90, 160), (90, 160), (180, 320), (160, 90), (160, 91))]
    assert decisions(Duplicates(), grey) == [False, True, False, False, False]


def test_repeats_do_not_change_what_is_compared_with() -> None:
    first, changed = background(), background(DEFAULT_THRESHOLD + 5)
    assert decisions(Duplicates(), [first, first, changed, changed, first]) == [False, True, False, True, False]


def stream() -> list[Image]:
    """With decisions of both kinds, some of them close."""
    rng = np.random.default_rng(3)
    light = np.cumsum(rng.normal(0, 2.5, 60))
    return [noisy(background(level), rng, 4) for level in light]


def test_resuming_gives_the_same_decisions() -> None:
    images = stream()
    whole = decisions(Duplicates(max_span=7.0), images)
    assert 10 < sum(whole) < 55
    for stop in (1, 7, 20, 41):
        first = Duplicates(max_span=7.0)
        before = decisions(first, images[:stop])
        second = Duplicates.resume(first.state, max_span=7.0)
        assert second.state == first.state
        assert before + decisions(second, images[stop:], first=stop) == whole


def test_the_state_is_small() -> None:
    assert Duplicates().state is Duplicates.resume(None).state is None
    duplicates = Duplicates()
    for size in ((2160, 3840), (720, 1280), (1280, 720), (500, 500), (1, 1), (3, 7)):
        duplicates.repeats(Frame(np.zeros((*size, 3), np.uint8), 1e9 + 0.1))
        state = duplicates.state
        assert state is not None
        assert len(state) < 13_000
        assert Duplicates.resume(state).repeats(Frame(np.zeros((*size, 3), np.uint8), 1e9 + 0.2))


@pytest.mark.parametrize("change", [lambda state: b"", lambda state: state[:-1], lambda state: state + b"0", bytes])
def test_refuses_a_state_that_is_none(change: object) -> None:
    duplicates = Duplicates()
    duplicates.repeats(Frame(background(), 0.0))
    damaged = bytes(20) if change is bytes else change(duplicates.state)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="resume from None"):
        Duplicates.resume(damaged)


@pytest.mark.parametrize(("threshold", "max_span"), [(-1, 1), (256, 1), (float("nan"), 1), (8, -1), (8, float("nan"))])
def test_refuses_settings(threshold: float, max_span: float) -> None:
    with pytest.raises(ConfigError, match="near-duplicates"):
        Duplicates(threshold, max_span)


def test_tiles_are_means_of_colour() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (640, 1280, 3), np.uint8)
    means = image.reshape(32, 20, 64, 20, 3).mean((1, 3))
    assert tiles(image).shape == (32, 64, 3)
    assert np.abs(tiles(image) - means).max() <= 1.5  # it is rounded three times
    assert np.abs(tiles(image[:, ::-1]) - means[:, ::-1]).max() <= 1.5
    assert tiles(image[:1, :1]).shape == (1, 1, 3)
    assert tiles(image[:48, :48]).shape == (12, 12, 3)  # not smaller than 4 pixels
    assert tiles(image[:1, :400]).shape == (1, 64, 3)


def test_difference_does_not_wrap_around() -> None:
    dark, light = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert difference(dark, light) == difference(light, dark) == 255


def test_a_film_of_different_pictures_has_none() -> None:
    assert decisions(Duplicates(), [films.picture(i) for i in range(20)]) == [False] * 20
