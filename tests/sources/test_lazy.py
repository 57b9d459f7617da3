"""Leaving out what need not be decoded changes nothing but the work."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rekv.sources import Sampler, video
from rekv.sources.lazy import LazyDecoder
from rekv.sources.picture import ToRGB
from rekv.sources.track import VideoTrack
from tests.sources.films import decode_all, film, number

X264 = "keyint=25:min-keyint=25:scenecut=0"
X265 = f"log-level=none:{X264}"
STEADY = {"sc_threshold": "1000000000"}  # no keyframes beside the regular ones
UNEVEN = [0, 40, 55, 300, 310, 320, 999, 1000, 1001, 1900, 2500, 2540, 2580, 4000, 4001, 6000, 6040, 9000]

FILMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "closed gop": (".mp4", {"options": {"x264-params": f"{X264}:bframes=0"}}),
    "b-frames": (".mp4", {"options": {"x264-params": f"{X264}:bframes=3:b-pyramid=normal"}}),
    "open gop": (".mp4", {"options": {"x264-params": f"{X264}:bframes=3:b-adapt=0:open-gop=1"}}),
    "matroska": (".mkv", {}),
    "transport stream": (".ts", {}),
    "no keyframes but the first": (".ts", {"options": {"x264-params": "intra-refresh=1:keyint=25"}}),
    "no keyframes but the first, matroska": (".mkv", {"options": {"x264-params": "intra-refresh=1:keyint=25"}}),
    "one gop": (".mp4", {"gop": 1000}),
    "variable rate": (".mp4", {"pictures": UNEVEN, "tick": Fraction(1, 1000), "gop": 5}),
    "hevc": (".mp4", {"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=0"}}),
    "hevc, open gop": (
        ".mp4",
        {"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=1:b-adapt=0"}},
    ),
    "mpeg-4": (".mp4", {"codec": "mpeg4", "options": {"bf": "2", **STEADY}}),
    "mpeg-2": (
        ".mpg",
        {"codec": "mpeg2video", "container": "mpeg", "gop": 12, "options": {"bf": "2", **STEADY}},
    ),
    "vp9": (
        ".webm",
        {"codec": "libvpx-vp9", "pictures": 75, "options": {"deadline": "realtime", "cpu-used": "8"}},
    ),
    "motion jpeg": (".mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    "lossless": (".mkv", {"codec": "ffv1", "pictures": 75}),
}


@pytest.fixture(scope="session", params=FILMS)
def any_film(request: pytest.FixtureRequest, folder: Path) -> Path:
    ending, settings = FILMS[request.param]
    return film(folder / f"{request.param}{ending}", **settings)


@pytest.mark.parametrize("sample_fps", [0.5, 1.0, 3.3, 25.0])
def test_same_pictures_as_decoding_everything(any_film: Path, sample_fps: float) -> None:
    for start, end in [
        (0.0, None),
        (0.04, None),
        (0.93, 1.9),
        (1.001, None),
        (1.961, None),
        (0.321, None),
        (2.321, None),
    ]:
        expected = decode_all(any_film, sample_fps, start, end)
        frames = list(video(any_film, sample_fps=sample_fps, start=start, end=end))
        assert [frame.time for frame in frames] == pytest.approx([time for time, _ in expected], abs=1e-6)
        for frame, (_, image) in zip(frames, expected, strict=True):
            assert np.array_equal(frame.image, image)


class CountingCodec:
    """Passes on to a real decoder, and counts."""

    def __init__(self, codec: Any) -> None:
        codec.thread_count = 1  # a decoder with threads asks for one packet more per thread
        self._codec = codec
        self.packets = 0

    def decode(self, packet: Any) -> Any:
        self.packets += packet is not None
        return self._codec.decode(packet)

    def flush_buffers(self) -> None:
        self._codec.flush_buffers()


@dataclass
class Reading:
    """What reading a file with a `LazyDecoder` gave, and what it took."""

    taken: list[int] = field(default_factory=list)  # the numbers of the pictures
    damages: list[float] = field(default_factory=list)  # seconds
    decoded: int = 0  # packets
    held: int = 0  # bytes, at most


def read(path: Path, sample_fps: float, *, stamped: int | None = None, **settings: Any) -> Reading:
    """Read with a `LazyDecoder`. From packet `stamped` on, timestamps are taken away."""
    reading = Reading()
    sampler = Sampler(sample_fps)
    with VideoTrack(path) as track:
        codec: Any = CountingCodec(track.stream.codec_context)
        decoder = LazyDecoder(codec, track.timeline, reading.damages.append, **settings)
        to_rgb = ToRGB("test")

        def pictures() -> Iterator[Any]:
            for i, packet in enumerate(track.packets()):
                if stamped is not None and i >= stamped:
                    packet.pts = None
                yield from decoder.feed(packet, sampler.wanted)
                reading.held = max(reading.held, decoder.pending_bytes)
            yield from decoder.finish(sampler.wanted)

        for picture in pictures():
            if sampler.take(track.timeline.picture(picture.pts, picture.dts)):
                reading.taken.append(number(to_rgb(picture)))
        reading.decoded = codec.packets
    return reading


@pytest.fixture(scope="session")
def long_film(folder: Path) -> Path:
    """40 s with a keyframe each second and two B-frames at a time."""
    return film(folder / "long.mp4", 1000, options={"x264-params": f"{X264}:bframes=2:b-adapt=0"})


def test_decodes_only_the_runs_that_lead_to_a_wanted_picture(long_film: Path) -> None:
    reading = read(long_film, 0.5)
    assert reading.taken == list(range(0, 1000, 50))
    # The first second proves the keyframe marks; then a keyframe and those that make the decoder release it.
    assert reading.decoded <= 30 + 19 * 5


def test_a_wanted_time_just_before_a_keyframe_costs_no_run(long_film: Path) -> None:
    reading = read(long_film, 1 / 1.9999)  # picture 50 k is the first at or after k * 1.9999 s
    assert reading.taken == list(range(0, 1000, 50))
    assert reading.decoded <= 30 + 19 * 5


def test_decodes_everything_where_everything_is_wanted(long_film: Path) -> None:
    reading = read(long_film, 25)
    assert (reading.taken, reading.decoded) == (list(range(1000)), 1000)


def test_decodes_everything_once_timestamps_are_missing(long_film: Path) -> None:
    reading = read(long_film, 0.5, stamped=510)
    assert reading.taken == list(range(0, 1000, 50))
    assert 490 <= reading.decoded <= 490 + 30 + 10 * 5


def test_what_is_held_back_is_bounded(folder: Path) -> None:
    path = film(folder / "two keyframes.mp4", 300, gop=1000, keyframes=[10], options={"forced-idr": "1"})
    with av.open(path) as container:
        sizes = [packet.size for packet in container.demux(video=0)]
    unbounded, bounded = read(path, 0.2), read(path, 0.2, max_pending_bytes=2000)
    assert unbounded.taken == bounded.taken == [0, 125, 250]
    assert unbounded.held > 4000 > bounded.held
    assert bounded.held <= 2000 + max(sizes)


def test_false_keyframe_marks_cost_no_picture(folder: Path) -> None:
    path = film(folder / "marked.mp4", 200, "mpeg4", muxer={"movflags": "faststart"})
    marked = folder / "all marked.mp4"
    marked.write_bytes(path.read_bytes().replace(b"stss", b"free"))  # without the list, every packet is a keyframe
    with av.open(marked) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    assert read(marked, 0.5).taken == [0, 50, 100, 150]
    expected = decode_all(path, 0.5)
    for frame, (_, image) in zip(video(marked, sample_fps=0.5), expected, strict=True):
        assert np.array_equal(frame.image, image)


def test_a_last_keyframe_is_enough_for_the_last_frame(folder: Path) -> None:
    path = film(folder / "last.mp4", 76, options={"x264-params": f"{X264}:bframes=0"})
    reading = read(path, 0.4)
    assert reading.taken == [0, 63]
    reading = read(path, 1 / 2.99)
    assert reading.taken == [0, 75]
    assert reading.decoded <= 26 + 1 + 2


def test_pictures_that_the_decoder_marks_as_damaged_are_left_out(ts: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.ts"
    data = ts.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        pictures = [(frame.pts or 0, frame.is_corrupt) for frame in container.decode(video=0)]
    assert [corrupt for _, corrupt in pictures] == [False] * (len(pictures) - 1) + [True]
    reading = read(path, 25)
    assert len(reading.taken) == len(pictures) - 1
    assert reading.damages == pytest.approx([(pictures[-1][0] - pictures[0][0]) / 90000])
