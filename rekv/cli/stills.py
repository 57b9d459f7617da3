"""Small pictures of the frames that questions read: from the video, or those that a session on disk keeps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rekv.cli.screen import silent
from rekv.pictures import Still

if TYPE_CHECKING:
    from rekv.core import Answer, Image
    from rekv.store.catalog import Catalog

SIDE = 320  # pixels: a still's longer side
MOST_STILLS = 21  # of one question


def shrink(image: "Image") -> "Image":
    """A copy with a longer side of `SIDE` at most."""
    from PIL import Image as Pictures

    picture = Pictures.fromarray(image)
    picture.thumbnail((SIDE, SIDE))
    return np.array(picture)


def best_frames(answer: "Answer") -> list[int]:
    """The ids of the frames that score best among those read, in time order."""
    best = sorted(answer.retrieval.union, key=lambda frame: -frame_scores(answer)[frame])
    return sorted(best[:MOST_STILLS])


def frame_scores(answer: "Answer") -> dict[int, float]:
    """The standard score of each frame that the question could see."""
    from rekv.retrieval.scoring import standard_scores

    return dict(zip(answer.retrieval.candidates, standard_scores(answer.retrieval.scores).tolist(), strict=True))


def stills(
    answer: "Answer",
    images: Mapping[int, "Image"],
    times: Sequence[float],
    truth: Sequence[tuple[float, float]] = (),
) -> list[Still]:
    """Stills of an answer's best frames, as far as there is an image; `images` and `times` are by frame id."""
    scores, layers = frame_scores(answer), answer.retrieval.frames
    return [
        Still(
            images[frame],
            times[frame],
            scores[frame],
            sum(frame in layer for layer in layers),
            len(layers),
            any(start <= times[frame] < end for start, end in truth),
        )
        for frame in best_frames(answer)
        if frame in images
    ]


def reread(path: str, times: Iterable[float]) -> "Iterator[Image]":
    """Yield the pictures shown at these times, small. Raises VideoError if one cannot be read again."""
    from rekv.sources import video

    with silent("rekv.sources"):  # what is wrong with the file was said when it was read
        for time in times:
            frames = video(path, start=time).frames(1.0)
            yield shrink(next(frames).image)


def kept(catalog: "Catalog", frames: Iterable[int]) -> "dict[int, Image]":
    """The pictures that a session keeps of these frames, as far as it does."""
    from rekv.sources.thumbnail import picture

    jpegs = {frame: catalog.thumbnail(frame) for frame in frames}
    return {frame: picture(jpeg) for frame, jpeg in jpegs.items() if jpeg is not None}
