"""Damaged, cut, wrong and hostile files: used as far as they go, or refused with a message that helps."""

import io
import logging
import math
import os
import random
import struct
import wave
import zlib
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from rekv.errors import VideoError
from rekv.sources import VideoWriter, video
from rekv.sources.track import VideoTrack
from tests.sources.films import film, number, numbers, picture, times


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def cut(path: Path, share: float, folder: Path) -> Path:
    data = path.read_bytes()
    short = folder / f"cut-{path.name}"
    short.write_bytes(data[: int(len(data) * share)])
    return short


@pytest.mark.parametrize("sample_fps", [1.0, 25.0])
@pytest.mark.parametrize("name", ["mp4", "mkv"])
def test_cut_file_is_used_as_far_as_it_goes(
    name: str, sample_fps: float, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = cut(request.getfixturevalue(name), 0.6, tmp_path)
    frames = list(video(path, sample_fps=sample_fps))
    assert 1.9 < frames[-1].time < 3.0
    assert [number(frame.image) for frame in frames] == [round(frame.time * 25) for frame in frames]
    (warning,) = [text for text in warnings(caplog) if "cut short" in text]
    assert path.name in warning
    assert f"stops at {frames[-1].time:.0f}." in warning or sample_fps == 25
    assert "claims 4.00 s" in warning


def test_a_torn_last_packet_is_enough_for_a_warning(
    mp4: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "torn.mp4"
    path.write_bytes(mp4.read_bytes()[:-20])
    assert numbers(iter(video(path, sample_fps=25)))[:-2] == list(range(97))
    (warning,) = warnings(caplog)
    assert "cut short" in warning


def test_cut_transport_stream(ts: Path, tmp_path: Path) -> None:
    frames = list(video(cut(ts, 0.6, tmp_path), sample_fps=25))
    assert 50 < len(frames) < 65
    *whole, _ = frames  # with several threads FFmpeg notices too late, at times, that the last one is torn
    assert [number(frame.image) for frame in whole] == [round(frame.time * 25) for frame in whole]


def test_whole_files_are_read_without_a_word(mp4: Path, mkv: Path, ts: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (mp4, mkv, ts):
        for sample_fps in (0.5, 25.0):
            list(video(path, sample_fps=sample_fps))
            list(video(path, sample_fps=sample_fps, end=1.5))
    assert not caplog.records


def scramble(data: bytes, seed: int, first: int, places: int = 6, length: int = 60) -> bytes:
    """Overwrite some runs of bytes after `first`."""
    chance = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(places):
        at = chance.randrange(first, len(data) - length)
        damaged[at : at + length] = chance.randbytes(length)
    return bytes(damaged)


def test_damage_in_the_middle_is_left_out_with_one_warning(
    mp4: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = mp4.read_bytes()
    path = tmp_path / "damaged.mp4"
    path.write_bytes(scramble(data, seed=1, first=data.index(b"mdat") + 1000))
    frames = list(video(path, sample_fps=25))
    assert 80 < len(frames) < 100
    assert frames[-1].time > 3.8
    (warning,) = warnings(caplog)
    assert "damaged and left out, the first at" in warning


def test_reading_goes_on_after_an_error_in_the_container(tmp_path: Path) -> None:
    data = film(tmp_path / "film.rm", 40, "rv10").read_bytes()
    path = tmp_path / "damaged.rm"
    for seed in range(500):
        path.write_bytes(scramble(data, seed, first=len(data) // 4, places=1, length=20))
        if error_in_the_middle(path):
            break
    else:
        pytest.fail("no seed damages the container so that FFmpeg reports it and reads on")
    assert numbers(iter(video(path, sample_fps=25)))[-1] == 39


def error_in_the_middle(path: Path) -> bool:
    with av.open(path) as container:
        read = 0
        with suppress(av.FFmpegError):
            read += sum(1 for packet in container.demux(video=0) if packet.size)
            return False
        with suppress(av.FFmpegError):
            return sum(1 for packet in container.demux(video=0) if packet.size) > 20
    return False


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "hevc", "mpeg4", "vp9"])
def test_no_damage_raises_anything_but_a_video_error(
    name: str, request: pytest.FixtureRequest, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipes = {
        "hevc": ("damage.mp4", "libx265", {"x265-params": "log-level=none"}),
        "mpeg4": ("damage.avi", "mpeg4", {}),
        "vp9": ("damage.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    }
    if name in recipes:
        file, codec, options = recipes[name]
        source = film(tmp_path / file, 50, codec, options=options)
    else:
        source = request.getfixturevalue(name)
    data = source.read_bytes()
    path = tmp_path / "scrambled"
    capfd.readouterr()
    read = 0
    for seed in range(12):
        path.write_bytes(scramble(data, seed, first=0 if seed % 2 else len(data) // 4)[: len(data) - seed * 97])
        try:
            seen = [frame.time for frame in video(path, sample_fps=4, start=0.3 * (seed % 3))]
        except VideoError:
            continue
        assert seen == sorted(set(seen))
        read += 1
    assert read > 0
    assert capfd.readouterr() == ("", "")  # FFmpeg complains to nobody


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    return tmp_path / "wrong.mp4"


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"nowhere\.mp4: no such file; check the path"):
        video(tmp_path / "nowhere.mp4")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="is a directory"):
        video(tmp_path)


def test_empty(wrong: Path) -> None:
    wrong.touch()
    with pytest.raises(VideoError, match="is empty"):
        video(wrong)


def test_unreadable(mp4: Path, tmp_path: Path) -> None:
    private = tmp_path / "private.mp4"
    private.write_bytes(mp4.read_bytes())
    private.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # nobody: to root everything is readable
    try:
        with pytest.raises(VideoError, match="no permission to read it"):
            video(private)
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4"])
def test_text(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("Not a video at all.\n" * 100)
    with pytest.raises(VideoError, match="is not a video in a format that FFmpeg knows"):
        video(path)
    with path.open("rb") as opened, pytest.raises(VideoError, match="is not a video"):
        video(opened)


def test_noise(wrong: Path) -> None:
    wrong.write_bytes(random.Random(0).randbytes(100_000))
    with pytest.raises(VideoError, match=r"cannot be read|no video track|could be decoded"):
        list(video(wrong, sample_fps=1))


def test_index_missing(folder: Path, tmp_path: Path) -> None:
    path = cut(film(folder / "index last.mp4", 50), 0.7, tmp_path)
    with pytest.raises(VideoError, match=r"MP4 file without its index \(moov\)"):
        video(path)


def test_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    with wave.open(str(path), "wb") as tone:
        tone.setnchannels(1)
        tone.setsampwidth(2)
        tone.setframerate(8000)
        tone.writeframes(bytes(16000))
    with pytest.raises(VideoError, match=r"no video track \(it has: audio\)"):
        video(path)


def test_subtitles_only(tmp_path: Path) -> None:
    path = tmp_path / "words.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n00:00:03,000 --> 00:00:04,000\nAgain\n")
    with pytest.raises(VideoError, match=r"no video track \(it has: subtitle\)"):
        video(path)


def test_start_after_the_end(mp4: Path, ts: Path) -> None:
    for path in (mp4, ts):
        for start in (4.0, 100.0, 1e300):
            with pytest.raises(VideoError, match=r"ends at 4\.00 s; it has no picture from .* start earlier"):
                next(iter(video(path, sample_fps=1, start=start)))


def test_a_range_between_two_pictures(mp4: Path) -> None:
    with pytest.raises(VideoError, match=r"no picture from 1\.01 s to 1\.03 s"):
        list(video(mp4, sample_fps=1, start=1.01, end=1.03))


def test_nothing_that_decodes(mp4: Path, wrong: Path) -> None:
    data = mp4.read_bytes()
    at = data.index(b"mdat") + 4
    wrong.write_bytes(data[:at] + bytes(len(data) - at))
    with pytest.raises(VideoError, match=r"no picture of .* could be decoded"):
        list(video(wrong, sample_fps=1))


@pytest.mark.parametrize("address", ["rtsp://camera/1", "https://example.org/film.mp4", "concat://a|b"])
def test_addresses(address: str) -> None:
    with pytest.raises(VideoError, match="reads local files so far"):
        video(address)


@pytest.mark.parametrize("path", ["concat:film.mp4|film.mp4", "file:film.mp4", "subfile,,start,0,end,9,,:film.mp4"])
def test_a_path_is_a_path_and_no_protocol(path: str, mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mp4.parent)
    assert Path("film.mp4").exists()
    with pytest.raises(VideoError, match="no such file"):
        video(path)


SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 50044 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfilm.ts\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", HLS),
        ("list.mp4", HLS),
        ("list.ffconcat", "ffconcat version 1.0\nfile film.ts\n"),
        ("list.sdp", SDP),
    ],
)
@pytest.mark.parametrize("opened", [False, True])
def test_lists_of_other_files_are_not_followed(name: str, text: str, opened: bool, ts: Path) -> None:
    path = ts.parent / name  # beside the film that it names
    path.write_text(text)
    with path.open("rb") as file, pytest.raises(VideoError, match="list of other files, which rekv does not follow"):
        video(file if opened else path)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_picture_that_claims_to_be_huge(side: int, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))
    with pytest.raises(VideoError, match="100 million"):
        list(video(path, sample_fps=1))


def test_a_picture_that_is_huge_is_not_even_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    width, height = 12_000, 9_000
    rows = zlib.compressobj(1)
    body = b"".join([rows.compress(bytes(1 + width)) for _ in range(height)] + [rows.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    with VideoTrack(path) as track:
        (packet,) = track.packets()
        codec = track.stream.codec_context
        with pytest.raises(av.FFmpegError):
            _ = [*codec.decode(packet), *codec.decode(None)]


def test_a_track_that_claims_to_be_huge(wrong: Path) -> None:
    path = film(wrong.with_suffix(".avi"), 3, "rawvideo")
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 12
    assert data[at : at + 8] == struct.pack("<ii", 128, 96)
    data[at : at + 8] = struct.pack("<ii", 50_000, 50_000)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="100 million"):
        list(video(path, sample_fps=1))


@pytest.mark.parametrize("claim", [1.0, 1e15, -5.0, math.nan, math.inf])  # milliseconds
def test_claimed_durations_change_nothing(claim: float, mkv: Path, tmp_path: Path) -> None:
    data = bytearray(mkv.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    assert data[at : at + 8] == struct.pack(">d", 4000)
    data[at : at + 8] = struct.pack(">d", claim)
    path = tmp_path / "claim.mkv"
    path.write_bytes(data)
    file = video(path, sample_fps=1)
    assert file.duration is None or file.duration == pytest.approx(claim / 1000)
    assert numbers(iter(file)) == [0, 25, 50, 75]


def test_times_are_never_negative_and_always_rise(mp4: Path, wrong: Path) -> None:
    data = mp4.read_bytes()
    for seed in range(8):  # damage to the index: sizes, times, order
        index = data[: data.index(b"mdat")]
        wrong.write_bytes(scramble(index, seed, len(index) // 2, places=2, length=8) + data[len(index) :])
        try:
            seen = times(iter(video(wrong, sample_fps=25)))
        except VideoError:
            continue
        assert min(seen) >= 0
        assert seen == sorted(set(seen))


def test_picture_helper_tells_pictures_apart() -> None:
    assert [number(picture(i)) for i in range(200)] == list(range(200))


@pytest.mark.parametrize("at", [0, 40_000], ids=["opening", "reading"])
def test_interrupt_while_a_pipe_is_waited_for(tmp_path: Path, at: int) -> None:
    """PyAV swallows what the file raises: Ctrl-C must come through all the same, and at once."""
    path = tmp_path / "film.ts"
    with VideoWriter(path, 64, 64, 10) as writer:
        for i in range(400):
            writer.write(np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8))

    class Pipe(io.BytesIO):
        reads = 0

        def seekable(self) -> bool:
            return False

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= at:
                self.reads += 1
                raise KeyboardInterrupt
            return super().read(min(size or 1, 4096))

    pipe = Pipe(path.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        list(video(pipe, sample_fps=10.0))
    assert pipe.reads == 1
