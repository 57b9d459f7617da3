from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image as Picture

from rekv.core import Image
from rekv.errors import ConfigError
from rekv.world import Event, Scene, render_clip, render_film
from rekv.world.event import draw_event
from rekv.world.shapes import COLORS, KINDS, PALETTE, SIDE

N_FRAMES = 27


def decode(path: Path) -> list[tuple[float, Image]]:
    """Every picture of a file with its time, read without any of our own code."""
    with av.open(str(path)) as container:
        return [(float(f.time or 0), f.to_ndarray(format="rgb24").astype(np.uint8)) for f in container.decode(video=0)]


def at_whole_seconds(path: Path) -> list[Image]:
    return [image for time, image in decode(path) if abs(time - round(time)) < 1e-6]


def shrink(image: Image) -> Image:
    return np.asarray(Picture.fromarray(image).resize((SIDE, SIDE), Picture.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Everything that there is, one thing after another, in every color."""
    rng = np.random.default_rng(0)
    things = [draw_event(rng, kind, color) for kind, color in zip(KINDS, (*COLORS, "red"), strict=True)]
    return Scene.draw(rng, N_FRAMES, [thing.during(3 * i, 3 * i + 3) for i, thing in enumerate(things)])


@pytest.fixture(scope="module")
def film(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "scene.mp4"
    render_film(path, scene)
    return path


def test_it_is_an_ordinary_video(film: Path) -> None:
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (384, 384)
        assert stream.average_rate == 8
    times = [time for time, _ in decode(film)]
    assert times == pytest.approx(np.arange(N_FRAMES * 8) / 8)


def test_whole_seconds_show_the_worlds_frames(film: Path, scene: Scene) -> None:
    images = at_whole_seconds(film)
    assert len(images) == scene.n_frames
    for image, original in zip(images, render_clip(scene), strict=True):
        assert np.abs(shrink(image).astype(int) - original).mean() < 4


def test_shapes_and_colors_survive_compression(film: Path, scene: Scene) -> None:
    checked = 0
    palette = np.array([PALETTE[color] for color in COLORS])
    for frame, image in enumerate(at_whole_seconds(film)):
        for event in scene.visible(frame):
            if event.kind in ("ring", "card"):
                continue  # in their middle there is something else
            x, y = (round(8 * at + 4) for at in event.position(frame))
            color = image[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1))
            assert COLORS[np.abs(palette - color).sum(1).argmin()] == event.color
            checked += 1
    assert checked == 3 * 7


def test_movement_is_smooth(tmp_path: Path) -> None:
    event = Event("circle", "red", "large", 0, "left", "right", (215, 35, 35), (0, 0), start=0, stop=4)
    render_film(tmp_path / "film.mp4", Scene.draw(np.random.default_rng(0), 4, [event]), scale=4)
    reds = [image[..., 0].astype(int) - image[..., 2] > 100 for _, image in decode(tmp_path / "film.mp4")]
    x = np.array([np.nonzero(red)[1].mean() for red in reds]) / 4
    steps = np.diff(x[:25])
    assert x[[0, 8, 16, 24]] == pytest.approx(np.array([10, 19, 28, 37]) + 0.375, abs=0.3)
    assert steps == pytest.approx(np.full(24, 27 / 24), abs=0.35)
    assert x[24:] == pytest.approx(np.full(8, x[24]), abs=0.1), "it has arrived"


def test_the_worlds_clock_can_run_at_another_speed(tmp_path: Path, scene: Scene) -> None:
    shares: list[float] = []
    render_film(tmp_path / "fast.mp4", scene, scale=2, fps=10, seconds_per_frame=0.5, progress=shares.append)
    pictures = decode(tmp_path / "fast.mp4")
    assert len(pictures) == N_FRAMES * 5 == len(shares)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    native = render_clip(scene)
    for frame in range(N_FRAMES):
        time, image = pictures[5 * frame]
        assert time == pytest.approx(0.5 * frame)
        assert np.abs(shrink(image).astype(int) - native[frame]).mean() < 5


@pytest.mark.parametrize(("fps", "seconds_per_frame"), [(8, 0.3), (1, 0.5), (0, 1)])
def test_frames_between_two_pictures_are_refused(
    tmp_path: Path, scene: Scene, fps: int, seconds_per_frame: float
) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        render_film(tmp_path / "film.mp4", scene, fps=fps, seconds_per_frame=seconds_per_frame)
    assert not list(tmp_path.iterdir())
