"""How the videos of a benchmark are read: by timestamp, or by the published harness's arithmetic (`paper`).

Either way frames come as a stream, in bounded memory. Besides video files there are arrays of frames at one a second
(`.npy`, uint8 RGB of shape (seconds, height, width, 3)), which are mapped, not loaded.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rekv.core import Frame
from rekv.errors import ConfigError, VideoError
from rekv.sources import Sampler, video
from rekv.sources.sampling import MAX_SAMPLE_FPS

ARRAY_FPS = 1.0  # frames per second of `.npy` files


@dataclass(frozen=True, slots=True)
class Footage:
    """One video of a benchmark, to be sampled at `sample_fps` frames per second.

    In `paper` mode the published arithmetic holds: of a file every int(round(fps) / sample_fps)-th picture is taken,
    and frame i counts as shown at i / sample_fps, wherever it really was.
    """

    path: Path
    sample_fps: float
    paper: bool = False

    def frames(self) -> Iterator[Frame]:
        """The frames in order. Raises `VideoError` if there are none to read."""
        if self.path.suffix == ".npy":
            return self._from_array(_array(self.path))
        return self._every_nth() if self.paper else video(self.path).frames(self.sample_fps)

    def at(self, times: list[float]) -> Iterator[Frame]:
        """The frames that `frames` would give at or after these times (ascending), found without reading the rest."""
        if self.paper or self.path.suffix == ".npy":
            wanted = iter(times)
            time = next(wanted, None)
            for frame in self.frames():
                if time is None:
                    return
                if frame.time >= time - 1e-6:
                    yield frame
                    time = next(wanted, None)
            return
        found = 0
        for time in times:
            try:
                yield next(video(self.path, start=time).frames(self.sample_fps))
            except VideoError:  # it may be shorter than it claims
                if not found:
                    raise
            found += 1

    def duration(self) -> float | None:
        """Seconds, as the file says; None if it does not."""
        if self.path.suffix == ".npy":
            return len(_array(self.path)) / ARRAY_FPS
        return video(self.path).duration

    def _from_array(self, array: Any) -> Iterator[Frame]:
        if self.paper:
            if self.sample_fps > ARRAY_FPS:
                raise ConfigError(
                    f"sample_fps is {self.sample_fps:g}; {self.path} has {ARRAY_FPS:g} frame a second: lower it"
                )
            n = int(len(array) * self.sample_fps)
            for i, place in enumerate(np.linspace(0, len(array) - 1, n, dtype=int)):
                yield Frame(np.ascontiguousarray(array[place]), i / self.sample_fps)
            return
        sampler = Sampler(min(self.sample_fps, MAX_SAMPLE_FPS))
        for place in range(len(array)):
            if sampler.take(place / ARRAY_FPS):
                yield Frame(np.ascontiguousarray(array[place]), place / ARRAY_FPS)

    def _every_nth(self) -> Iterator[Frame]:
        file = video(self.path)
        fps = round(file.fps or 0)
        step = int(fps / self.sample_fps)
        if step < 1:
            raise VideoError(
                f"sample_fps is {self.sample_fps:g}, but {self.path} has {fps} pictures a second, and the published "
                f"harness cannot take more than there are: lower it, or leave out --paper"
            )
        for i, frame in enumerate(islice(file.frames(MAX_SAMPLE_FPS), 0, None, step)):
            yield Frame(frame.image, i / self.sample_fps)


def count(duration: float, sample_fps: float) -> int:
    """How many frames a video of this length gives, at least 1."""
    return max(1, math.ceil(duration * sample_fps - 1e-6))


def _array(path: Path) -> Any:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise VideoError(
            f"{path} is not an array of frames that NumPy can load ({error}); was it copied whole?"
        ) from error
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8 or not array.size:
        raise VideoError(
            f"{path} is {array.dtype} of shape {array.shape}; frames are uint8 of shape (seconds, height, width, 3)"
        )
    return array
