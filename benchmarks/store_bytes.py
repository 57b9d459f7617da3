"""Bytes that the store takes on disk per hour of stream, from real files of each codec."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from store_blocks import SHAPES, BlockShape, RandomBlocks, create, write

from rekv.core import Frame, Image
from rekv.sources.duplicates import Duplicates
from rekv.sources.thumbnail import thumbnail
from rekv.store.codecs import CODECS
from rekv.store.folder import SessionFolder
from rekv.store.writer import SEGMENT_BYTES, SEGMENT_SLOTS
from rekv.world import Renderer, Scene
from rekv.world.film import FILM_HEIGHT, FILM_WIDTH

SAMPLE_FPS = 0.5
FRAMES_PER_HOUR = 1800
WIDTH, HEIGHT = 640, 360  # pixels
CYCLE, SHOWN = 20, 4  # seconds from one event to the next, and of it those with an object: the last ones
NOISE = 3.0  # standard deviation of a pixel, in 8-bit levels
OBJECT = 26  # pixels: 4 % of the width


def hours(place: Path, names: Sequence[str] = ("llava_ov_7b", "llava_ov_0.5b"), cycles: int = 40) -> dict[str, Any]:
    """GiB per hour by shape and codec: sealed segments with their index and tables, and the catalog's growth."""
    skipped = skipped_share(cycles)
    picture = background()
    return {
        "skipped_share": round(skipped, 3),
        **{
            name: {
                codec: _hour(place / f"{name}-{codec}", SHAPES[name], codec, thumbnail(picture), skipped)
                for codec in CODECS
            }
            for name in names
        },
    }


def _hour(path: Path, shape: BlockShape, codec: str, jpeg: bytes, skipped: float) -> dict[str, float]:
    least, most = SEGMENT_SLOTS
    n = min(most, max(least, SEGMENT_BYTES // shape.frame_bytes)) + 1  # one more: the first segment is sealed
    create(path, shape, codec).close()
    empty = _catalog(path)
    folder = SessionFolder(path, writable=True)
    write(folder, RandomBlocks(shape), n, jpeg)
    (sealed,) = [row for row in folder.catalog.segments() if row.sealed]
    folder.close()
    segment = _allocated(path / sealed.file) / sealed.slots
    catalog = (_catalog(path) - empty) / n
    for file in path.iterdir():
        file.unlink()
    hour = (segment + catalog) * FRAMES_PER_HOUR / 2**30
    return {
        "bytes_per_frame": round(segment),
        "catalog_bytes_per_frame": round(catalog),
        "gib_per_hour": round(hour, 2),
        "gib_per_hour_static_scene": round(hour * (1 - skipped), 2),
    }


def skipped_share(cycles: int) -> float:
    """Share of frames that are left out, with the defaults for live sources, of a scene that is mostly still."""
    duplicates = Duplicates()
    return float(np.mean([duplicates.repeats(frame) for frame in static_scene(cycles)]))


def static_scene(cycles: int) -> Iterator[Frame]:
    """A noisy camera before which a small object stands somewhere for 4 of every 20 seconds."""
    rng = np.random.default_rng(0)
    still = background().astype(np.float32)
    step = round(1 / SAMPLE_FPS)
    for cycle in range(cycles):
        top, left = rng.integers(HEIGHT - OBJECT), rng.integers(WIDTH - OBJECT)
        for second in range(0, CYCLE, step):
            picture = still + rng.normal(0, NOISE, (HEIGHT, WIDTH, 1)).astype(np.float32)
            if second >= CYCLE - SHOWN:
                picture[top : top + OBJECT, left : left + OBJECT] = (230, 40, 40)
            yield Frame(_levels(picture), float(cycle * CYCLE + second))


def background() -> Image:
    """The lower part of a picture of the built-in world, without things and clock."""
    scene = Scene.draw(np.random.default_rng(0), 1, [])
    return Renderer(scene, FILM_WIDTH, FILM_HEIGHT).picture(0)[-HEIGHT:, :WIDTH]


def _levels(picture: NDArray[np.float32]) -> Image:
    return picture.clip(0, 255).astype(np.uint8)


def _catalog(path: Path) -> int:
    return sum(_allocated(file) for file in path.glob("catalog.sqlite*"))


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512
