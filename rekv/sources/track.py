"""The video track of an open file: its packets, its clock, and a way to enter it in the middle."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from typing import BinaryIO, Self, cast

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.container.core import Flags as ContainerFlags
from av.format import Flags as FormatFlags
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from rekv.errors import VideoError
from rekv.sources.lazy import VideoPacket
from rekv.sources.picture import MAX_PIXELS, check_size
from rekv.sources.source import Content, Source, explain, name_of, open_bytes
from rekv.sources.timeline import Timeline

# FFmpeg reads through a file object that we opened. With no protocol allowed it opens nothing on its own:
# neither the entries of a playlist nor a network address. `max_pixels` bounds what it decodes on opening.
OPTIONS = {"protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)}
BUFFER_SIZE = 1 << 18  # bytes per read
RETRIES = 32  # failed reads in a row after which a file is given up
SEEK_MARGINS = (0.0, 10.0)  # seconds; files are searched by decoding time, which is before the time shown
STILLS = Disposition.attached_pic | Disposition.timed_thumbnails  # tracks beside the film, such as cover art
DEFAULT_RATE = Fraction(25)  # pictures per second


class VideoTrack:
    """The video track of a file. Holds the file open: use it in a `with` statement, or close it."""

    def __init__(self, source: Source) -> None:
        """Raises VideoError if there is no video to read."""
        self.name = name_of(source)
        with ExitStack() as stack:
            self._file = open_bytes(source)
            if self._file is not source:
                stack.callback(self._file.close)
            self._content = Content(self._file)
            self._container = stack.enter_context(_open_container(self._content, self._file, self.name))
            self.stream = _choose(self._container, self.name)
            self.rate = self.stream.average_rate or self.stream.guessed_rate  # pictures per second
            self.timeline = _timeline(self._container, self.stream, self.rate)
            self._close = stack.pop_all().close
        self.end = 0.0  # seconds: the latest end of a picture among the packets read
        self.entered = False  # reading begins in the middle
        self.cut = False  # reading stopped at an error, or in the middle of a packet
        self._packets: Iterable[VideoPacket] = self._demux()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._close()

    @property
    def duration(self) -> float | None:
        """Seconds, if the file claims a sensible length."""
        if self.stream.duration is not None:
            duration = self.timeline.seconds((self.stream.start_time or 0) + self.stream.duration)
        else:
            duration = (self._container.duration or 0) / av.time_base
        return duration if duration > 0 else None

    @property
    def rewindable(self) -> bool:
        """Whether the file can be read more than once; a pipe cannot."""
        return self._file.seekable()

    @property
    def searchable(self) -> bool:
        """Whether a packet can be found by its time: not where timestamps are missing or may start anew."""
        return self.rewindable and not self._has(FormatFlags.no_timestamps) and not self._may_restart

    @property
    def _may_restart(self) -> bool:
        return self._has(FormatFlags.ts_discont)

    def _has(self, flag: FormatFlags) -> bool:
        return bool(self._container.format.flags & cast(int, flag.value))

    def enter(self, time: float) -> bool:
        """Go to a keyframe shown at or before `time` (seconds).

        If False is returned, none was found and the place in the file is lost.
        """
        for margin in SEEK_MARGINS:
            try:
                self._container.seek(self.timeline.timestamp(time - margin), stream=self.stream)
            except (av.FFmpegError, OSError, OverflowError):
                return False
            packets = self._demux()
            keyframe = next((packet for packet in packets if packet.is_keyframe), None)
            if keyframe is None or keyframe.pts is None:
                return False
            if self.timeline.seconds(keyframe.pts) <= time:
                self._packets = chain([keyframe], packets)
                self.entered = True
                return True
        return False

    def packets(self) -> Iterator[VideoPacket]:
        """The packets from here on, in file order, as far as the file can be read. To be called once."""
        for packet in self._packets:
            if packet.is_corrupt and not self._may_restart:
                self.cut = True  # the end of the file is in it
                continue
            shift = self.timeline.shift(packet.dts, packet.duration)
            packet.dts = None if packet.dts is None else packet.dts + shift
            packet.pts = None if packet.pts is None else packet.pts + shift
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is not None:
                self.end = max(self.end, self.timeline.seconds(stamp + (packet.duration or 0)))
            yield packet

    def _demux(self) -> Iterator[VideoPacket]:
        failures = 0
        while failures < RETRIES:
            try:
                for packet in self._container.demux(self.stream):
                    failures = 0
                    if packet.size:  # an empty one repeats a picture, but to a decoder it means the end
                        yield packet
                self._content.check()
                return
            except (av.FFmpegError, OSError, IndexError):  # IndexError: PyAV's, for packets of unknown tracks
                self._content.check()
                failures += 1
        self.cut = True


def _open_container(content: Content, file: BinaryIO, name: str) -> InputContainer:
    try:
        container = av.open(content, "r", options=OPTIONS, buffer_size=BUFFER_SIZE, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        content.check()
        reason = error.strerror or error
        raise VideoError(f"{name} cannot be read: {explain(file)} (FFmpeg: {reason})") from error
    content.check()
    if container.format.name == "avi":
        # AVI has no presentation timestamps. Those that FFmpeg makes up are wrong for reordered pictures.
        container.flags &= ~cast(int, ContainerFlags.gen_pts.value)
    return container


def _choose(container: InputContainer, name: str) -> VideoStream:
    """The film, made ready to decode: of several video tracks the default one, then the largest."""
    films = [stream for stream in container.streams.video if not stream.disposition & STILLS]
    if not films:
        kinds = sorted({"a still picture" if s.type == "video" else s.type for s in container.streams})
        raise VideoError(f"{name} has no video track (it has: {', '.join(kinds) or 'nothing'}); give a video file")
    known = [stream for stream in films if stream.codec_context is not None]
    if not known:
        raise VideoError(f"{name}: this FFmpeg has no decoder for its video; re-encode it, for example as H.264")
    film = max(known, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height, -s.index))
    check_size(name, film.width, film.height)
    for stream in container.streams:
        if stream is not film:
            stream.discard = Discard.all
    film.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    film.codec_context.thread_type = ThreadType.AUTO
    return film


def _timeline(container: InputContainer, stream: VideoStream, rate: Fraction | None) -> Timeline:
    tick = stream.time_base or Fraction(1, av.time_base)
    origin = Fraction(container.start_time or 0, av.time_base)
    if stream.start_time is not None and abs(stream.start_time * tick - origin) <= Fraction(1, av.time_base):
        origin = stream.start_time * tick  # the same, without the rounding to microseconds
    return Timeline(tick, origin, rate if rate is not None and 0 < rate <= 1000 else DEFAULT_RATE)
