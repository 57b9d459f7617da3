"""What tokens of frames are told of a scene is what happens in it."""

import numpy as np
import pytest
import torch

from rekv.world import Scene
from rekv.world.shapes import COLORS, KINDS
from training.heads import ThingHeads
from training.labels import NOTHING, TOKENS, UNSAID, contents, things

N = 32


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = np.random.default_rng(3)
    return [Scene.draw(rng, N) for _ in range(6)]


def test_things_are_those_that_are_visible(scenes: list[Scene]) -> None:
    labels = things(scenes)
    assert labels.kind.shape == (len(scenes) * N, TOKENS)
    for i, scene in enumerate(scenes):
        for frame in range(N):
            row = i * N + frame
            known = {(e.kind, e.color) for e in scene.visible(frame)}
            there = labels.kind[row] < len(KINDS)
            said = {
                (KINDS[k], COLORS[c]) for k, c in zip(labels.kind[row][there], labels.color[row][there], strict=True)
            }
            assert said <= known
            assert bool(said) == bool(known)
            assert (labels.color[row][~there] == UNSAID).all()


def test_losses_fall_to_nothing_where_all_is_told(scenes: list[Scene]) -> None:
    """Each token's label is put into its vector: the heads can read it off."""
    torch.manual_seed(0)
    labels, heads = things(scenes), ThingHeads(96)
    vectors = torch.zeros(len(labels.kind), TOKENS, 96)
    for i, part in enumerate(labels[:4]):
        vectors.scatter_(2, (part.clamp(min=0) + 16 * i)[..., None], 1.0)
    vectors[..., 80:82] = labels.place
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        loss = heads.loss(vectors, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert losses[-1] < 0.2


def test_contents_are_what_is_visible() -> None:
    scene = Scene.draw(np.random.default_rng(3), 32)
    found = contents(scene)
    for frame in range(32):
        names = {f"{COLORS[color]} {KINDS[kind]}" for kind, color in found[frame] if kind != NOTHING}
        assert names == {event.name for event in scene.visible(frame)}
