"""Small JPEG pictures of frames, to be kept beside their memory."""

import io

import numpy as np
from PIL import Image as PIL

from rekv.core import Image
from rekv.errors import ConfigError, VideoError

WIDTH = 160  # pixels
QUALITY = 75


def thumbnail(image: Image, width: int = WIDTH) -> bytes:
    """A JPEG of an image, scaled down to `width` pixels; a narrower image keeps its size.

    `image` is uint8 RGB (height, width, 3). Raises ConfigError if `width` is not at least 1.
    """
    if width < 1:
        raise ConfigError(f"a thumbnail's width is {width}; it must be at least 1 (pixels)")
    small = PIL.fromarray(image)
    small.thumbnail((width, image.shape[0]), PIL.Resampling.BICUBIC, reducing_gap=2.0)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=QUALITY)
    return jpeg.getvalue()


def picture(jpeg: bytes) -> Image:
    """The image of a thumbnail: uint8 RGB (height, width, 3). Raises VideoError if these bytes are no JPEG."""
    try:
        with PIL.open(io.BytesIO(jpeg), formats=["JPEG"]) as opened:
            return np.array(opened.convert("RGB"))
    except (OSError, ValueError, SyntaxError, PIL.DecompressionBombError) as error:
        raise VideoError(f"a thumbnail cannot be decoded ({error}); show the frame from its video instead") from error
