"""Thumbnails of frames."""

import io

import numpy as np
import pytest
from PIL import Image as PIL

from rekv.errors import ConfigError, VideoError
from rekv.sources.thumbnail import picture, thumbnail
from tests.sources import films


def test_it_is_a_small_jpeg_of_the_picture() -> None:
    y, x = np.mgrid[:360, :640]
    image = np.stack([x * 0.3, y * 0.6, 200 - x * 0.2], -1).astype(np.uint8)
    jpeg = thumbnail(image)
    assert PIL.open(io.BytesIO(jpeg)).format == "JPEG"
    assert len(jpeg) < 8000
    small = picture(jpeg)
    assert small.shape == (90, 160, 3)
    assert small.dtype == np.uint8
    expected = image.reshape(90, 4, 160, 4, 3).mean((1, 3))
    assert np.abs(small - expected).max() < 8


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ((720, 1280), 160, (90, 160)),
        ((1280, 720), 160, (284, 160)),
        ((300, 400), 100, (75, 100)),
        ((96, 128), 160, (96, 128)),
        ((96, 160), 160, (96, 160)),
        ((1, 1), 160, (1, 1)),
        ((2, 5000), 160, (1, 160)),
        ((5000, 2), 160, (5000, 2)),
    ],
)
def test_sizes(size: tuple[int, int], width: int, expected: tuple[int, int]) -> None:
    assert picture(thumbnail(np.full((*size, 3), 90, np.uint8), width)).shape[:2] == expected


def test_images_need_not_be_contiguous() -> None:
    image = films.picture(5)
    assert thumbnail(image[:, ::-1]) == thumbnail(np.ascontiguousarray(image[:, ::-1]))


def test_refuses_a_width_of_nothing() -> None:
    with pytest.raises(ConfigError, match="width"):
        thumbnail(films.picture(5), 0)


def test_damaged_thumbnails_are_named() -> None:
    jpeg = thumbnail(films.picture(5))
    for damaged in (b"", b"no picture", jpeg[: len(jpeg) // 2], b"\x00" + jpeg[1:]):
        with pytest.raises(VideoError, match="cannot be decoded"):
            picture(damaged)
