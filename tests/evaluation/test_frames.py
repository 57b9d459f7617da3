"""How videos are read: by timestamp, or by the published arithmetic."""

from pathlib import Path

import numpy as np
import pytest

from rekv.core import Frame
from rekv.errors import ConfigError, VideoError
from rekv.evaluation.frames import Footage
from rekv.sources import VideoWriter
from tests.evaluation.conftest import noise


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds at 25 pictures a second, each as bright as its number."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    with VideoWriter(path, 32, 32, 25, crf=1) as writer:
        for i in range(250):
            writer.write(np.full((32, 32, 3), i, np.uint8))
    return path


def brightness(frame: Frame) -> float:
    return float(frame.image.mean())


def numbers(footage: Footage) -> list[int]:
    """Which pictures were taken, give or take what the codec loses."""
    return [round(brightness(frame)) for frame in footage.frames()]


def test_by_timestamp(film: Path) -> None:
    frames = list(Footage(film, 0.5).frames())
    assert [frame.time for frame in frames] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert numbers(Footage(film, 0.5)) == pytest.approx([0, 50, 100, 150, 200], abs=2)


def test_the_published_step_is_truncated_and_time_drifts(film: Path) -> None:
    """At 0.6 frames per second the step is int(25 / 0.6) = 41 pictures, not 41.67, and counts as 1 / 0.6 seconds."""
    frames = list(Footage(film, 0.6, paper=True).frames())
    assert numbers(Footage(film, 0.6, paper=True)) == pytest.approx([41 * i for i in range(7)], abs=2)
    assert [frame.time for frame in frames] == pytest.approx([i / 0.6 for i in range(7)])


def test_the_published_arithmetic_has_a_limit(film: Path) -> None:
    with pytest.raises(VideoError, match="25 pictures a second"):
        list(Footage(film, 26.0, paper=True).frames())


@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0])
def test_frames_are_found_without_reading_the_rest(film: Path, fps: float) -> None:
    whole = list(Footage(film, fps).frames())
    picked = list(Footage(film, fps).at([frame.time for frame in whole[1::2]]))
    assert [frame.time for frame in picked] == [frame.time for frame in whole[1::2]]
    assert [brightness(frame) for frame in picked] == [brightness(frame) for frame in whole[1::2]]


def test_times_behind_the_end_are_left_out(film: Path) -> None:
    assert [frame.time for frame in Footage(film, 1.0).at([9.0, 30.0, 40.0])] == [9.0]


def test_arrays_have_one_frame_a_second(tmp_path: Path) -> None:
    path = noise(tmp_path / "a.npy", 10)
    array = np.load(path)
    frames = list(Footage(path, 0.5).frames())
    assert [frame.time for frame in frames] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert all(np.array_equal(frame.image, array[int(frame.time)]) for frame in frames)
    assert [frame.time for frame in Footage(path, 4.0).frames()] == list(range(10)), "each second once"
    assert [frame.time for frame in Footage(path, 1.0).at([3.0, 7.0])] == [3.0, 7.0]
    assert Footage(path, 1.0).duration() == 10.0


def test_the_published_way_spreads_an_array(tmp_path: Path) -> None:
    """np.linspace from the first to the last frame: int(11 * 0.5) = 5 of 11 seconds."""
    path = noise(tmp_path / "a.npy", 11)
    array = np.load(path)
    frames = list(Footage(path, 0.5, paper=True).frames())
    assert [frame.time for frame in frames] == [0.0, 2.0, 4.0, 6.0, 8.0]
    for frame, second in zip(frames, (0, 2, 5, 7, 10), strict=True):
        assert np.array_equal(frame.image, array[second])
    with pytest.raises(ConfigError, match="1 frame a second"):
        list(Footage(path, 2.0, paper=True).frames())


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 8, 8, 1), (0, 8, 8, 3)])
def test_arrays_that_are_no_frames(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(VideoError, match=r"shape \(seconds, height, width, 3\)"):
        list(Footage(tmp_path / "a.npy", 1.0).frames())


@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_files_that_are_no_arrays(tmp_path: Path, content: bytes | None) -> None:
    """Pickles among them: they could run code."""
    path = tmp_path / "a.npy"
    if content is None:
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(content)
    with pytest.raises(VideoError, match="is not an array"):
        list(Footage(path, 1.0).frames())
