"""What the tests of video files share: small real files with pictures that can be told apart."""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from rekv.core import Frame, Image
from rekv.sources import Sampler

WIDTH, HEIGHT, FPS = 128, 96, 25
BIT = 10  # pixels: the width of one binary digit in the number band


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> Image:
    """A moving pattern under a band that holds `number` in binary, to survive lossy encoding."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([2 * x + 3 * number, 2 * y + 5 * number, x + y + 7 * number], -1).astype(np.uint8)
    image[:16] = 0
    for bit in range(12):
        if number >> bit & 1:
            image[:16, BIT * bit : BIT * (bit + 1)] = 255
    return image


def number(image: Image) -> int:
    """The number of a decoded `picture`."""
    return sum(1 << bit for bit in range(12) if image[4:12, BIT * bit + 3 : BIT * bit + 7].mean() > 128)


def numbers(frames: Iterator[Frame]) -> list[int]:
    return [number(frame.image) for frame in frames]


def times(frames: Iterator[Frame]) -> list[float]:
    return [round(frame.time, 6) for frame in frames]


def add_video(
    container: Any,
    codec: str = "libx264",
    *,
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    options: Mapping[str, str] | None = None,
    gop: int = FPS,
) -> VideoStream:
    stream = cast(VideoStream, container.add_stream(codec, rate=FPS, options=dict(options or {})))
    stream.width, stream.height = size
    stream.pix_fmt = pixel_format
    stream.gop_size = gop
    return stream


def write(
    container: Any,
    stream: VideoStream,
    stamps: Sequence[int],
    tick: Fraction = Fraction(1, FPS),
    keyframes: Collection[int] = (),
) -> None:
    """Encode picture i at `stamps[i]`, in units of `tick` seconds; `keyframes` besides the regular ones."""
    for i, stamp in enumerate(stamps):
        frame = VideoFrame.from_ndarray(picture(i, stream.width, stream.height), format="rgb24")
        frame = frame.reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = stamp, tick
        frame.pict_type = PictureType.I if i in keyframes else PictureType.NONE
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def film(
    path: Path,
    pictures: int | Sequence[int] = 100,
    codec: str = "libx264",
    *,
    tick: Fraction = Fraction(1, FPS),
    container: str | None = None,
    muxer: Mapping[str, str] | None = None,
    keyframes: Collection[int] = (),
    **stream: Any,
) -> Path:
    """Write a file of so many pictures, or of pictures at these multiples of `tick`."""
    with av.open(path, "w", format=container, options=dict(muxer or {})) as output:
        video = add_video(output, codec, **stream)
        video.codec_context.time_base = tick
        write(output, video, range(pictures) if isinstance(pictures, int) else pictures, tick, keyframes)
    return path


def decode_all(
    path: Path, sample_fps: float, start: float = 0.0, end: float | None = None
) -> list[tuple[float, Image]]:
    """Time and image of each frame to be taken, by the plainest use of PyAV: every picture is decoded."""
    sampler = Sampler(sample_fps, start, end)
    taken: list[tuple[float, Image]] = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        origin = Fraction(container.start_time or 0, av.time_base)
        for frame in container.decode(stream):
            time = float((frame.pts or 0) * (stream.time_base or 0) - origin)
            if sampler.take(time):
                taken.append((time, cast(Image, frame.to_ndarray(format="rgb24"))))
    return taken


class CountingFile(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data
