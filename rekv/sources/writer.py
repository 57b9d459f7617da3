"""Writing video files."""

import logging
from collections.abc import Mapping
from fractions import Fraction
from os import PathLike, fspath
from types import TracebackType
from typing import Self, cast

import av
from av.codec.codec import UnknownCodecError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rekv.core import Image
from rekv.errors import ConfigError, VideoError

logger = logging.getLogger(__name__)

CLOCK = 60000  # timestamps per second: whole numbers for the usual rates, and within what MPEG-4 allows
FALLBACK = "mpeg4"  # in every build of FFmpeg


class VideoWriter:
    """Writes pictures to a video file; the format follows from its ending. Use it in a `with` statement."""

    def __init__(
        self,
        path: str | PathLike[str],
        width: int,
        height: int,
        fps: float | Fraction,
        *,
        codec: str = "libx264",
        crf: int = 23,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """`width` and `height` in pixels, both even; `fps` in pictures per second.

        `crf` is the constant rate factor of H.264 (0 to 51, lower is better); `options` are further ones of
        the encoder. Where this FFmpeg lacks `codec`, MPEG-4 is written and the log says so. Raises
        ConfigError for a size or rate that cannot be, VideoError if the file cannot be written.
        """
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ConfigError(f"the video's size is {width} x {height}; both must be even numbers above 0")
        if not fps > 0:
            raise ConfigError(f"fps is {fps}; it must be above 0 (pictures per second)")
        self.path = fspath(path)
        self._shape = (height, width, 3)
        self._period = round(CLOCK / fps)  # ticks
        self._next = 0  # ticks
        codec, encoding = _encoding(codec, crf)
        try:
            self._container = av.open(self.path, "w")
            stream = self._container.add_stream(codec, Fraction(fps).limit_denominator(1001))
            self._stream = cast(VideoStream, stream)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, CLOCK)
            self._stream.options = {**encoding, **(options or {})}
            self._container.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"cannot write {self.path}: {error}; check the folder and the file's ending") from error

    def write(self, image: Image, time: float | None = None) -> None:
        """Append a picture: uint8 RGB (height, width, 3), shown at `time` seconds.

        Without `time` it is shown one period after the picture before. Raises ConfigError if its shape is not
        the video's or its time is not later than that of the picture before.
        """
        if image.shape != self._shape:
            raise ConfigError(f"a picture of shape {image.shape} does not fit into a video of {self._shape}")
        ticks = self._next if time is None else round(time * CLOCK)
        if ticks <= self._next - self._period:
            raise ConfigError(f"the picture at {time} s is not later than the one before; write them in order")
        picture = VideoFrame.from_ndarray(image, format="rgb24")
        picture.time_base = Fraction(1, CLOCK)
        picture.pts = ticks
        self._next = ticks + self._period
        self._encode(picture)

    def close(self) -> None:
        """Finish the file."""
        try:
            if self._next:
                self._encode(None)
        finally:
            self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, picture: VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(picture))
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"cannot write {self.path}: {error}; is there room on the disk?") from error


def _encoding(codec: str, crf: int) -> tuple[str, dict[str, str]]:
    """The encoder to use and its settings for `crf`."""
    try:
        av.codec.Codec(codec, "w")
    except UnknownCodecError:
        logger.warning("this FFmpeg has no encoder %s; writing %s instead", codec, FALLBACK)
        codec = FALLBACK
    if codec != FALLBACK:
        return codec, {"crf": str(crf)}
    scale = max(1, min(31, crf // 5))  # MPEG-4 has no rate factor; of like quality
    return codec, {"flags": "+qscale", "global_quality": str(scale * 118)}
