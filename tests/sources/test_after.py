"""Continuing a file gives what reading on would have given."""

import os
import threading
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rekv.core import Frame
from rekv.errors import ConfigError, VideoError
from rekv.sources import VideoFile, video
from rekv.sources.file import Identity
from tests.sources.films import CountingFile, film, numbers, times

X264 = "keyint=25:min-keyint=25:scenecut=0"
UNEVEN = [0, 40, 55, 300, 310, 320, 999, 1000, 1001, 1900, 2500, 2540, 2580, 4000, 4001, 6000, 6040, 9000]

FILMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "b-frames": (".mp4", {"options": {"x264-params": f"{X264}:bframes=3:b-pyramid=normal"}}),
    "open gop": (".mkv", {"options": {"x264-params": f"{X264}:bframes=3:b-adapt=0:open-gop=1"}}),
    "one gop": (".mp4", {"gop": 1000}),
    "short gop": (".mkv", {"gop": 4}),
    "no keyframes but the first": (".mkv", {"options": {"x264-params": "intra-refresh=1:keyint=25"}}),
    "variable rate": (".mkv", {"pictures": UNEVEN, "tick": Fraction(1, 1000), "gop": 5}),
    "ntsc": (".mp4", {"tick": Fraction(1001, 30000)}),
    "transport stream": (".ts", {}),
    "program stream": (".mpg", {"codec": "mpeg2video", "container": "mpeg", "gop": 12, "options": {"bf": "2"}}),
    "avi": (".avi", {"codec": "mpeg4"}),
    "no timestamps": (".h264", {"container": "h264"}),
}


@pytest.fixture(scope="module", params=FILMS)
def any_film(request: pytest.FixtureRequest, folder: Path) -> Path:
    ending, settings = FILMS[request.param]
    return film(folder / f"after, {request.param}{ending}", **settings)


def same(left: Iterable[Frame], right: Iterable[Frame]) -> bool:
    left, right = list(left), list(right)
    return [frame.time for frame in left] == [frame.time for frame in right] and all(
        np.array_equal(a.image, b.image) for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("sample_fps", [0.5, 3.3, 25.0])
@pytest.mark.parametrize(("start", "end"), [(0.0, None), (0.71, 3.5)])
def test_frames_are_those_of_an_uninterrupted_reading(
    any_film: Path, sample_fps: float, start: float, end: float | None
) -> None:
    settings = {"sample_fps": sample_fps, "start": start, "end": end}
    whole = list(video(any_film, **settings))  # type: ignore[arg-type]
    assert whole
    stops = [frame.time for frame in whole][:: max(1, len(whole) // 3)]
    between = [0.5 * start, 1.03, 2.0, 2.53]
    for after in [*stops, *between, whole[-1].time]:
        rest = video(any_film, after=after, **settings)  # type: ignore[arg-type]
        assert same(rest, [frame for frame in whole if frame.time > after]), after


def test_nothing_left_is_no_error(mp4: Path, mkv: Path, ts: Path) -> None:
    for path in (mp4, mkv, ts):
        for after in (3.96, 4.0, 100.0):
            assert list(video(path, sample_fps=25, after=after)) == []
    assert list(video(mp4, sample_fps=1, end=2, after=1.0)) == []
    assert list(video(mp4, sample_fps=1, end=2, after=3.0)) == []


def test_a_file_that_has_no_picture_at_all_is_still_an_error(mp4: Path) -> None:
    with pytest.raises(VideoError, match="ends at"):
        list(video(mp4, sample_fps=1, start=4.0))


@pytest.mark.parametrize("after", [-1.0, float("nan"), float("inf")])
def test_refuses_times_at_once(mp4: Path, after: float) -> None:
    with pytest.raises(ConfigError, match="after"):
        video(mp4, after=after)


def test_each_iteration_continues_from_the_same_place(mp4: Path) -> None:
    file = video(mp4, after=1.0)
    assert numbers(file.frames(1)) == numbers(file.frames(1)) == [50, 75]
    assert file.after == 1.0


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    path = film(tmp_path / "large.mov", 300, "rawvideo", pixel_format="uyvy422")
    file = CountingFile(path.read_bytes())
    assert path.stat().st_size > 5_000_000
    assert numbers(iter(video(file, sample_fps=1, after=10.2))) == [275]
    assert file.count < 3_500_000  # of it, opened twice and two seconds read


def grown(path: Path, packets: int) -> Path:
    """The file as it was when so many pictures had been written."""
    with av.open(path) as container:
        places = [packet.pos for packet in container.demux(video=0)]
    place = places[packets]
    assert place is not None
    young = path.with_name(f"young {path.name}")
    young.write_bytes(path.read_bytes()[:place])
    return young


@pytest.mark.parametrize("ending", ["ts", "mkv"])
@pytest.mark.parametrize("sample_fps", [2.0, 25.0])
@pytest.mark.parametrize("packets", [30, 61])
def test_a_file_that_has_grown(ending: str, sample_fps: float, packets: int, tmp_path: Path) -> None:
    path = film(tmp_path / f"film.{ending}", options={"bf": "0"}, gop=10)
    whole = list(video(path, sample_fps=sample_fps))
    young = grown(path, packets)
    before = video(young, sample_fps=sample_fps)
    first = list(before)
    assert 1 < len(first) < len(whole)
    young.write_bytes(path.read_bytes())
    now = video(young, sample_fps=sample_fps, after=first[-1].time)
    assert same([*first, *now], whole)
    assert before.identity
    assert now.identity
    assert before.identity.path == now.identity.path
    assert before.identity.size < now.identity.size


def test_a_recording_under_way_without_its_index(tmp_path: Path) -> None:
    path = grown(film(tmp_path / "film.mkv", gop=10), 80)
    whole = list(video(path, sample_fps=25))
    for after in (0.5, 1.9, 2.72):
        assert same(video(path, sample_fps=25, after=after), [frame for frame in whole if frame.time > after])


def from_pipe(path: Path, pipe: Path, **settings: Any) -> tuple[VideoFile, list[float]]:
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    file = video(pipe, **settings)
    seen = times(iter(file))
    writer.join()
    return file, seen


def test_a_pipe_is_read_up_to_there(ts: Path, tmp_path: Path) -> None:
    file, seen = from_pipe(ts, tmp_path / "pipe", sample_fps=3.3, after=1.6)
    assert seen == times(iter(video(ts, sample_fps=3.3, after=1.6)))
    assert seen[0] > 1.6
    assert file.identity is None


def test_identity(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mp4.parent)
    assert video(mp4.name).identity == Identity(str(mp4), mp4.stat().st_size)
    with mp4.open("rb") as opened:
        assert video(opened).identity is None
