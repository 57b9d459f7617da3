"""Decoding only what a wanted picture depends on."""

import logging
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from rekv.sources.sampling import TOLERANCE
from rekv.sources.timeline import Timeline

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # takes a parameter only in its type stubs

logger = logging.getLogger(__name__)

MAX_PENDING_BYTES = 32 << 20


class FalseKeyframeError(Exception):
    """Decoding began at a packet that only claimed to be a keyframe: some of the pictures after it are missing."""


class LazyDecoder:
    """Decodes one track's packets, fed in file order, leaving out what the wanted pictures do not depend on.

    Packets are held back until one shows that the wanted time is reached; then all that are held are decoded.
    If a keyframe comes before that, those ahead of it are dropped: their pictures are shown before the
    keyframe's, and no picture from the keyframe on depends on them. The exception is pictures that follow a
    keyframe in the file but are shown before it (an "open" group of pictures); they depend on both sides, so
    a drop waits until it is certain that none of them is wanted.

    So what is decoded are the runs from the last keyframe before a wanted picture up to that picture, and the
    pictures are the same as if everything were decoded. Which packets are keyframes is only a claim: nothing
    is left out before one in the middle of the stream was decoded to an intra picture, nor after one was not.
    """

    def __init__(
        self,
        codec: VideoCodecContext,
        timeline: Timeline,
        damaged: Callable[[float], None],
        max_pending_bytes: int = MAX_PENDING_BYTES,
        *,
        entered: bool = False,
    ) -> None:
        """`damaged` is told the time, in seconds, of each packet or picture that cannot be decoded.

        `entered`: the first packet is a keyframe in the middle of the track. Feeding and finishing raise
        FalseKeyframeError, before any picture from its time on, if it turns out to be none.
        """
        self._codec = codec
        self._timeline = timeline
        self._damaged = damaged
        self._max_pending_bytes = max_pending_bytes
        self._entered = entered  # and not known yet whether at a keyframe, which says nothing of the others
        self._entry: int | None = None  # timestamp of the packet to tell by
        self._honest: bool | None = None  # keyframes are what they claim to be; None = not known yet
        self._pending: list[VideoPacket] = []
        self.pending_bytes = 0  # the size of the packets held back
        self._keyframe: int | None = None  # index in `_pending`: those before it may not be needed
        self._newest = -math.inf  # seconds: the latest picture among the packets that were not dropped
        self._proof: int | None = None  # timestamp of a keyframe whose picture will show if it is one
        self._flush = False  # the packets before `_pending` were not decoded

    def feed(self, packet: VideoPacket, wanted: float) -> Iterator[VideoFrame]:
        """Take the next packet; yield pictures in the order they are shown.

        Of those at or after `wanted` (seconds; must not fall from call to call) none is left out. Iterate to
        the end before feeding the next packet.
        """
        if packet.pts is None:
            self._honest = False  # when it is shown is known only once it is decoded
        time = self._time(packet)
        if self._newest == -math.inf:
            self._entry = packet.pts
        elif packet.is_keyframe and self._honest is None:
            self._proof = packet.pts
        if self._keyframe is not None:
            shown = self._time(self._pending[self._keyframe])
            if time > shown:
                self._drop()
            elif time >= min(wanted - TOLERANCE, shown):  # wanted; or two at one time, so timestamps are off
                self._keyframe = None
        if packet.is_keyframe and self._pending and self._newest < wanted - TOLERANCE:
            self._keyframe = len(self._pending)
        self._pending.append(packet)
        self.pending_bytes += packet.size
        self._newest = max(self._newest, time)
        reached = self._newest >= wanted - TOLERANCE and self._keyframe is None
        if reached or not self._honest or self.pending_bytes > self._max_pending_bytes:
            yield from self._decode_pending()

    def finish(self, wanted: float) -> Iterator[VideoFrame]:
        """No packet follows: yield what is left from `wanted` on."""
        if self._keyframe is not None:
            self._drop()
        if self._newest >= wanted - TOLERANCE or not self._honest:
            yield from self._decode_pending()
            yield from self._decode(None)
        if self._entered:
            raise FalseKeyframeError

    def _drop(self) -> None:
        """Forget the packets before the keyframe."""
        keyframe = self._pending[self._keyframe or 0]
        self._pending = self._pending[self._keyframe :]
        self.pending_bytes = sum(packet.size for packet in self._pending)
        self._keyframe = None
        self._proof = keyframe.pts
        self._flush = True
        self._newest = self._time(keyframe)

    def _decode_pending(self) -> Iterator[VideoFrame]:
        if self._flush:
            self._codec.flush_buffers()
            self._flush = False
        pending, self._pending, self.pending_bytes, self._keyframe = self._pending, [], 0, None
        for packet in pending:
            yield from self._decode(packet)

    def _decode(self, packet: VideoPacket | None) -> Iterator[VideoFrame]:
        try:
            pictures = self._codec.decode(packet)
        except av.FFmpegError as error:
            logger.debug("decoding %s failed: %s", packet, error)
            self._damaged(self._time(packet))
            return
        for picture in pictures:
            self._check_entry(picture)
            self._check_keyframe(picture)
            if picture.is_corrupt:
                self._damaged(self._time(picture))
            else:
                yield picture

    def _check_entry(self, picture: VideoFrame) -> None:
        if not self._entered or (picture.pts is not None and picture.pts < (self._entry or 0)):
            return
        if picture.pts != self._entry or not _is_intra(picture):
            raise FalseKeyframeError
        self._entered = False

    def _check_keyframe(self, picture: VideoFrame) -> None:
        if self._proof is None or picture.pts is None or picture.pts < self._proof:
            return
        self._honest = _is_intra(picture) and picture.pts == self._proof and self._honest is not False
        self._proof = None
        if not self._honest:
            logger.info("a picture marked as a keyframe is none; from here on all pictures are decoded")

    def _time(self, item: VideoPacket | VideoFrame | None) -> float:
        """When it is shown, in seconds; if it does not say, the latest time known."""
        return self._newest if item is None or item.pts is None else self._timeline.seconds(item.pts)


def _is_intra(picture: VideoFrame) -> bool:
    return bool(picture.key_frame) or picture.pict_type == PictureType.I
