"""Resizing is Pillow's, bit for bit."""

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from rekv.models.resample import Filter, resize

NUMBERS: dict[Filter, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
TALL_FIRST = int(PIL.__version__.split(".")[0]) >= 13  # which direction Pillow resizes first in tall pictures


def pictures(height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(height * 10_000 + width)
    y, x = np.mgrid[:height, :width]
    ramp = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256]
    stripes = [x % 2 * 255, y % 2 * 255, (y // 3 + x // 5) % 2 * 255]
    shade = 127 + 90 * np.sin(x / 31) * np.cos(y / 47) + rng.normal(0, 6, (height, width))
    return {
        "noise": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "black and white": (rng.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8),
        "ramps": np.stack(ramp, -1).astype(np.uint8),
        "stripes": np.stack(stripes, -1).astype(np.uint8),
        "scene": np.stack([shade, 255 - shade, shade / 2], -1).clip(0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    "source",
    "1x1 1x500 500x1 2x3 10x10 47x49 192x192 240x320 37x999 150x20 383x385 384x384 640x360 720x1280".split(),
)
def test_resizing_equals_pillow(source: str, kind: Filter) -> None:
    height, width = map(int, source.split("x"))
    for size in ((384, 384), (70, 56)):
        new_height, new_width = size
        if height - new_height > max(0, 2 * (width - new_width)) and not TALL_FIRST:
            continue
        for name, picture in pictures(height, width).items():
            expected = np.asarray(Image.fromarray(picture).resize((new_width, new_height), NUMBERS[kind]))
            found = resize(torch.from_numpy(picture).permute(2, 0, 1)[None], size, kind)
            assert found.dtype == torch.uint8
            assert torch.equal(found[0].permute(1, 2, 0), torch.from_numpy(expected.copy())), (name, size)


def test_pictures_of_a_batch_do_not_mix() -> None:
    a, b = (torch.from_numpy(p).permute(2, 0, 1) for p in list(pictures(60, 80).values())[:2])
    both = resize(torch.stack([a, b]), (48, 48), "bicubic")
    assert torch.equal(both[0], resize(a[None], (48, 48), "bicubic")[0])
    assert torch.equal(both[1], resize(b[None], (48, 48), "bicubic")[0])


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos"])
def test_every_device_gives_the_same(kind: Filter, device: torch.device) -> None:
    for height, width in ((720, 1280), (37, 999), (150, 20)):
        pixels = torch.from_numpy(np.stack(list(pictures(height, width).values()))).permute(0, 3, 1, 2)
        assert torch.equal(resize(pixels.to(device), (384, 384), kind).cpu(), resize(pixels, (384, 384), kind))
