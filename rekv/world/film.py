"""A scene as a video file, drawn large and moving smoothly: what a camera in the world would record."""

from collections.abc import Callable
from os import PathLike

from rekv.errors import ConfigError
from rekv.sources.writer import VideoWriter
from rekv.world.render import Renderer
from rekv.world.scene import Scene

FILM_WIDTH, FILM_HEIGHT = 640, 480  # pixels: 10 per unit of the world

_ENCODER = {"preset": "veryfast"}  # of x264; so still a picture gains little from a longer search


def render_film(
    path: str | PathLike[str],
    scene: Scene,
    *,
    width: int = FILM_WIDTH,
    height: int = FILM_HEIGHT,
    fps: int = 10,
    seconds_per_frame: float = 1.0,
    crf: int = 23,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Write the scene as an H.264 file of `width` x `height` pixels.

    The picture at k * `seconds_per_frame` shows the world's frame k; those in between show the movement.
    `fps`: pictures per second of the file. `progress` is called after each with the share done, 0 to 1.
    Raises `ConfigError` if a frame of the world would not last a whole number of pictures, or a size is odd.
    """
    pictures_per_frame = _whole(fps * seconds_per_frame)
    renderer = Renderer(scene, width, height)
    total = scene.n_frames * pictures_per_frame
    with VideoWriter(path, width, height, fps, crf=crf, options=_ENCODER) as film:
        for i in range(total):
            time = i / pictures_per_frame
            if i % pictures_per_frame == 0 or any(event.moves for event in scene.present(time)):
                picture = renderer.picture(time)
            film.write(picture, i / fps)
            if progress:
                progress((i + 1) / total)


def _whole(pictures_per_frame: float) -> int:
    if pictures_per_frame < 1 or pictures_per_frame != int(pictures_per_frame):
        raise ConfigError(
            f"fps * seconds_per_frame is {pictures_per_frame:g}; it must be a whole number, at least 1 "
            "(pictures per frame of the world)"
        )
    return int(pictures_per_frame)
