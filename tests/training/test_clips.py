"""What the vision tower learns from is what is in the picture."""

import numpy as np
import pytest

from rekv.world import Scene
from rekv.world.shapes import COLORS, HEIGHT, INPUT, KINDS, PALETTE, WIDTH
from rekv.world.splits import HELD_OUT_PAIRS
from training.clips import UNNAMED, draw_pictures, draw_things, spoil
from training.labels import GRID, TOKENS, UNSAID
from training.questions import draw_scene, frames_to_read

N = 200


def test_labels_agree_with_each_other() -> None:
    pictures = draw_pictures(np.random.default_rng(0), N)
    assert pictures.images.shape == (N, INPUT, INPUT, 3)
    things = pictures.things.kind < len(KINDS)
    assert 0.5 < things.any(1).float().mean() <= 1
    for picture, token in things.nonzero().tolist():
        kind, color = int(pictures.things.kind[picture, token]), int(pictures.things.color[picture, token])
        assert pictures.seen[picture, kind] == 1
        named = pictures.seen[picture, len(KINDS) :]
        if color == UNSAID:
            assert (named == UNSAID).all()
        else:
            assert named[color] in (1, UNSAID)  # beside a thing without a name for its colour nothing is sure
        card = KINDS[kind] == "card"
        assert (pictures.things.digit[picture, token] == UNSAID) != card
        assert (pictures.things.size[picture, token] == UNSAID) == card
        x, y = (float(side) + 0.5 for side in pictures.things.place[picture, token])
        row, column = divmod(token, GRID)
        assert abs(y - (row + 0.5) / GRID) < 0.5 / GRID + 0.05
        assert abs(x - (column + 0.5) / GRID) < 0.5 / GRID + 0.05
    assert (pictures.things.color[~things] == UNSAID).all()
    assert pictures.clock.min() >= 0
    assert pictures.clock[:, 0].max() <= 2


def test_things_of_unnamed_colours_show_no_pair_that_is_held_out() -> None:
    rng, odd = np.random.default_rng(1), 0
    for _ in range(300):
        for event in draw_things(rng, wall=True):
            nearest = min(COLORS, key=lambda color: float(np.square(np.subtract(PALETTE[color], event.rgb)).sum()))
            assert (nearest, event.kind) not in HELD_OUT_PAIRS
            odd += event.color == UNNAMED
    assert 100 < odd < 400


def test_a_things_token_lies_where_it_is_drawn() -> None:
    """A picture with a thing differs from the same one without it, most of all around the labelled token."""
    rng = np.random.default_rng(2)
    from dataclasses import replace

    from rekv.world import render_clip

    checked = 0
    for _ in range(12):
        scene = Scene.draw(rng, 4)
        if len(scene.visible(0)) != 1:
            continue
        empty = replace(scene, events=())
        change = np.abs(render_clip(scene)[0].astype(int) - render_clip(empty)[0].astype(int)).sum(-1)
        rows, columns = np.nonzero(change > 60)
        x, y = scene.visible(0)[0].position(0)
        assert abs(columns.mean() / INPUT - x / WIDTH) < 0.06
        assert abs(rows.mean() / INPUT - y / HEIGHT) < 0.08
        checked += 1
    assert checked >= 3


def test_spoilt_pictures_are_the_same_scenes() -> None:
    rng = np.random.default_rng(4)
    clip = rng.integers(60, 200, (3, INPUT, INPUT, 3), dtype=np.uint8)
    differences = [np.abs(spoil(rng, clip).astype(int) - clip).mean() for _ in range(60)]
    assert 0.2 < np.mean(np.array(differences) == 0) < 0.8
    assert max(differences) < 120


def test_half_of_the_scenes_are_of_look_alikes() -> None:
    """Of three colours and three kinds at most, all known pairs."""
    rng = np.random.default_rng(6)
    scenes = [draw_scene(rng, 64) for _ in range(60)]
    few = 0
    for scene in scenes:
        assert scene.n_frames == 64
        assert scene.events
        assert not {(event.color, event.kind) for event in scene.events} & HELD_OUT_PAIRS
        few += max(len({event.color for event in scene.events}), len({event.kind for event in scene.events})) <= 3
    assert 18 <= few <= 42


@pytest.mark.parametrize("size", [2, 4, 8, 16, 20])
def test_a_question_reads_what_shows_its_answer(size: int) -> None:
    from rekv.world import clip_question

    rng = np.random.default_rng(5)
    for _ in range(60):
        question = clip_question(rng, Scene.draw(rng, 16))
        frames = frames_to_read(rng, question, 16, size).tolist()
        assert frames == sorted(set(frames))
        assert len(frames) == min(size, 16)
        if len(question.evidence) <= size:
            assert all(any(start <= frame < stop for frame in frames) for start, stop in question.evidence)


def test_tokens_are_a_grid() -> None:
    assert TOKENS == GRID**2 == (INPUT // 8 // 2) ** 2
