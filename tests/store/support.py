"""Sessions in a store, of the tiny random model of the core's tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rekv.core import EncodeConfig, Frame
from rekv.engine import Model, Session
from rekv.store.keeper import Keeper
from rekv.store.store import Store
from tests.support import decoder_lm, tiny_model, words

QUESTION = words([5, 17, 40])


def kept(folder: Path, model: Model | None = None, name: str = "cam", **settings: Any) -> Session:
    """A session of the tiny model in a store; `settings` as of `Model.session`."""
    given = {"n_local": 40, "frames_per_call": 4} if not (folder / name).exists() else {}
    return (model or tiny_model()).session(name, store=folder, **given | settings)


def model_on(device: torch.device) -> Model:
    return tiny_model(decoder_lm().to(device))


def keeper_of(session: Session) -> Keeper:
    assert session.keeper is not None
    return session.keeper


def in_memory(frames: Sequence[Frame], model: Model | None = None, **settings: Any) -> Session:
    """The same session without a store, never interrupted."""
    session = Session(model or tiny_model(), EncodeConfig(n_local=40, frames_per_call=4).but(**settings))
    session.append(frames)
    return session


def small_segments(patch: pytest.MonkeyPatch, slots: int = 6) -> None:
    """Segments of a few frames, so that short streams have many."""
    patch.setattr("rekv.store.writer.SEGMENT_SLOTS", (slots, slots))


def answer_of(session: Session, **settings: Any) -> tuple[Any, ...]:
    answer = session.ask(QUESTION, **{"retrieve_size": 3, "max_new_tokens": 5} | settings)
    return answer.token_ids, answer.retrieval.frames, answer.retrieval.scores


def assert_same_answers(one: Session, other: Session) -> None:
    for settings in ({}, {"retrieve_size": 9}, {"start": 2.0, "end": 9.0}, {"recent_frames": 2}):
        (ids, frames, scores), (ids_too, frames_too, scores_too) = (answer_of(s, **settings) for s in (one, other))
        assert (ids, frames) == (ids_too, frames_too)
        torch.testing.assert_close(scores, scores_too, atol=1e-5, rtol=1e-5)


def assert_same_state(one: Session, other: Session) -> None:
    """Frames, blocks and window are equal bit by bit."""
    mine, theirs = one.memory, other.memory
    assert mine.frames == theirs.frames
    assert list(mine.times) == list(theirs.times)
    for i, layer in mine.layers.items():
        twin = theirs.layers[i]
        frames = range(mine.frames)
        assert torch.equal(layer.blocks.read(frames), twin.blocks.read(frames))
        assert torch.equal(layer.index.rows(frames), twin.index.rows(frames))
        assert (layer.window.first, layer.window.capacity) == (twin.window.first, twin.window.capacity)
        used = mine.tokens - layer.window.first
        for x, y in zip(layer.window.slots(0, used), twin.window.slots(0, used), strict=True):
            assert torch.equal(x, y)


def segments(folder: Path, name: str = "cam") -> list[str]:
    return sorted(path.name for path in Store(folder).find(name).glob("segment-*"))
