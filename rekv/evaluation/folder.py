"""The folder that published layouts call `data/`: annotations and videos, and whether they are there."""

from collections.abc import Sequence
from pathlib import Path

from rekv.errors import DataError, VideoError
from rekv.evaluation.datasets import find
from rekv.evaluation.frames import Footage
from rekv.evaluation.schema import Video


def locate(path: str, data: Path, annotations: str) -> Path:
    """Where a video lies that the annotations call `path`: as it says, below the data folder, or in `videos/`."""
    said, folder = Path(path), (data / annotations).parent
    places = [
        data / said.relative_to("data") if said.parts[:1] == ("data",) else data / said,
        said,
        folder / said,
        folder / "videos" / said,
        folder / "videos" / said.name,
    ]
    return next((place for place in places if place.is_file()), places[0])


def check_videos(videos: Sequence[Video], data: Path, annotations: str, *, opened: bool = False) -> list[str]:
    """The videos that are not there or, if they are to be `opened`, cannot be read; one line each."""
    problems = []
    for video in videos:
        place = locate(video.path, data, annotations)
        if not place.is_file():
            problems.append(f"video {video.index} ({video.id}): there is no {place}")
        elif opened:
            try:
                next(Footage(place, 1.0).frames(), None)
            except VideoError as error:
                problems.append(f"video {video.index} ({video.id}): {error}")
    return problems


def require(data: Path, names: Sequence[str]) -> None:
    """Raise `DataError` if one of these datasets has no annotations, before a model is loaded."""
    for name in names:
        dataset = find(name)
        path = data / dataset.annotations
        if not path.is_file():
            raise DataError(f"there is no {path}: {dataset.advice()}; `rekv data list` says what is there")
