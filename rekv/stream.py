"""What `append` is given: pictures in order, in lists for one encode call each, and in groups that make a frame."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rekv.core import Frame
from rekv.errors import SessionError
from rekv.store.commit import FrameNote


@runtime_checkable
class Source(Protocol):
    """Something that is sampled, such as a video file. `sample_fps` None leaves the rate to the session."""

    sample_fps: float | None

    def frames(self, sample_fps: float) -> Iterator[Frame]: ...


def pictures(frames: Source | Frame | Iterable[Frame], sample_fps: float) -> Iterator[Frame]:
    """One after the other; `sample_fps` is for a source that has no rate of its own."""
    if isinstance(frames, Frame):
        return iter((frames,))
    if isinstance(frames, Source):
        return frames.frames(frames.sample_fps or sample_fps)
    return iter(frames)


def in_order(frames: Iterator[Frame], after: float) -> Iterator[Frame]:
    """The same frames. Raises `SessionError` at what is none, or earlier than the one before, or than `after`."""
    for frame in frames:
        if not isinstance(frame, Frame):
            raise SessionError(
                f"append takes frames, a rekv.video(...), or any iterable of rekv.Frame(image, time), "
                f"not {type(frame).__name__}"
            )
        if frame.time < after:
            raise SessionError(
                f"a frame at {frame.time:.2f} s comes after one at {after:.2f} s: a session is one stream, whose "
                f"time does not go back; give another video a session of its own"
            )
        after = frame.time
        yield frame


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The newest frame of a session, as long as it may take another picture."""

    frame: int = 0  # its id
    pictures: Sequence[Frame] = ()  # what it has so far; none = no frame is unfinished
    notes: Sequence[FrameNote] = ()  # for a store: its one


def batches(frames: Iterator[Frame], size: int, first: int | None = None) -> Iterator[list[Frame]]:
    """Lists of `size` frames, of `first` ones to begin with, the last one shorter or empty.

    If the source fails, that follows what it gave.
    """
    batch: list[Frame] = []
    failure: Exception | KeyboardInterrupt | None = None
    try:
        for frame in frames:
            batch.append(frame)
            if len(batch) == (first or size):
                first = None
                full, batch = batch, []  # before it is given away: an interrupt must not give it twice
                yield full
    except (Exception, KeyboardInterrupt) as error:
        failure = error
    yield batch
    if failure is not None:
        raise failure


def groups(batch: Sequence[Frame], size: int) -> list[Sequence[Frame]]:
    """Neighbours in groups of `size`, the last one shorter if need be."""
    return [batch[i : i + size] for i in range(0, len(batch), size)]
