"""Films that several tests read. Each is written once."""

from pathlib import Path

import pytest

from tests.sources.films import film


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="session")
def mp4(folder: Path) -> Path:
    """100 pictures at 25 per second, a keyframe each second, B-frames between; the index comes first."""
    return film(folder / "film.mp4", muxer={"movflags": "faststart"})


@pytest.fixture(scope="session")
def mkv(folder: Path) -> Path:
    return film(folder / "film.mkv")


@pytest.fixture(scope="session")
def ts(folder: Path) -> Path:
    """As `mp4`, in a transport stream, whose clock does not start at 0."""
    return film(folder / "film.ts")
