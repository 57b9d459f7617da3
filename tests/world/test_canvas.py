from collections.abc import Callable

import numpy as np
import pytest

from rekv.world.canvas import Canvas, color
from rekv.world.raster import blend, blur, cells

WHITE = color(255, 255, 255)


def area(canvas: Canvas) -> float:
    """What is white, in square units."""
    return float(canvas.pixels[0].sum() / 255 / canvas.scale[0] / canvas.scale[1])


FORMS: dict[str, tuple[Callable[[Canvas], None], float]] = {
    "rect": (lambda canvas: canvas.rect(10.3, 7.25, 20.8, 30.9, WHITE), 10.5 * 23.65),
    "cut rect": (lambda canvas: canvas.rect(-5, -5, 4.5, 3.5, WHITE), 4.5 * 3.5),
    "triangle": (lambda canvas: canvas.polygon(((30, 5.2), (50, 40), (12.5, 40)), WHITE), 0.5 * 37.5 * 34.8),
    "line": (lambda canvas: canvas.line((5, 5), (50, 40), 0.3, WHITE), np.hypot(45, 35) * 0.3),
    "ellipse": (lambda canvas: canvas.ellipse(31.4, 20.2, 12, 7.5, WHITE), np.pi * 12 * 7.5),
    "panes": (lambda canvas: canvas.panes((3.2, 4, 51, 30), 7, 3, WHITE, share=(0.4, 0.5)), 47.8 * 26 * 0.2),
    "half": (lambda canvas: canvas.rect(0, 0, 64, 48, WHITE, 0.5), 64 * 24),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(64, 64), (640, 480), (160, 90)])
def test_a_form_covers_its_area_at_any_size(form: str, size: tuple[int, int]) -> None:
    draw, expected = FORMS[form]
    canvas = Canvas(*size)
    draw(canvas)
    assert area(canvas) == pytest.approx(expected, rel=0.07 if form == "line" else 0.03)
    assert canvas.pixels.min() >= 0
    assert canvas.pixels.max() <= 255.01


def test_what_is_outside_of_the_picture_changes_nothing() -> None:
    canvas = Canvas(64, 64)
    canvas.rect(70, 10, 80, 20, WHITE)
    canvas.polygon(((-20, -20), (-10, -20), (-10, -10), (-20, -10)), WHITE)
    canvas.ellipse(-20, 60, 5, 5, WHITE)
    canvas.cloud(90, 90, 5, 5, WHITE)
    assert canvas.pixels.max() == 0


def test_a_rectangle_can_fade_from_one_colour_to_another() -> None:
    canvas = Canvas(64, 48)
    canvas.rect(0, 0, 64, 48, WHITE * 0, below=WHITE)
    rows = canvas.pixels[0, :, 5]
    assert rows == pytest.approx((np.arange(48) + 0.5) / 48 * 255, abs=0.1)


def test_only_lamps_glow() -> None:
    canvas = Canvas(64, 64)
    canvas.rect(0, 0, 64, 48, WHITE)
    assert not canvas.glows
    canvas.shine(20, 20, 5, 5, WHITE)
    assert canvas.glows
    assert canvas.glow.max() > 200
    assert canvas.glow[:, :, 40:].max() == 0


def test_windows_glow_one_by_one() -> None:
    canvas = Canvas(64, 48)
    which = np.array([[1, 0], [0, 0]], np.float32)
    canvas.panes((0, 0, 64, 48), 2, 2, WHITE, shining=(which, WHITE))
    assert canvas.glow[0, 12, 16] == 255
    assert canvas.glow[0, :, 32:].max() == canvas.glow[0, 24:].max() == 0


def test_cells_share_out_the_pixels() -> None:
    shares = cells(31, 0, 10 / 3, 9)
    assert shares.sum(0) == pytest.approx(np.full(9, 10 / 3), rel=1e-5)
    assert shares[:30].sum(1) == pytest.approx(np.ones(30), rel=1e-5)
    assert np.array_equal(cells(9, 0, 1, 9), np.eye(9))


def test_blending_is_straight_in_between() -> None:
    assert np.array_equal(blend(7, 7), np.eye(7))
    values = blend(40, 4) @ np.arange(4, dtype=np.float32)
    assert np.diff(values[5:35]) == pytest.approx(np.full(29, 0.1), abs=1e-5)


def test_a_blur_keeps_the_light() -> None:
    assert blur(31, 2.0)[15].sum() == pytest.approx(1, abs=1e-3)
    assert blur(31, 2.0)[15].argmax() == 15
