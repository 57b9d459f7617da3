"""`rekv demo`, shortened."""

import re
from pathlib import Path

import pytest
from PIL import Image

from rekv.cli import demo as command
from rekv.cli.demo import Stream, shorten
from rekv.sources import video
from rekv.world import Story, demo_story
from tests.cli.conftest import Run


def test_it_plays_asks_and_draws(run: Run, story: Story, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    result = run("demo", "--minutes", 1.25, "--out", out)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for ask in story.asks:
        assert " ".join(ask.question.text.split()[:3]) in text
        assert f"{int(ask.time) // 60}:{int(ask.time) % 60:02}" in text
    assert "recent_frames=1" in text
    assert "✓" in text
    assert re.search(r"\b[23] of 3 right\.", text)
    assert "rekv ask" in text
    assert "\x1b" not in result.output
    assert video(out / "scene.mp4").codec == "h264"
    assert len(list(video(out / "scene.mp4").frames(1.0))) == 75
    for name in ("contact-sheet.png", "timeline.png"):
        assert str(out / name) in result.stdout.replace("\n", "")
        with Image.open(out / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300


def test_the_next_command_is_one_that_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment that is not activated has rekv where the shell does not look."""
    program = tmp_path / "a venv" / "bin" / "rekv"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command._program() == "'a venv/bin/rekv'"
    monkeypatch.setenv("PATH", str(program.parent))
    assert command._program() == "rekv"


def test_too_many_wrong_answers_are_a_failure(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ENOUGH", 1.01)
    result = run("demo", "--minutes", 0.5, "--out", tmp_path)
    assert result.exit_code == 1
    assert "1 of 1 right." in result.stdout
    assert (tmp_path / "timeline.png").exists()


def test_a_folder_that_cannot_be_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "folder"):
        result = run("demo", "--out", out)
        assert result.exit_code == 2
        assert "Error: Invalid value for '--out'" in result.stderr
        assert result.stdout == ""


def test_the_film_comes_in_parts_and_whole(film: Path) -> None:
    stream = Stream(film)
    first = [frame.time for frame in stream.until(18.5)]
    second = [frame.time for frame in stream.until(20.0)]
    assert list(stream.until(20.0)) == []
    rest = [frame.time for frame in stream.until(1e9)]
    assert (first[-1], second, rest[0]) == (18.0, [19.0, 20.0], 21.0)
    assert [*first, *second, *rest] == [frame.time for frame in video(film).frames(1.0)]
    assert sorted(stream.images) == list(range(75))


def test_a_shorter_story_is_the_same_story() -> None:
    whole = demo_story(3)
    short = shorten(whole, 2)
    assert short.scene.n_frames == 120
    assert short.asks == tuple(ask for ask in whole.asks if ask.time < 120)
    for one, two in zip(short.frames(), whole.frames(), strict=False):
        assert (one.image == two.image).all()
    assert shorten(whole, 60).scene.n_frames == whole.scene.n_frames
