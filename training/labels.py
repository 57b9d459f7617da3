"""What frames and their tokens show: known, because the scenes are drawn."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rekv.world import Scene
from rekv.world.shapes import CARD, COLORS, HEIGHT, KINDS, SIZES, WIDTH

GRID = 4  # tokens of a frame, down and across
TOKENS = GRID * GRID
MOST_THINGS = 4  # that are named of a frame
NOTHING = -1
UNSAID = -100  # a label that does not count
_EDGE = 2.0  # units beyond a token in which a thing's centre still counts as its own

Numbers = NDArray[np.int64]


class Things(NamedTuple):
    """What is in each token of m frames."""

    kind: torch.Tensor  # int64 (m, TOKENS); len(KINDS) where nothing's centre is
    color: torch.Tensor  # (m, TOKENS), UNSAID without a thing, so are the next three, or if it has no name
    size: torch.Tensor  # UNSAID for a card
    digit: torch.Tensor  # UNSAID but for a card
    place: torch.Tensor  # float (m, TOKENS, 2): centre, -0.5..0.5

    def to(self, device: torch.device) -> "Things":
        return Things(*(part.to(device, non_blocking=True) for part in self))


def things(scenes: Sequence[Scene]) -> Things:
    """Label the frames of scenes of the same length, one after the other."""
    n = scenes[0].n_frames
    labels = np.full((len(scenes), n, TOKENS, 4), UNSAID)
    labels[..., 0] = len(KINDS)
    place = np.zeros((len(scenes), n, TOKENS, 2), np.float32)
    for i, scene in enumerate(scenes):
        for frame in range(n):
            for event in scene.visible(frame):
                x, y = event.position(frame)
                tokens = tokens_at(x, y)
                labels[i, frame, tokens] = (
                    KINDS.index(event.kind),
                    COLORS.index(event.color) if event.color in COLORS else UNSAID,
                    UNSAID if event.kind == CARD else SIZES.index(event.size),
                    event.digit if event.kind == CARD else UNSAID,
                )
                place[i, frame, tokens] = x / WIDTH - 0.5, y / HEIGHT - 0.5
    columns = torch.from_numpy(labels.reshape(-1, TOKENS, labels.shape[-1])).unbind(-1)
    kind, color, size, digit = (column.contiguous() for column in columns)
    return Things(kind, color, size, digit, torch.from_numpy(place.reshape(-1, TOKENS, 2)))


def contents(scene: Scene) -> Numbers:
    """Return (kind, colour) of what each frame shows: (n_frames, MOST_THINGS, 2), NOTHING for the rest."""
    found = np.full((scene.n_frames, MOST_THINGS, 2), NOTHING)
    for frame in range(scene.n_frames):
        for i, event in enumerate(scene.visible(frame)[:MOST_THINGS]):
            found[frame, i] = KINDS.index(event.kind), COLORS.index(event.color)
    return found


def tokens_at(x: float, y: float) -> list[int]:
    """Return the token that a centre lies in, and those at whose edge it lies."""
    rows, columns = (
        [i for i in range(GRID) if i * step - _EDGE <= at < (i + 1) * step + _EDGE]
        for at, step in ((y, HEIGHT / GRID), (x, WIDTH / GRID))
    )
    return [row * GRID + column for row in rows for column in columns]
