"""Video files as a source of frames."""

import logging
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from av.video.frame import VideoFrame

from rekv.core import Frame
from rekv.errors import ConfigError, VideoError
from rekv.sources.lazy import FalseKeyframeError, LazyDecoder
from rekv.sources.picture import MAX_PIXELS, ToRGB
from rekv.sources.sampling import Sampler
from rekv.sources.source import Source, name_of
from rekv.sources.track import VideoTrack

logger = logging.getLogger(__name__)

SHORTFALL = 1.0  # seconds that a file must end before the length it claims to count as cut short


class Identity(NamedTuple):
    """Which file a video is read from. One that is still being recorded keeps its path, and grows."""

    path: str  # absolute
    size: int  # bytes


def video(
    path: Source,
    *,
    sample_fps: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    after: float | None = None,
) -> "VideoFile":
    """Open a video file.

    `path` may also be an open binary file, or name a pipe, which can be read once. `sample_fps` is in
    pictures per second of video; None leaves it to the session that reads the file. `start` and `end`
    (exclusive; None = to the end) are times in the video, in seconds.

    `after` continues an earlier reading with the same settings: the frames later than this time, in seconds,
    that reading on would have given. They are found without decoding what comes before; of a pipe, the
    pictures up to then are read and dropped.

    Raises VideoError if there is no video to read, and ConfigError for settings out of range.
    """
    return VideoFile(path, sample_fps=sample_fps, start=start, end=end, after=after)


class VideoFile:
    """A video file: each iteration reads it anew and yields its frames as a stream, in bounded memory.

    Frame k is the first picture with a timestamp at or after `start + k / sample_fps`. Times are seconds from
    the stream's start as a player shows them, also with `start`. Pictures are upright RGB. With `after`, k
    counts on from where that time is, and frames up to it are left out.

    A file that is damaged or cut short is used as far as it goes, with a warning in the log.
    """

    path: str
    sample_fps: float | None
    start: float
    end: float | None
    after: float | None
    identity: Identity | None  # when it was opened; None if it is not a path of a regular file
    # What the file says of itself, for display. It may be wrong.
    duration: float | None  # seconds
    width: int  # pixels, before the picture is turned upright
    height: int
    codec: str
    fps: float | None  # pictures per second, on average

    def __init__(
        self,
        path: Source,
        *,
        sample_fps: float | None = None,
        start: float = 0.0,
        end: float | None = None,
        after: float | None = None,
    ) -> None:
        Sampler(1.0 if sample_fps is None else sample_fps, start, end, after)  # raises if one is out of range
        self.path = name_of(path)
        self.sample_fps = sample_fps
        self.start = start
        self.end = end
        self.after = after
        self._source = path
        self._unread: VideoTrack | None = None  # of a pipe, which cannot be opened a second time
        track = VideoTrack(path)
        self.identity = _identity(path)
        self.duration = track.duration
        self.width = track.stream.width
        self.height = track.stream.height
        self.codec = track.stream.codec_context.codec.canonical_name
        self.fps = None if track.rate is None else float(track.rate)
        self._rewindable = track.rewindable
        if self._rewindable:
            track.close()
        else:
            self._unread = track

    def __repr__(self) -> str:
        length = "unknown length" if self.duration is None else f"{self.duration:.1f} s"
        return f"<VideoFile {self.path}: {self.codec} {self.width}x{self.height}, {length}>"

    def __iter__(self) -> Iterator[Frame]:
        """The frames at `sample_fps`. Raises ConfigError if it was not given."""
        if self.sample_fps is None:
            raise ConfigError("say how many frames per second to read: video(path, sample_fps=...) or frames(...)")
        return self.frames(self.sample_fps)

    def frames(self, sample_fps: float) -> Iterator[Frame]:
        """The frames at `sample_fps` pictures per second.

        Raises VideoError if no picture can be decoded, or none lies between `start` and `end`. With `after`
        there is no error where nothing is left.
        """
        return self._frames(Sampler(sample_fps, self.start, self.end, self.after))

    def _frames(self, sampler: Sampler) -> Iterator[Frame]:
        with self._open(sampler.wanted) as track:
            try:
                yield from self._read(track, sampler)
                return
            except FalseKeyframeError:  # known before the first frame, so none is given twice
                logger.info("%s cannot be entered at %.2f s; it is read from its beginning", self.path, sampler.wanted)
        with VideoTrack(self._source) as track:
            yield from self._read(track, sampler)

    def _read(self, track: VideoTrack, sampler: Sampler) -> Iterator[Frame]:
        report = _Report()
        codec = track.stream.codec_context
        decoder = LazyDecoder(codec, track.timeline, report.damaged, entered=track.entered)
        to_rgb = ToRGB(self.path)
        try:
            for picture in _pictures(track, decoder, sampler):
                time = track.timeline.picture(picture.pts, picture.dts)
                report.decoded += 1
                report.last = max(report.last, time)
                if sampler.take(time):
                    report.taken += 1
                    yield Frame(to_rgb(picture), max(time, 0.0))
                if sampler.done:
                    break
            else:
                report.warn_if_short(track)
        except FalseKeyframeError:
            report = _Report()  # what was damaged will be met again
            raise
        finally:
            report.warn_of_damage(track)
        if not report.taken and self.after is None:
            raise VideoError(self._why_empty(report, max(track.end, report.last), sampler.done))

    def _open(self, time: float) -> VideoTrack:
        """The file, at a keyframe at or before `time` (seconds) if it can be entered there."""
        if not self._rewindable:
            track, self._unread = self._unread, None
            if track is None:
                raise VideoError(f"{self.path} is a pipe, which can be read only once; open it again")
            return track
        track = VideoTrack(self._source)
        if time > 0 and track.searchable and not track.enter(time):
            track.close()
            track = VideoTrack(self._source)
        return track

    def _why_empty(self, report: "_Report", length: float, passed_end: bool) -> str:
        if passed_end:
            return f"{self.path} has no picture from {self.start:g} s to {self.end:g} s; choose a wider range"
        if report.decoded or 0 < length <= self.start:
            return f"{self.path} ends at {length:.2f} s; it has no picture from {self.start:g} s on: start earlier"
        return (
            f"no picture of {self.path} could be decoded; it is damaged, or its pictures have more than "
            f"{MAX_PIXELS // 1_000_000} million pixels: copy it again or re-encode it"
        )


def _identity(source: Source) -> Identity | None:
    if not isinstance(source, str | os.PathLike):
        return None
    status = os.stat(source)
    return Identity(os.path.abspath(source), status.st_size) if stat.S_ISREG(status.st_mode) else None


def _pictures(track: VideoTrack, decoder: LazyDecoder, sampler: Sampler) -> Iterator[VideoFrame]:
    for packet in track.packets():
        yield from decoder.feed(packet, sampler.wanted)
    yield from decoder.finish(sampler.wanted)


class _Report:
    """What one reading of a file met."""

    def __init__(self) -> None:
        self.decoded = 0  # pictures
        self.taken = 0  # of them
        self.last = 0.0  # seconds: the latest picture decoded
        self._damages = 0
        self._first_damage = 0.0  # seconds

    def damaged(self, time: float) -> None:
        if not self._damages:
            self._first_damage = max(time, 0.0)
        self._damages += 1

    def warn_of_damage(self, track: VideoTrack) -> None:
        if self._damages:
            logger.warning(
                "%s: %d packets or pictures were damaged and left out, the first at %.2f s",
                track.name,
                self._damages,
                self._first_damage,
            )

    def warn_if_short(self, track: VideoTrack) -> None:
        """To be called when the file has been read to its end."""
        claimed = track.duration or 0.0
        if track.cut or track.end < claimed - SHORTFALL:
            logger.warning(
                "%s stops at %.2f s but claims %.2f s; it may be cut short. What is there is used",
                track.name,
                track.end,
                claimed,
            )
