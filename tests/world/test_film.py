from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image as Picture

from rekv.core import Image
from rekv.errors import ConfigError
from rekv.world import Event, Scene, render_clip, render_film
from rekv.world.background import Background
from rekv.world.event import draw_event, stay
from rekv.world.overlay import DIGITS_LEFT, DIGITS_TOP
from rekv.world.shapes import COLORS, HEIGHT, INPUT, KINDS, PALETTE, PLACES, WIDTH, digit_dots

N_FRAMES = 27


def decode(path: Path) -> list[tuple[float, Image]]:
    """Every picture of a file with its time, read without any of our own code."""
    with av.open(str(path)) as container:
        return [(float(f.time or 0), f.to_ndarray(format="rgb24").astype(np.uint8)) for f in container.decode(video=0)]


def at_whole_seconds(path: Path) -> list[Image]:
    return [image for time, image in decode(path) if abs(time - round(time)) < 1e-6]


def shrink(image: Image) -> Image:
    return np.asarray(Picture.fromarray(image).resize((INPUT, INPUT), Picture.Resampling.BICUBIC))


def read_clock(image: Image) -> str:
    """What the clock says in a picture as the model sees it: the digit whose dots fit best, four times."""
    gray = image.mean(-1)
    digits = ""
    for left in DIGITS_LEFT:
        shown = gray[DIGITS_TOP : DIGITS_TOP + 7, left : left + 5].ravel()
        fits = [np.corrcoef(shown, digit_dots(digit).ravel())[0, 1] for digit in range(10)]
        digits += str(int(np.argmax(fits)))
    return f"{digits[:2]}:{digits[2:]}"


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Everything that there is, one thing after another, in every color."""
    rng = np.random.default_rng(0)
    pairs = zip(KINDS, (*COLORS, "red"), list(PLACES) * 2, strict=False)
    things = [stay(draw_event(rng, kind, color), place) for kind, color, place in pairs]
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
        assert (stream.width, stream.height) == (640, 480)
        assert stream.average_rate == 10
    times = [time for time, _ in decode(film)]
    assert times == pytest.approx(np.arange(N_FRAMES * 10) / 10)


def test_whole_seconds_show_the_worlds_frames(film: Path, scene: Scene) -> None:
    images = at_whole_seconds(film)
    assert len(images) == scene.n_frames
    for image, original in zip(images, render_clip(scene), strict=True):
        assert np.abs(shrink(image).astype(int) - original).mean() < 6


def test_shapes_and_colors_survive_compression(film: Path, scene: Scene) -> None:
    checked = 0
    palette = np.array([PALETTE[color] for color in COLORS])
    for frame, image in enumerate(at_whole_seconds(film)):
        for event in scene.visible(frame):
            if event.kind in ("ring", "card"):
                continue  # in their middle there is something else
            x, y = (round(10 * at) for at in event.position(frame))
            color = image[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1))
            fits = np.abs(palette / palette.max(1, keepdims=True) - color / color.max()).sum(1)
            assert COLORS[fits.argmin()] == event.color
            checked += 1
    assert checked == 3 * 7


@pytest.mark.parametrize("family", ["room", "corridor"])
@pytest.mark.parametrize("first", [11 * 60 + 55, 20 * 60 + 41, 3 * 60 + 26])
def test_the_clock_can_be_read_in_a_poor_film(tmp_path: Path, family: str, first: int) -> None:
    still = Scene(16, (), Background(family, first), np.arange(16), first)
    render_film(tmp_path / "film.mp4", still, fps=2, crf=28)
    read = [read_clock(shrink(image)) for image in at_whole_seconds(tmp_path / "film.mp4")]
    assert read == [still.clock(frame) for frame in range(16)]


def test_the_clock_can_be_read_whatever_happens(film: Path, scene: Scene) -> None:
    read = [read_clock(shrink(image)) for image in at_whole_seconds(film)]
    assert read == [scene.clock(frame) for frame in range(N_FRAMES)]


def test_movement_is_smooth(tmp_path: Path) -> None:
    path = ("left", "right")
    event = Event("circle", "red", "large", 0, *path, (215, 35, 35), (0, 0), start=0, stop=4, path="move")
    film = Scene(4, (event,), Background("room", 0), np.arange(4), 12 * 60)
    render_film(tmp_path / "film.mp4", film, width=256, height=192)
    reds = [image[..., 0].astype(int) - image[..., 2] > 100 for _, image in decode(tmp_path / "film.mp4")]
    x = (np.array([np.nonzero(red)[1].mean() for red in reds]) + 0.5) * WIDTH / 256
    assert x[[0, 10, 20, 30]] == pytest.approx(np.array([13, 25.67, 38.33, 51]), abs=0.5)
    assert np.diff(x[:31]) == pytest.approx(np.full(30, 38 / 30), abs=0.5)
    assert x[30:] == pytest.approx(np.full(10, x[30]), abs=0.1), "it has arrived"


def test_a_thing_goes_behind_the_wall_and_comes_out(tmp_path: Path) -> None:
    path = ("left", "right")
    event = Event("circle", "red", "small", 0, *path, (215, 35, 35), (0, 0), start=0, stop=6, path="hide")
    film = Scene(6, (event,), Background("room", 0, True), np.arange(6), 12 * 60)
    render_film(tmp_path / "film.mp4", film, width=256, height=192)
    below = slice(round(7 / HEIGHT * 192), None)  # the clock
    reds = [(i[below, :, 0].astype(int) - i[below, :, 2] > 100).sum() for _, i in decode(tmp_path / "film.mp4")]
    sight = np.array(reds) > 5
    assert sight[:15].all()
    assert not sight[20:30].any()
    assert sight[-10:].all()


def test_the_worlds_clock_can_run_at_another_speed(tmp_path: Path, scene: Scene) -> None:
    shares: list[float] = []
    fast = tmp_path / "fast.mp4"
    render_film(fast, scene, width=160, height=120, fps=10, seconds_per_frame=0.5, progress=shares.append)
    pictures = decode(fast)
    assert len(pictures) == N_FRAMES * 5 == len(shares)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    native = render_clip(scene)
    for frame in range(N_FRAMES):
        time, image = pictures[5 * frame]
        assert time == pytest.approx(0.5 * frame)
        assert np.abs(shrink(image).astype(int) - native[frame]).mean() < 7


@pytest.mark.parametrize(("fps", "seconds_per_frame"), [(10, 0.25), (1, 0.5), (0, 1)])
def test_frames_between_two_pictures_are_refused(
    tmp_path: Path, scene: Scene, fps: int, seconds_per_frame: float
) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        render_film(tmp_path / "film.mp4", scene, fps=fps, seconds_per_frame=seconds_per_frame)
    assert not list(tmp_path.iterdir())
