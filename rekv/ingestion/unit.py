"""One video, read into one session: the whole of it, or what has not been read yet."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rekv.errors import SessionError, StoreError, WriteError
from rekv.ingestion.going_on import Reading, find_source, is_done, plan, text
from rekv.store.catalog import FILE
from rekv.store.info import taken
from rekv.store.store import Store

if TYPE_CHECKING:
    from rekv.core import Frame
    from rekv.engine import Model, Session
    from rekv.sources import VideoFile
    from rekv.store.keeper import Keeper
    from rekv.store.meta import SessionMeta

Show = Callable[["Session", "VideoFile", float], AbstractContextManager[Callable[[object], None]]]


class Stopped(BaseException):
    """Ends `append` between two frames.

    It is no Exception, so that frames of a batch that is not full are dropped, not encoded: when they are read again,
    encode calls are those of an uninterrupted reading, and what they compute is equal to the last bit.
    """


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. Times are in seconds of the session."""

    session: str
    video: str
    status: str  # "finished", "interrupted", "already" (there was nothing new), "failed"
    frames: int = 0  # of the session
    frames_read: int = 0
    start: float | None = None
    end: float | None = None
    bytes: int | None = None  # of the session on disk
    seconds: float = 0.0  # that it took
    error: str | None = None  # why it failed

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "error" or value is not None}


@dataclass(frozen=True, slots=True)
class Found:
    """A session that is there already."""

    name: str
    meta: "SessionMeta"
    frames: int
    done: bool  # the video has been read to its end
    begun: bool  # it has been read, or nothing has

    @property
    def model(self) -> str:
        return self.meta.model.name

    @property
    def dtype(self) -> str:
        return self.meta.model.dtype

    def require(self, encode: Mapping[str, Any], *, kv: str | None, dtype: str | None) -> None:
        """Raise `SessionError` if it cannot go on with these settings: before the model is loaded."""
        meta, where = self.meta, f"session {self.name!r}"
        meta.require_same_encoding(meta.encode.but(**encode), meta.init_ids, where, meta.grid)
        if dtype is not None and dtype != meta.model.dtype:
            raise SessionError(
                f"{where} was made in {meta.model.dtype}, not {dtype}: appending needs the same model in the same "
                f"dtype; leave out --dtype, or start another session"
            )
        if kv is not None and kv != meta.codec:
            raise SessionError(f"{where} is stored as {meta.codec}: leave out --kv, or start another session")


def look(store: Store, name: str, video: "VideoFile") -> Found | None:
    """What a session has of the video; None if there is no session. Raises `StoreError` if it cannot be opened."""
    if not (store.path(name) / FILE).exists():
        return None
    folder = store.open(name)
    try:
        sources = folder.catalog.sources()
        source = find_source(sources, video.identity, video.start)
        done = is_done(source, video.identity)
        return Found(folder.path.name, folder.meta, folder.frames, done, source is not None or not sources)
    finally:
        folder.close()


def read(
    model: "Model",
    video: "VideoFile",
    name: str,
    store: Path,
    settings: Mapping[str, Any],
    stop: Callable[[], bool],
    show: Show,
) -> Report:
    """Append to a session what of the video has not been read yet, until `stop()`, which is asked at every frame.

    `settings` are those of `Model.session`. `show(session, video, shift)` gives what is called after every encode call;
    `shift` is what is added to the video's times, in seconds. Raises `StoreError` if the session cannot be written.
    """
    try:
        with model.session(name, store=store, **settings) as session:
            return _read(session, video, name, stop, show)
    except WriteError as error:
        raise StoreError(
            f"session {name!r} cannot be written: {error.reason}. {error.durable} "
            f"{'frame is' if error.durable == 1 else 'frames are'} safe; mend this, and the same command goes on from "
            f"there"
        ) from error


def _read(session: "Session", video: "VideoFile", name: str, stop: Callable[[], bool], show: Show) -> Report:
    keeper, memory, fps = _keeper(session), session.memory, session.config.sample_fps
    reading = Reading()
    if keeper.exists:
        session.append(())  # from here on nobody else writes it
        reading = plan(keeper.folder.catalog, video.identity, video.start, 1 / fps)
        video.after = reading.after
    before, started = memory.frames, perf_counter()
    frames = _Frames(video, fps, reading.shift, stop)
    status = "finished"
    if frames.first is None:
        _finish(keeper, reading.source, video)
        return Report(name, video.path, "already", before)
    session.fit(frames.first.image)
    session.append(())
    path, size = video.identity or (video.path, None)
    number = reading.source or keeper.folder.catalog.begin_source(text(path), size, video.start, reading.shift, before)
    try:
        with show(session, video, reading.shift) as shown:
            session.append(frames, on_progress=shown)
        _finish(keeper, number, video)
    except Stopped:
        status = "interrupted"
    session.flush()
    new = memory.times[before : memory.frames]
    return Report(
        name,
        video.path,
        status,
        memory.frames,
        len(new),
        new[0] if new else None,
        new[-1] + 1 / fps if new else None,
        taken(keeper.path),
        perf_counter() - started,
    )


class _Frames:
    """The frames of a video in the session's time. The first one is fetched before anything is written."""

    def __init__(self, video: "VideoFile", sample_fps: float, shift: float, stop: Callable[[], bool]) -> None:
        self._frames, self._shift, self._stop = video.frames(sample_fps), shift, stop
        self.first = next(self._frames, None)

    def __iter__(self) -> "Iterator[Frame]":
        first, self.first = self.first, None
        if first is not None:
            yield self._shifted(first)
        for frame in self._frames:
            yield self._shifted(frame)

    def _shifted(self, frame: "Frame") -> "Frame":
        if self._stop():
            raise Stopped
        return replace(frame, time=frame.time + self._shift) if self._shift else frame


def _keeper(session: "Session") -> "Keeper":
    if session.keeper is None:
        raise RuntimeError("a session with a name has a keeper")
    return session.keeper


def _finish(keeper: "Keeper", source: int | None, video: "VideoFile") -> None:
    """Note that there is no more of it; with --end there may be."""
    if source is not None and video.end is None:
        keeper.finish_source(source)
