"""Reading video files: times, ranges, tracks, sources."""

import io
import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.stream import Disposition

from rekv.core import Frame
from rekv.errors import ConfigError, VideoError
from rekv.sources import video
from tests.sources.films import HEIGHT, WIDTH, CountingFile, add_video, film, number, numbers, picture, times, write


def test_frames_are_pictures_with_their_times(mp4: Path) -> None:
    frames = list(video(mp4, sample_fps=5))
    assert all(isinstance(frame, Frame) for frame in frames)
    assert [frame.image.shape for frame in frames] == [(HEIGHT, WIDTH, 3)] * 20
    assert numbers(iter(frames)) == list(range(0, 100, 5))
    assert times(iter(frames)) == [i / 5 for i in range(20)]
    assert frames[3].image.flags.owndata  # it pins no decoder buffer


def test_what_the_file_says_of_itself(mp4: Path) -> None:
    file = video(str(mp4))
    assert (file.path, file.width, file.height, file.codec) == (str(mp4), WIDTH, HEIGHT, "h264")
    assert file.duration == pytest.approx(4.0)
    assert file.fps == pytest.approx(25.0)
    assert "h264 128x96, 4.0 s" in repr(file)


def test_reads_anew_each_time(mp4: Path) -> None:
    file = video(mp4, sample_fps=1)
    under_way = iter(file)
    next(under_way)
    assert numbers(iter(file)) == numbers(iter(file)) == [0, 25, 50, 75]
    assert numbers(under_way) == [25, 50, 75]


def test_the_rate_may_be_left_to_the_reader(mp4: Path) -> None:
    file = video(mp4)
    assert numbers(file.frames(1)) == [0, 25, 50, 75]
    with pytest.raises(ConfigError, match="sample_fps"):
        iter(file)


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts"])
def test_start_and_end(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    frames = list(video(path, sample_fps=2, start=1.1, end=3.1))
    assert numbers(iter(frames)) == [28, 40, 53, 65]
    assert times(iter(frames)) == [1.12, 1.6, 2.12, 2.6]  # of the file, not from `start`


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (2.0, 1.0), (2.0, 2.0)])
def test_refuses_ranges_at_once(mp4: Path, start: float, end: float | None) -> None:
    with pytest.raises(ConfigError):
        video(mp4, start=start, end=end)


@pytest.mark.parametrize("sample_fps", [0.0, -1.0])
def test_refuses_rates_at_once(mp4: Path, sample_fps: float) -> None:
    with pytest.raises(ConfigError):
        video(mp4, sample_fps=sample_fps)
    with pytest.raises(ConfigError):
        video(mp4).frames(sample_fps)


def test_transport_stream_starts_at_zero(ts: Path) -> None:
    with av.open(ts) as container:
        assert container.start_time > 0
    assert times(iter(video(ts, sample_fps=1))) == [0, 1, 2, 3]


def test_a_clock_that_starts_anew_runs_on(ts: Path, tmp_path: Path) -> None:
    joined = tmp_path / "joined.ts"
    joined.write_bytes(ts.read_bytes() * 2)
    frames = list(video(joined, sample_fps=1))
    assert numbers(iter(frames)) == [0, 25, 50, 75] * 2
    assert times(iter(frames)) == list(range(8))
    assert numbers(iter(video(joined, sample_fps=1, start=5))) == [25, 50, 75]


def test_edit_list_that_skips_the_beginning(mp4: Path, tmp_path: Path) -> None:
    path = tmp_path / "trimmed.mp4"
    with av.open(mp4) as source, av.open(path, "w", options={"avoid_negative_ts": "disabled"}) as trimmed:
        stream = trimmed.add_stream_from_template(source.streams.video[0])
        skipped = round(0.4 / (source.streams.video[0].time_base or 1))
        for packet in source.demux(video=0):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts - skipped, packet.dts - skipped
                packet.stream = stream
                trimmed.mux(packet)
    frames = list(video(path, sample_fps=25))
    assert numbers(iter(frames)) == list(range(10, 100))
    assert times(iter(frames)) == [round(i / 25, 6) for i in range(90)]


def test_edit_list_that_delays_the_video(tmp_path: Path) -> None:
    alone = film(tmp_path / "late.mp4", range(25, 50))
    assert times(iter(video(alone, sample_fps=5))) == [0, 0.2, 0.4, 0.6, 0.8]
    with_sound = tmp_path / "late with sound.mp4"
    write_with_sound(with_sound, first=25)
    frames = list(video(with_sound, sample_fps=5))
    assert times(iter(frames)) == [1, 1.2, 1.4, 1.6, 1.8]
    assert numbers(iter(frames)) == [0, 5, 10, 15, 20]


def write_with_sound(path: Path, first: int = 0, pictures: int = 25) -> None:
    """3 s of sound, pictures from the period `first` on, and cover art that is larger than the film."""
    with av.open(path, "w") as output:
        cover = add_video(output, "mjpeg", pixel_format="yuvj420p", size=(320, 240))
        cover.disposition = Disposition.attached_pic
        sound = output.add_stream("aac", rate=8000)
        stream = add_video(output) if pictures else None
        write(output, cover, [0])
        if stream is not None:
            write(output, stream, range(first, first + pictures))
        for start in range(0, 24000, 1024):
            tone = AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 8000, start
            output.mux(sound.encode(tone))
        output.mux(sound.encode(None))


def test_cover_art_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    write_with_sound(path, pictures=0)
    with pytest.raises(VideoError, match=r"no video track \(it has: a still picture, audio\)"):
        video(path)


def test_sound_and_cover_art_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    write_with_sound(path)
    with av.open(path) as container:
        assert {stream.type for stream in container.streams} == {"audio", "video"}
        assert len(container.streams.video) == 2
    file = video(path, sample_fps=5)
    assert (file.width, file.height) == (WIDTH, HEIGHT)
    assert numbers(iter(file)) == [0, 5, 10, 15, 20]


def test_of_several_video_tracks_the_default_then_the_largest(tmp_path: Path) -> None:
    def three_tracks(default: int) -> tuple[int, int]:
        path = tmp_path / "tracks.mkv"
        with av.open(path, "w") as output:
            streams = [add_video(output, size=size) for size in ((128, 96), (256, 192), (192, 128))]
            for i, stream in enumerate(streams):
                stream.disposition = Disposition.default if i == default else Disposition(0)
            for stream in streams:
                write(output, stream, [0, 1])
        height, width, _ = next(iter(video(path, sample_fps=1))).image.shape
        return width, height

    assert three_tracks(default=2) == (192, 128)
    assert three_tracks(default=-1) == (256, 192)


def test_still_images_are_videos_of_one_picture(tmp_path: Path) -> None:
    from PIL import Image

    for ending in ("png", "jpg"):
        path = tmp_path / f"still.{ending}"
        Image.fromarray(picture(77)).save(path)
        (frame,) = video(path, sample_fps=1)
        assert (frame.time, number(frame.image)) == (0, 77)


def test_pictures_without_timestamps_follow_the_rate(tmp_path: Path) -> None:
    path = film(tmp_path / "stream.h264", 60, container="h264")
    with av.open(path) as container:
        assert all(packet.pts is None for packet in container.demux(video=0))
    frames = list(video(path, sample_fps=1))
    assert numbers(iter(frames)) == [0, 25, 50]
    assert times(iter(frames)) == [0, 1, 2]


def test_avi_whose_made_up_timestamps_are_wrong(tmp_path: Path) -> None:
    path = film(tmp_path / "film.avi", 60)
    with av.open(path) as container:
        stamps = [frame.pts or 0 for frame in container.decode(video=0)]
    assert stamps != sorted(stamps)
    frames = list(video(path, sample_fps=25))
    assert numbers(iter(frames)) == list(range(60))
    assert np.allclose(np.diff([frame.time for frame in frames]), 0.04)


def test_avi_with_places_for_pictures_that_are_not_there(tmp_path: Path) -> None:
    stamps = [0, 1, 2, 10, 11, 30]
    path = film(tmp_path / "gaps.avi", stamps, "mpeg4")
    frames = list(video(path, sample_fps=25))
    assert numbers(iter(frames)) == [0, 1, 2, 3, 4, 5]
    assert times(iter(frames)) == [stamp / 25 for stamp in stamps]


def test_the_first_time_is_zero_to_the_last_digit(tmp_path: Path) -> None:
    stamps = [100_001 + 3600 * i for i in range(30)]  # the container's own start is rounded to microseconds
    path = film(tmp_path / "fine.ts", stamps, tick=Fraction(1, 90_000), muxer={"avoid_negative_ts": "disabled"})
    assert [frame.time for frame in video(path, sample_fps=25)] == [i / 25 for i in range(30)]


@pytest.mark.parametrize("sample_fps", [0.5, 5])
def test_file_objects(mp4: Path, sample_fps: float) -> None:
    expected = numbers(iter(video(mp4, sample_fps=sample_fps, start=1)))
    with mp4.open("rb") as opened:
        file = video(opened, sample_fps=sample_fps, start=1)
        assert numbers(iter(file)) == numbers(iter(file)) == expected
        assert not opened.closed
    assert numbers(iter(video(io.BytesIO(mp4.read_bytes()), sample_fps=sample_fps, start=1))) == expected


def test_a_late_start_is_sought_not_read_up_to(tmp_path: Path) -> None:
    path = film(tmp_path / "large.mov", 300, "rawvideo", pixel_format="uyvy422")
    file = CountingFile(path.read_bytes())
    assert path.stat().st_size > 5_000_000
    assert numbers(iter(video(file, sample_fps=1, start=11))) == [275]
    assert file.count < 3_500_000  # of it, opened twice and one second read


def test_what_comes_after_the_end_is_not_read(tmp_path: Path) -> None:
    path = film(tmp_path / "large.mov", 300, "rawvideo", pixel_format="uyvy422")
    file = CountingFile(path.read_bytes())
    assert numbers(iter(video(file, sample_fps=25, end=1))) == list(range(25))
    assert file.count < 3_500_000


def test_a_pipe_is_read_once(ts: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(ts.read_bytes()))
    writer.start()
    file = video(pipe, sample_fps=2, start=1)
    assert numbers(iter(file)) == numbers(iter(video(ts, sample_fps=2, start=1)))
    writer.join()
    with pytest.raises(VideoError, match="only once"):
        next(iter(file))


def test_closing_the_iterator_closes_the_file(mp4: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("needs Linux's list of open files")

    def opened() -> int:
        return sum(os.path.realpath(link) == str(mp4.resolve()) for link in descriptors.iterdir())

    frames = video(mp4, sample_fps=25).frames(25)
    assert opened() == 0
    next(frames)
    assert opened() == 1
    frames.close()  # type: ignore[attr-defined]
    assert opened() == 0


def test_pictures_may_change_size(tmp_path: Path) -> None:
    small = film(tmp_path / "small.ts", 50)
    large = film(tmp_path / "large.ts", 50, size=(256, 192))
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames = list(video(both, sample_fps=1))
    assert [frame.image.shape[:2] for frame in frames] == [(96, 128)] * 2 + [(192, 256)] * 2
    assert numbers(iter(frames)) == [0, 25, 0, 25]


def test_a_video_of_one_picture(tmp_path: Path) -> None:
    assert numbers(iter(video(film(tmp_path / "one.mp4", 1), sample_fps=30))) == [0]
