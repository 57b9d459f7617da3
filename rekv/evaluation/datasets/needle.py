"""Needle videos of the built-in world: made, not downloaded, so that the whole harness runs anywhere.

The streams are those of `benchmarks/needle.py`, written as H.264 files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rekv.errors import ConfigError
from rekv.evaluation.datasets.base import Dataset
from rekv.evaluation.schema import Question, Video, write
from rekv.world import hard_stream, needle_stream, render_film

NeedleSet = Literal["base", "hard"]
_DRAW = {"base": needle_stream, "hard": hard_stream}
_PER_TYPE = {"base": 2, "hard": 1}
_SEEDS = (1, 2, 3)  # drawn from in turn, as the needle benchmark does


class Needle(Dataset):
    name = "needle"
    title = "Needles in the built-in world"
    annotations = "needle/test_oe.json"
    open_metric = "exact"
    release = "none: `rekv data needle` makes it"
    source = "rekv.world"

    def advice(self) -> str:
        return "`rekv data needle` draws it"


@dataclass(frozen=True, slots=True)
class Film:
    """How needle videos are drawn."""

    set: NeedleSet = "base"
    frames: int = 600  # of the world, one a second
    width: int = 320  # pixels
    height: int = 240
    fps: int = 4  # pictures per second of the file


def make(folder: Path, videos: int, film: Film) -> Iterator[Video]:
    """Draw films into the data folder, one at each step; then write the annotations. Films that are there are kept.

    Raises `ConfigError` for sizes that cannot be.
    """
    if videos < 1:
        raise ConfigError(f"there are {videos} videos to make; it must be at least 1")
    path = folder / Needle.annotations
    made = []
    for video in _videos(path.parent / "videos", videos, film):
        made.append(video)
        yield video
    write(made, path)


def _videos(folder: Path, n: int, film: Film) -> Iterator[Video]:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        seed, number = _SEEDS[index % len(_SEEDS)], index // len(_SEEDS)
        stream = _DRAW[film.set](np.random.default_rng((seed, number)), film.frames, per_type=_PER_TYPE[film.set])
        id = f"{film.set}-{film.frames}-{film.width}x{film.height}-{film.fps}-{seed}-{number}"
        file = folder / f"{id}.mp4"
        if not file.exists():
            unfinished = file.with_name(f"{id}.part.mp4")
            render_film(unfinished, stream.scene, width=film.width, height=film.height, fps=film.fps)
            unfinished.replace(file)
        questions = tuple(
            Question(
                question.text,
                question.answer,
                tasks=(question.type,),
                windows=tuple((float(start), float(stop)) for start, stop in question.evidence),
                end=float(film.frames),
            )
            for question in stream.questions
        )
        yield Video(index, id, f"data/needle/videos/{file.name}", float(film.frames), questions)
