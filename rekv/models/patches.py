"""Pictures as Qwen-VL's vision towers take them: in sizes that fit a budget, cut into patches, in twos."""

import math

from torch import Tensor


def fit(height: int, width: int, side: int, *, least: int, most: int) -> tuple[int, int]:
    """Rows and columns of cells of `side` pixels for a picture: from `least` to `most` cells, aspect ratio kept.

    As in the models' own processors, a picture is neither enlarged nor reduced beyond what the bounds ask for.
    """
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    if rows * columns < least:
        factor = math.sqrt(least / (height * width))
        rows, columns = math.ceil(height * factor), math.ceil(width * factor)
    if rows * columns > most:
        factor = math.sqrt(most / (height * width))
        rows, columns = max(1, math.floor(height * factor)), max(1, math.floor(width * factor))
    return min(rows, most // min(columns, most)), min(columns, most)


def patchify(pixels: Tensor, *, patch: int, merge: int, frames: int) -> Tensor:
    """Cut pictures (n, channels, height, width), n a multiple of `frames`, into patches, those of a token together.

    Returns (patches, channels * frames * patch * patch), frame group by frame group, row by row of tokens.
    """
    n, channels, height, width = pixels.shape
    rows, columns = height // (patch * merge), width // (patch * merge)
    cut = pixels.reshape(n // frames, frames, channels, rows, merge, patch, columns, merge, patch)
    return cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, channels * frames * patch * patch)
