"""The places that can be filmed: six families, each drawn from a seed.

All are grayish, so that things stand out, with a ground that a wall can stand on from two thirds down.
"""

from collections.abc import Callable

import numpy as np

from rekv.world.canvas import Canvas, Color, muted
from rekv.world.canvas import color as rgb

Generator = np.random.Generator

_LAMP = rgb(255, 205, 130)  # what shines at night is warm
_WINDOW = rgb(120, 88, 40)


def _sky(canvas: Canvas, rng: Generator, bottom: float) -> Color:
    """Fill the sky down to `bottom`; return its colour there."""
    level = rng.uniform(135, 170)
    low = muted(rng, level * 1.12, 0.04)
    canvas.rect(0, 0, 64, bottom, level * rgb(0.80, 0.92, 1.08), below=low)
    for _ in range(int(rng.integers(1, 4))):
        x, y, across = rng.uniform(0, 64), rng.uniform(5, bottom * 0.7), rng.uniform(8, 18)
        canvas.cloud(x, y, across, across * 0.25, rgb(215, 215, 215), 0.6)
    return low


def room(canvas: Canvas, rng: Generator) -> None:
    """A living room: wall and skirting, a window or two, pictures, a lamp, furniture on boards."""
    edge = rng.uniform(29, 33)
    wall, floor = (
        muted(rng, rng.uniform(115, 165), 0.08),
        muted(rng, rng.uniform(75, 120), 0.07) * rgb(1.07, 0.98, 0.87),
    )
    canvas.rect(0, 0, 64, edge, wall * 1.05, below=wall * 0.9)
    if rng.random() < 0.5:
        stripes = int(rng.integers(8, 16))
        canvas.panes((0, 0, 64, edge), stripes, 1, wall * 0.8, 0.25, share=(0.5, 1.0))
    canvas.rect(0, edge - 1.6, 64, edge, wall * 1.22, below=wall * 1.08)
    canvas.rect(0, edge, 64, 48, floor * 0.85, below=floor * 1.12)
    canvas.floor(edge, edge - 10, rng.uniform(24, 40), rng.uniform(5, 9), floor * 0.55, 0.6, planks=True)
    canvas.rect(0, edge, 64, edge + 1.2, floor * 0.45, 0.5, below=floor * 0.8)
    side = 1 if rng.random() < 0.5 else -1
    _window(canvas, 32 + side * rng.uniform(14, 20), rng.uniform(15, 18), rng.uniform(5, 7), rng.uniform(6, 8), wall)
    _painting(canvas, rng, 32 - side * rng.uniform(14, 22), wall)
    canvas.ellipse(rng.uniform(26, 38), 42, rng.uniform(17, 25), rng.uniform(3.2, 4.5), muted(rng, 95, 0.1), 0.7)
    _cabinet(canvas, rng, 32 - side * rng.uniform(17, 23), edge + 2.5)
    _floor_lamp(canvas, 32 + side * rng.uniform(24, 29), edge + 3, rng)


def _window(canvas: Canvas, x: float, y: float, across: float, down: float, wall: Color) -> None:
    canvas.rect(x - across - 1, y - down - 1, x + across + 1, y + down + 1, wall * 1.25, below=wall * 1.12)
    canvas.rect(x - across, y - down, x + across, y + down, rgb(140, 160, 182), below=rgb(182, 188, 190))
    canvas.rect(x - across, y - down, x + across, y - down + 0.5, wall * 0.5, 0.6)
    canvas.line((x, y - down), (x, y + down), 0.7, wall * 1.2)
    canvas.line((x - across, y), (x + across, y), 0.7, wall * 1.2)
    canvas.rect(x - across - 2, y + down + 1, x + across + 2, y + down + 2, wall * 1.3, below=wall * 0.95)
    canvas.rect(x - across - 1, y + down + 2, x + across + 1, y + down + 3, wall * 0.4, 0.3)


def _painting(canvas: Canvas, rng: Generator, x: float, wall: Color) -> None:
    y, across, down = rng.uniform(13, 17), rng.uniform(3.5, 6), rng.uniform(3, 4.5)
    picture = muted(rng, 120, 0.1)
    canvas.rect(x - across + 0.5, y - down + 0.7, x + across + 0.7, y + down + 0.9, wall * 0.3, 0.35)
    canvas.rect(x - across, y - down, x + across, y + down, wall * 0.5, below=wall * 0.42)
    canvas.rect(x - across + 0.8, y - down + 0.8, x + across - 0.8, y + down - 0.8, picture * 1.2, below=picture * 0.8)
    canvas.ellipse(x + rng.uniform(-2, 2), y + 1, 1.8, 1.4, picture * 0.6, 0.7)


def _cabinet(canvas: Canvas, rng: Generator, x: float, foot: float) -> None:
    across, height = rng.uniform(6, 9), rng.uniform(7, 10)
    wood = muted(rng, rng.uniform(70, 110)) * rgb(1.12, 0.97, 0.82)
    canvas.cloud(x, foot, across * 1.35, 2, wood * 0.2, 0.8)
    canvas.rect(x - across, foot - height, x + across, foot, wood, below=wood * 0.75)
    canvas.rect(x - across - 0.5, foot - height - 0.7, x + across + 0.5, foot - height + 0.5, wood * 1.25)
    canvas.panes((x - across, foot - height + 0.6, x + across, foot - 0.3), 2, 2, wood * 1.14, share=(0.88, 0.84))
    canvas.panes((x - across, foot - height + 0.6, x + across, foot - 0.3), 2, 2, wood * 0.4, share=(0.16, 0.1))


def _floor_lamp(canvas: Canvas, x: float, foot: float, rng: Generator) -> None:
    top = rng.uniform(14, 18)
    canvas.cloud(x, foot, 3.5, 1, rgb(20, 18, 16), 0.7)
    canvas.line((x, top), (x, foot), 0.6, rgb(60, 56, 52))
    canvas.ellipse(x, foot, 2, 0.6, rgb(55, 52, 48))
    canvas.polygon(((x - 1.8, top - 4), (x + 1.8, top - 4), (x + 3.2, top + 1), (x - 3.2, top + 1)), rgb(190, 180, 160))
    canvas.shine(x, top - 1, 22, 20, _LAMP * 0.30)
    canvas.shine(x, top - 1, 5, 5, _LAMP * 0.6)


def street(canvas: Canvas, rng: Generator) -> None:
    """A street: houses with windows, a pavement, a road away from the camera, a street lamp."""
    edge = rng.uniform(27, 30)
    _sky(canvas, rng, edge)
    x = rng.uniform(-6, 0)
    while x < 64:
        width, top = rng.uniform(9, 17), rng.uniform(6, 17)
        _house(canvas, rng, x, top, x + width, edge)
        x += width
    ground, vanishing = muted(rng, rng.uniform(85, 120), 0.05), rng.uniform(22, 42)
    canvas.rect(0, edge, 64, 48, ground * 1.15, below=ground * 1.3)
    canvas.floor(edge, edge - 6, vanishing, rng.uniform(6, 9), ground * 0.8, 0.6)
    canvas.rect(0, edge, 64, edge + 1, ground * 0.5, 0.5, below=ground)
    near, far = rng.uniform(22, 30), rng.uniform(4, 8)
    corners = ((vanishing - far, edge + 1), (vanishing + far, edge + 1), (vanishing + near, 48), (vanishing - near, 48))
    canvas.polygon(corners, ground * 0.62)
    for side in (-1, 1):
        canvas.line((vanishing + side * far, edge + 1), (vanishing + side * near, 48), 0.7, ground * 1.45)
    for top, bottom in ((edge + 2, edge + 3.5), (edge + 5.2, edge + 8), (edge + 11, 47)):
        half, low = 0.3 + (top - edge) * 0.05, 0.3 + (bottom - edge) * 0.05
        x0 = vanishing
        canvas.polygon(((x0 - half, top), (x0 + half, top), (x0 + low, bottom), (x0 - low, bottom)), ground * 1.55)
    _street_lamp(canvas, rng.choice((rng.uniform(3, 7), rng.uniform(57, 61))), edge + 6, rng.uniform(6, 10))


def _house(canvas: Canvas, rng: Generator, left: float, top: float, right: float, foot: float) -> None:
    wall = muted(rng, rng.uniform(75, 140), 0.08)
    canvas.rect(left, top, right, foot, wall * 1.08, below=wall * 0.85)
    canvas.rect(left, top, right, top + 0.9, wall * 0.6)
    canvas.rect(right - 0.5, top, right, foot, wall * 0.5, 0.6)
    columns, rows = int((right - left) / 3.6), int((foot - top - 3) / 4.2)
    shining = (rng.random((rows, columns)) < 0.45).astype(np.float32)
    area = (left + 0.7, top + 1.6, right - 0.9, foot - 1.5)
    canvas.panes(area, columns, rows, wall * 1.35, 0.7, share=(0.68, 0.72))
    canvas.panes(area, columns, rows, wall * 0.42 + rgb(8, 14, 22), share=(0.5, 0.58), shining=(shining, _WINDOW))


def _street_lamp(canvas: Canvas, x: float, foot: float, top: float) -> None:
    inward = 1 if x < 32 else -1
    iron = rgb(52, 54, 56)
    canvas.cloud(x + 1, foot, 3, 0.8, iron * 0.4, 0.7)
    canvas.line((x, top), (x, foot), 0.8, iron)
    canvas.line((x, top + 0.2), (x + inward * 5, top + 0.2), 0.6, iron)
    canvas.ellipse(x + inward * 5, top + 0.9, 1.8, 0.9, rgb(205, 200, 185))
    canvas.shine(x + inward * 5, top + 1, 18, 22, _LAMP * 0.30)
    canvas.shine(x + inward * 5, top + 1, 3.5, 3.5, _LAMP * 0.7)


def yard(canvas: Canvas, rng: Generator) -> None:
    """A back yard: a fence, trees behind it, a lawn with a path, a shed."""
    edge = rng.uniform(28, 32)
    _sky(canvas, rng, edge)
    for _ in range(int(rng.integers(2, 5))):
        _tree(canvas, rng, rng.uniform(0, 64), edge)
    wood, top = muted(rng, rng.uniform(95, 145), 0.05) * rgb(1.08, 0.98, 0.88), edge - rng.uniform(9, 12)
    boards = int(rng.integers(14, 24))
    canvas.rect(0, top, 64, edge, wood * 0.55)
    canvas.panes((0, top - 0.6, 64, edge), boards, 1, wood * 0.95, share=(0.9, 1.0))
    canvas.panes((0, top - 0.6, 64, edge), boards, 1, wood * 1.12, 0.8, share=(0.35, 1.0))
    for y in (top + 1.5, edge - 3):
        canvas.rect(0, y, 64, y + 1, wood * 0.72, below=wood * 0.6)
    lawn = muted(rng, rng.uniform(92, 120), 0.04) * rgb(0.92, 1.04, 0.74)
    canvas.rect(0, edge, 64, 48, lawn * 0.8, below=lawn * 1.15)
    canvas.rect(0, edge, 64, edge + 2, lawn * 0.35, 0.6, below=lawn * 0.8)
    for _ in range(6):
        canvas.cloud(
            rng.uniform(0, 64), rng.uniform(edge + 2, 48), rng.uniform(6, 14), 2, lawn * rng.uniform(0.7, 1.3), 0.5
        )
    if rng.random() < 0.7:
        far, near, stone = rng.uniform(16, 48), rng.uniform(16, 48), muted(rng, 150, 0.05)
        canvas.polygon(((far - 2, edge), (far + 2, edge), (near + 8, 48), (near - 8, 48)), stone, 0.85)
        canvas.panes((0, edge + 0.5, 64, 48), 1, 6, stone * 0.6, 0.22, share=(1.0, 0.1))
    if rng.random() < 0.6:
        _shed(canvas, rng, rng.choice((rng.uniform(3, 10), rng.uniform(54, 61))), edge + 2)


def _tree(canvas: Canvas, rng: Generator, x: float, foot: float) -> None:
    leaves, y = muted(rng, rng.uniform(62, 90), 0.06) * rgb(0.9, 1.05, 0.8), rng.uniform(11, 17)
    canvas.line((x, y), (x, foot), 1.4, rgb(70, 60, 52))
    canvas.ellipse(x, y, rng.uniform(5, 8), rng.uniform(5, 7), leaves)
    canvas.ellipse(x - 3, y + 2, 4.5, 3.6, leaves * 0.85)
    canvas.ellipse(x + 3.2, y + 1.4, 4.2, 3.8, leaves * 0.92)
    canvas.cloud(x - 1.5, y - 2, 5, 4, leaves * 1.5, 0.7)


def _shed(canvas: Canvas, rng: Generator, x: float, foot: float) -> None:
    wood, across, top = muted(rng, rng.uniform(75, 105), 0.08), rng.uniform(8, 10), foot - rng.uniform(13, 16)
    canvas.cloud(x + 1, foot, across * 1.4, 1.6, wood * 0.2, 0.7)
    canvas.rect(x - across, top, x + across, foot, wood * 1.1, below=wood * 0.85)
    canvas.panes((x - across, top, x + across, foot), 1, 9, wood * 0.6, 0.6, share=(1.0, 0.12))
    canvas.polygon(
        ((x - 2, top - 6), (x + 2, top - 6), (x + across + 1.5, top + 0.5), (x - across - 1.5, top + 0.5)), wood * 0.6
    )
    canvas.rect(x - 2.5, foot - 9, x + 2.5, foot, wood * 0.62, below=wood * 0.5)


def warehouse(canvas: Canvas, rng: Generator) -> None:
    """A warehouse: ribbed walls, racks full of boxes, a concrete floor, lamps under the roof."""
    edge = rng.uniform(27, 31)
    wall, floor = muted(rng, rng.uniform(90, 140), 0.07), muted(rng, rng.uniform(100, 140), 0.05)
    canvas.rect(0, 0, 64, edge, wall * 0.8, below=wall * 1.08)
    canvas.panes((0, 0, 64, edge), int(rng.integers(22, 34)), 1, wall * 0.72, 0.45, share=(0.45, 1.0))
    canvas.rect(0, 0, 64, 4, wall * 0.5, 0.8)
    vanishing = rng.uniform(24, 40)
    canvas.rect(0, edge, 64, 48, floor * 0.85, below=floor * 1.12)
    canvas.floor(edge, edge - 7, vanishing, rng.uniform(10, 16), floor * 0.6, 0.7)
    canvas.rect(0, edge, 64, edge + 1.5, floor * 0.4, 0.6, below=floor * 0.8)
    door = rng.uniform(26, 38)
    canvas.rect(door - 6, edge - 12, door + 6, edge, wall * 0.62, below=wall * 0.7)
    canvas.panes((door - 6, edge - 12, door + 6, edge), 1, 7, wall * 0.45, 0.8, share=(1.0, 0.14))
    for left, right in ((rng.uniform(-3, 1), rng.uniform(15, 21)), (rng.uniform(43, 49), rng.uniform(63, 67))):
        _rack(canvas, rng, left, rng.uniform(6, 10), right, edge + 2)
    canvas.cloud(vanishing, 43, 24, 4, floor * 1.6, 0.5)
    for x in np.linspace(rng.uniform(8, 14), rng.uniform(50, 56), int(rng.integers(2, 5))):
        canvas.line((x, 0), (x, 4.5), 0.4, wall * 0.25)
        canvas.polygon(((x - 0.8, 4), (x + 0.8, 4), (x + 2.6, 6.2), (x - 2.6, 6.2)), wall * 0.4)
        canvas.ellipse(x, 6.3, 2, 0.6, rgb(215, 212, 200))
        canvas.shine(x, 7, 15, 24, _LAMP * 0.24)
        canvas.shine(x, 6.4, 3, 2, _LAMP * 0.7)


def _rack(canvas: Canvas, rng: Generator, left: float, top: float, right: float, foot: float) -> None:
    steel, box = muted(rng, 70, 0.12), muted(rng, rng.uniform(105, 140), 0.05) * rgb(1.06, 0.98, 0.87)
    canvas.rect(left, top, right, foot, steel * 0.45, 0.6)
    shelves, boxes = int(rng.integers(3, 5)), int(rng.integers(3, 6))
    height = (foot - top) / shelves
    for i in range(shelves):
        y = top + i * height
        tint = rng.uniform(0.75, 1.1)
        area = (left + 0.5, y + height * rng.uniform(0.2, 0.4), right - 0.5, y + height - 0.5)
        canvas.panes(area, boxes, 1, box * tint, share=(0.9, 1.0))
        canvas.panes(area, boxes, 1, box * tint * 0.7, 0.8, share=(0.16, 1.0))
        canvas.rect(left, y + height - 0.9, right, y + height, steel * 1.3, below=steel * 0.7)
    for x in (left, right - 0.8):
        canvas.rect(x, top - 1.5, x + 0.8, foot, steel * 1.1)


def corridor(canvas: Canvas, rng: Generator) -> None:
    """A corridor straight away from the camera: doors on both sides, lamps in the ceiling."""
    x, half, top, bottom = rng.uniform(26, 38), rng.uniform(9, 12), rng.uniform(12, 15), rng.uniform(30, 33)
    wall, floor = muted(rng, rng.uniform(120, 165), 0.045), muted(rng, rng.uniform(80, 125), 0.06)
    left, right = x - half, x + half
    canvas.rect(0, 0, 64, 48, wall * 1.1)
    canvas.rect(0, bottom, 64, 48, floor * 0.8, below=floor * 1.15)
    canvas.floor(bottom, (top + bottom) / 2, x, rng.uniform(9, 14), floor * 0.6, 0.7)
    canvas.polygon(((0, 0), (left, top), (left, bottom), (0, 48), (-1, 48), (-1, 0)), wall * 0.88)
    canvas.polygon(((64, 0), (65, 0), (65, 48), (64, 48), (right, bottom), (right, top)), wall * 0.98)
    canvas.rect(left, top, right, bottom, wall * 0.8, below=wall * 0.7)
    for side, end in ((0.0, left), (64.0, right)):
        canvas.line((side, 46), (end, bottom - 0.7), 1.1, wall * 0.5, 0.8)
        canvas.line((side, 0), (end, top), 0.5, wall * 0.6, 0.8)
        for near, far in ((0.12, 0.42), (0.58, 0.8)):
            _side_door(canvas, rng, (side, end), (0, top), (48, bottom), near, far, wall)
    door = rng.uniform(-3, 3) + x
    canvas.rect(door - 4, top + 4, door + 4, bottom, wall * 0.45)
    canvas.rect(door - 3.4, top + 4.6, door + 3.4, bottom, muted(rng, 90, 0.1), below=wall * 0.5)
    for near, far in ((0.1, 0.3), (0.5, 0.64), (0.8, 0.9)):
        y0, y1, w0, w1 = top * near, top * far, 9 - 6 * near, 9 - 6 * far
        xs = 32 + (x - 32) * near, 32 + (x - 32) * far
        lamp = ((xs[0] - w0, y0), (xs[0] + w0, y0), (xs[1] + w1, y1), (xs[1] - w1, y1))
        canvas.polygon(lamp, rgb(222, 222, 216))
        canvas.shine(xs[0], (y0 + y1) / 2, w0 * 1.8, 3.5, _LAMP * 0.45)
    canvas.shine(x, 18, 34, 26, _LAMP * 0.18)


def _side_door(
    canvas: Canvas,
    rng: Generator,
    sides: tuple[float, float],
    tops: tuple[float, float],
    bottoms: tuple[float, float],
    near: float,
    far: float,
    wall: Color,
) -> None:
    """Draw a door in a side wall, from `near` to `far` along it: shares of the way from the picture's edge."""
    paint = muted(rng, rng.uniform(70, 110), 0.09)
    corners = []
    for along in (near, far):
        x = sides[0] + (sides[1] - sides[0]) * along
        y0, y1 = (ends[0] + (ends[1] - ends[0]) * along for ends in (tops, bottoms))
        corners.append(((x, y0 + (y1 - y0) * 0.28), (x, y1 - 0.2)))
    (near_top, near_bottom), (far_top, far_bottom) = corners
    points = [near_top, far_top, far_bottom, near_bottom]
    canvas.polygon(points if sides[0] < sides[1] else points[::-1], paint)
    for start, end in ((near_top, far_top), (near_top, near_bottom), (far_top, far_bottom)):
        canvas.line(start, end, 0.6, wall * 0.45)


def harbour(canvas: Canvas, rng: Generator) -> None:
    """A harbour: the sea with hills behind it, cranes and containers, a pier of planks."""
    horizon, pier = rng.uniform(17, 20), rng.uniform(29, 33)
    low = _sky(canvas, rng, horizon)
    for _ in range(3):
        x, across = rng.uniform(0, 64), rng.uniform(14, 28)
        canvas.cloud(x, horizon, across, rng.uniform(3, 6), low * 0.62, 0.9)
    sea = muted(rng, rng.uniform(85, 115), 0.04) * rgb(0.78, 0.98, 1.12)
    canvas.rect(0, horizon, 64, pier, sea * 1.2, below=sea * 0.8)
    for y in np.linspace(horizon + 1, pier - 1, 5):
        for _ in range(2):
            canvas.cloud(rng.uniform(0, 64), y, rng.uniform(6, 16), 0.6, sea * 1.7, 0.6)
    for left in (rng.uniform(-4, 4), rng.uniform(42, 50)):
        _containers(canvas, rng, left, horizon + rng.uniform(4, 7))
    _crane(canvas, rng, rng.uniform(8, 56), horizon + 3)
    planks = muted(rng, rng.uniform(95, 135), 0.05) * rgb(1.06, 0.98, 0.86)
    canvas.rect(0, pier, 64, 48, planks * 0.85, below=planks * 1.15)
    canvas.floor(pier, pier - 8, rng.uniform(20, 44), rng.uniform(5, 8), planks * 0.5, 0.8, planks=True)
    canvas.rect(0, pier - 0.8, 64, pier + 0.6, planks * 0.5, below=planks * 0.7)
    for x in np.linspace(rng.uniform(2, 8), rng.uniform(56, 62), int(rng.integers(3, 6))):
        canvas.cloud(x + 0.6, pier + 2.4, 2.4, 0.7, planks * 0.2, 0.8)
        canvas.rect(x - 0.9, pier - 3, x + 0.9, pier + 2.2, planks * 0.55, below=planks * 0.4)
        canvas.ellipse(x, pier - 3, 1.3, 0.6, planks * 0.75)


def _containers(canvas: Canvas, rng: Generator, left: float, foot: float) -> None:
    for i in range(int(rng.integers(1, 4))):
        paint, x = muted(rng, rng.uniform(75, 125), 0.13), left + rng.uniform(0, 3)
        top = foot - 4.6 * (i + 1)
        canvas.rect(x, top, x + 16, top + 4.6, paint * 1.1, below=paint * 0.85)
        canvas.panes((x, top + 0.5, x + 16, top + 4.1), 10, 1, paint * 0.65, 0.7, share=(0.35, 1.0))
        canvas.rect(x, top + 4.2, x + 16, top + 4.6, paint * 0.4)
    canvas.rect(left - 3, foot, left + 22, foot + 1.4, rgb(72, 70, 68), below=rgb(48, 50, 52))


def _crane(canvas: Canvas, rng: Generator, x: float, foot: float) -> None:
    steel, top, side = muted(rng, 85, 0.12), rng.uniform(8.5, 11), rng.choice((-1, 1))
    canvas.line((x - 2, top), (x - 3, foot), 0.8, steel)
    canvas.line((x + 2, top), (x + 3, foot), 0.8, steel)
    canvas.line((x - 2.6, foot - 4), (x + 2, top), 0.4, steel)
    canvas.line((x - side * 6, top), (x + side * 16, top), 0.9, steel)
    canvas.line((x, top - 3), (x + side * 15, top), 0.35, steel)
    canvas.line((x, top - 3), (x, top), 0.8, steel)
    canvas.line((x + side * 10, top), (x + side * 10, top + 5), 0.3, steel)
    canvas.shine(x, top - 3, 2.5, 2.5, rgb(200, 120, 90))


FAMILIES: dict[str, Callable[[Canvas, Generator], None]] = {
    "room": room,
    "street": street,
    "yard": yard,
    "warehouse": warehouse,
    "corridor": corridor,
    "harbour": harbour,
}
