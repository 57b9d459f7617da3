"""A short film that the commands' tests ask about."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rekv.cli import main
from rekv.cli.demo import shorten
from rekv.world import Story, demo_story, render_film

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def story() -> Story:
    """The first 75 seconds of the demo's story, in which three questions come up."""
    return shorten(demo_story(1), 1.25)


@pytest.fixture(scope="session")
def film(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story as a file that can also be read from a pipe."""
    path = tmp_path_factory.mktemp("film") / "scene.mkv"
    render_film(path, story.scene, width=256, height=192, fps=8)
    return path


@pytest.fixture
def run() -> Iterator[Run]:
    """Run `rekv` with these arguments, as a process without a terminal would."""

    def run(*args: object) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args])

    yield run
    logging.getLogger("rekv").handlers.clear()
