"""Writing video files."""

import logging
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rekv.errors import ConfigError, VideoError
from rekv.sources import VideoWriter, video
from tests.sources.films import HEIGHT, WIDTH, numbers, picture, times


def write(path: Path, count: int = 50, fps: float | Fraction = 25, **settings: object) -> Path:
    with VideoWriter(path, WIDTH, HEIGHT, fps, **settings) as writer:  # type: ignore[arg-type]
        for i in range(count):
            writer.write(picture(i))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "film.mp4")
    file = video(path, sample_fps=25)
    assert (file.codec, file.width, file.height, file.fps) == ("h264", WIDTH, HEIGHT, 25)
    assert file.duration == pytest.approx(2.0)
    frames = list(file)
    assert numbers(iter(frames)) == list(range(50))
    assert times(iter(frames)) == [round(i / 25, 6) for i in range(50)]
    assert np.abs(frames[20].image[20:].astype(int) - picture(20)[20:]).mean() < 20


@pytest.mark.parametrize("fps", [0.5, 10, 29.97, Fraction(30000, 1001), 60])
def test_rates(fps: float | Fraction, tmp_path: Path) -> None:
    path = write(tmp_path / "film.mp4", 20, fps)
    with av.open(path) as container:
        stamps = [float(frame.time) for frame in container.decode(video=0)]
    assert stamps == pytest.approx([i / float(fps) for i in range(20)], abs=1e-3)


def test_times_may_be_given(tmp_path: Path) -> None:
    stamps = [0.0, 0.1, 0.15, 2.0, 2.04, 7.0]
    with VideoWriter(tmp_path / "film.mp4", WIDTH, HEIGHT, 25) as writer:
        for i, stamp in enumerate(stamps):
            writer.write(picture(i), stamp)
        with pytest.raises(ConfigError, match="not later"):
            writer.write(picture(9), 7.0)
    assert times(iter(video(tmp_path / "film.mp4", sample_fps=25))) == stamps


def test_a_lower_rate_factor_costs_more_and_gives_more(tmp_path: Path) -> None:
    good, poor = write(tmp_path / "good.mp4", crf=10), write(tmp_path / "poor.mp4", crf=45)
    assert good.stat().st_size > 1.5 * poor.stat().st_size


def test_options_reach_the_encoder(tmp_path: Path) -> None:
    path = write(tmp_path / "film.mp4", options={"g": "10", "bf": "0"})
    with av.open(path) as container:
        keyframes = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert keyframes == [i % 10 == 0 for i in range(50)]


def test_falls_back_to_mpeg_4_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "film.mp4", codec="libx999")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no encoder libx999; writing mpeg4" in caplog.text
    file = video(path, sample_fps=25)
    assert file.codec == "mpeg4"
    assert numbers(iter(file)) == list(range(50))


@pytest.mark.parametrize(("width", "height", "fps"), [(0, 96, 25), (127, 96, 25), (128, 95, 25), (128, 96, 0)])
def test_refuses_settings(width: int, height: int, fps: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        VideoWriter(tmp_path / "film.mp4", width, height, fps)


def test_refuses_pictures_of_another_size(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", WIDTH, HEIGHT, 25) as writer:
        writer.write(picture(0))
        with pytest.raises(ConfigError, match="does not fit"):
            writer.write(picture(0, 64, 64))


@pytest.mark.parametrize("name", ["nowhere/film.mp4", "film.notaformat"])
def test_refuses_places_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot write"):
        VideoWriter(tmp_path / name, WIDTH, HEIGHT, 25)


def test_an_error_in_between_leaves_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with suppress(RuntimeError), VideoWriter(path, WIDTH, HEIGHT, 25) as writer:
        for i in range(10):
            writer.write(picture(i))
        raise RuntimeError
    assert numbers(iter(video(path, sample_fps=25))) == list(range(10))


def test_no_picture_at_all(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", WIDTH, HEIGHT, 25):
        pass
    with pytest.raises(VideoError):
        video(tmp_path / "film.mp4")
