"""Pixel formats, colours and orientations become upright RGB."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from rekv.core import Image
from rekv.errors import VideoError
from rekv.sources import video
from rekv.sources.picture import check_size
from tests.sources.films import add_video, film, number, picture


def first_image(path: Path) -> Image:
    return next(iter(video(path, sample_fps=1))).image


@pytest.mark.parametrize(
    ("codec", "pixel_format", "error"),
    [
        ("ffv1", "bgr0", 0),
        ("ffv1", "bgra", 0),
        ("ffv1", "gbrp10le", 1),
        ("ffv1", "rgb48le", 1),
        ("rawvideo", "rgb24", 0),
        ("ffv1", "yuv444p", 3),
        ("ffv1", "yuva444p", 3),
        ("ffv1", "yuv444p16le", 3),
        ("libx264", "yuv420p", None),
        ("libx264", "yuv422p", None),
        ("libx264", "yuv444p", None),
        ("libx265", "yuv420p10le", None),
        ("ffv1", "yuv420p10le", None),
        ("ffv1", "yuva420p", None),
        ("ffv1", "yuv410p", None),
        ("ffv1", "gray", None),
        ("ffv1", "gray16le", None),
        ("mjpeg", "yuvj422p", None),
        ("mjpeg", "yuvj444p", None),
    ],
)
def test_pixel_formats(codec: str, pixel_format: str, error: int | None, tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    ending = "nut" if codec == "rawvideo" else "mkv"
    path = film(tmp_path / f"film.{ending}", 78, codec, pixel_format=pixel_format, options=options)
    last = list(video(path, sample_fps=25))[77].image
    assert number(last) == 77
    if "gray" in pixel_format:
        assert np.array_equal(last[..., 0], last[..., 1])
    if error is not None:
        assert np.abs(last.astype(int) - picture(77)).max() <= error


@pytest.mark.parametrize("codec", ["gif", "apng"])
def test_pictures_with_a_palette_or_alpha(codec: str, tmp_path: Path) -> None:
    from PIL import Image as PIL

    stills = [PIL.fromarray(picture(i)) for i in range(5)]
    if codec == "gif":
        stills = [still.convert("P") for still in stills]
    path = tmp_path / f"film.{codec}"
    stills[0].save(path, "GIF" if codec == "gif" else "PNG", save_all=True, append_images=stills[1:], duration=200)
    assert [number(frame.image) for frame in video(path, sample_fps=5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [(129, 97), (127, 95), (130, 96)])
def test_odd_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    image = first_image(film(tmp_path / "film.mkv", 2, "ffv1", size=size))
    assert image.shape == (size[1], size[0], 3)
    assert np.abs(image.astype(int) - picture(0, *size)).mean() < 6


@pytest.mark.parametrize("matrix", [Colorspace.ITU709, Colorspace.ITU601])
@pytest.mark.parametrize("values", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("colour", [(200, 30, 60), (20, 180, 90), (40, 60, 220), (255, 255, 255), (0, 0, 0)])
def test_colour_matrix_and_range_are_honoured(
    matrix: Colorspace, values: ColorRange, colour: tuple[int, int, int], tmp_path: Path
) -> None:
    path = tmp_path / "film.mp4"
    image = np.broadcast_to(np.array(colour, np.uint8), (96, 128, 3)).copy()
    with av.open(path, "w") as output:
        stream = add_video(output, options={"qp": "0"})
        stream.codec_context.colorspace = 1 if matrix is Colorspace.ITU709 else 6
        stream.codec_context.color_range = values
        frame = VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=values)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert np.abs(first_image(path).astype(int) - image).max() <= 3


Turn = Callable[[Image], Image]
TURNS: dict[tuple[int, bool, bool], Turn] = {
    (0, False, False): lambda image: image,
    (90, False, False): lambda image: np.rot90(image, 1),  # counterclockwise
    (180, False, False): lambda image: np.rot90(image, 2),
    (270, False, False): lambda image: np.rot90(image, 3),
    (0, True, False): np.fliplr,
    (0, False, True): np.flipud,
    (90, True, False): lambda image: np.fliplr(np.rot90(image, 1)),
    (270, True, False): lambda image: np.fliplr(np.rot90(image, 3)),
    (3, False, False): lambda image: image,  # as cameras never write it: the nearest right angle
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_pictures_are_turned_upright(turn: tuple[int, bool, bool], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"film.{ending}"
    degrees, mirrored, upside_down = turn
    with av.open(path, "w") as output:
        stream = add_video(output, options={"qp": "0"}, pixel_format="yuv444p")
        stream.set_display_rotation(degrees, hflip=mirrored, vflip=upside_down)
        output.mux(stream.encode(VideoFrame.from_ndarray(picture(5), format="rgb24")))
        output.mux(stream.encode(None))
    with av.open(path) as container:
        stored = cast(Image, next(container.decode(video=0)).to_ndarray(format="rgb24"))
    assert stored.shape == (96, 128, 3)
    image = first_image(path)
    assert image.flags.c_contiguous
    assert np.array_equal(image, TURNS[turn](stored))


def test_the_limit_on_sizes() -> None:
    check_size("film", 12_000, 8_000)
    with pytest.raises(VideoError, match="film: its pictures have 20000 x 20000 pixels; rekv reads up to 100 million"):
        check_size("film", 20_000, 20_000)
