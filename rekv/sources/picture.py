"""From a decoded picture, of whatever pixel format and orientation, to an upright RGB image."""

from collections.abc import Mapping
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from rekv.core import Image
from rekv.errors import VideoError

MAX_PIXELS = 100_000_000  # of one picture: beyond every camera, and 300 MB as RGB


class ToRGB:
    """Converts the pictures of one video; keeps the conversion tables from one to the next."""

    def __init__(self, name: str) -> None:
        """`name` is that of the video, for messages."""
        self._name = name
        self._reformatter = VideoReformatter()

    def __call__(self, picture: VideoFrame) -> Image:
        """The picture as uint8 RGB (height, width, 3), its colour matrix and range honoured, turned upright.

        Raises VideoError for sizes and pixel formats that cannot be converted.
        """
        check_size(self._name, picture.width, picture.height)
        try:
            # One thread, so that nothing depends on the machine.
            rgb = self._reformatter.reformat(picture, format="rgb24", threads=1)
        except av.FFmpegError as error:
            raise VideoError(
                f"{self._name}: its pixel format {picture.format.name} cannot be converted to RGB "
                f"({error.strerror}); re-encode the video, for example as H.264 in yuv420p"
            ) from error
        return np.array(upright(rgb.to_ndarray().astype(np.uint8, copy=False), picture), order="C")


def check_size(name: str, width: int, height: int) -> None:
    """Raise VideoError if pictures of this size cannot be decoded in bounded memory."""
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{name}: its pictures have {width} x {height} pixels; rekv reads up to "
            f"{MAX_PIXELS // 1_000_000} million; scale the video down first"
        )


def upright(image: NDArray[np.uint8], picture: VideoFrame) -> NDArray[np.uint8]:
    """Turn the `image` (height, width, 3) of `picture` as its display matrix says: how the camera was held.

    The matrix begins with rows (a, b, .), (c, d, .) and moves pixel (x, y) to (a x + c y, b x + d y) up to a
    translation: a turn by a multiple of 90 degrees, perhaps mirrored. Other angles become the nearest.
    """
    side_data = cast(Mapping[str, Buffer], picture.side_data)
    if "DISPLAYMATRIX" not in side_data:
        return image
    a, b, _, c, d = np.frombuffer(bytes(side_data["DISPLAYMATRIX"]), np.int32)[:5].tolist()
    along_x, along_y = a, d
    if abs(b) > abs(a):
        image = image.swapaxes(0, 1)
        along_x, along_y = c, b
    return image[:: -1 if along_y < 0 else 1, :: -1 if along_x < 0 else 1]
