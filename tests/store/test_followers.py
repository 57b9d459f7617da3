"""Readers beside a writer that packs and thins: they see the right frames, whenever they look."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rekv.engine import Session
from rekv.store.files import Files
from tests.store.faults import FRAMES, append_rest, ask, frames_of, open_session
from tests.store.support import assert_same_answers

pytestmark = pytest.mark.usefixtures("_small_segments")

THIN = {"thin_after": 10.0, "thin_keep": 3}
PACK = {"kv": "int8"}
REMOVE = {"max_age": 20.0}


def assert_as_opened_now(reader: Session, path: Path) -> None:
    """It knows the frames that are there, and answers as one that opens the session now."""
    there = tuple(frames_of(path))
    answer = ask(reader)
    assert (answer.retrieval.union, answer.warnings) == (there, ())
    fresh = open_session(path)
    assert_same_answers(reader, fresh)
    for layer, twin in zip(reader.memory.layers.values(), fresh.memory.layers.values(), strict=True):
        assert torch.equal(layer.blocks.read(there), twin.blocks.read(there))
    reader.memory.check_integrity()


@pytest.mark.parametrize("seen", [4, 30])
@pytest.mark.parametrize("storage", [{**THIN, **PACK}, REMOVE], ids=["thin", "remove"])
def test_a_reader_that_was_idle_for_long(storage: dict[str, Any], seen: int, tmp_path: Path) -> None:
    """Of the frames that came meanwhile many have gone again before it sees them."""
    path = tmp_path / "session"
    with open_session(path, **storage) as writer:
        append_rest(writer, seen)
        asked, idle = open_session(path), open_session(path)
        assert ask(asked).frames_seen == len(frames_of(path))
        append_rest(writer, len(FRAMES))
        for reader in (asked, idle):
            assert_as_opened_now(reader, path)
    assert_as_opened_now(asked, path)


class Meanwhile(Files):
    """Lets something happen just before a file is opened, once."""

    def __init__(self) -> None:
        self.happens: list[Callable[[], None]] = []

    def open(self, path: Path, *, writable: bool = False) -> int:
        if self.happens:
            self.happens.pop()()
        return super().open(path, writable=writable)


@pytest.mark.parametrize("storage", [THIN, PACK, REMOVE], ids=["thin", "pack", "remove"])
def test_files_are_replaced_between_a_look_and_a_read(
    storage: dict[str, Any], tmp_path: Path, truth: Sequence[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has looked, picks its frames, and opens a file: just then it is gone, and its slots are others."""
    monkeypatch.setattr("rekv.store.folder.OPEN_SEGMENTS", 1)
    path = tmp_path / "session"
    files = Meanwhile()
    with open_session(path, **storage) as writer:
        append_rest(writer, 40)
        reader = open_session(path, files=files)
        known = reader.memory.frames
        files.happens.append(lambda: append_rest(writer, len(FRAMES)))
        answer = ask(reader)
        assert not files.happens
        left = set(frames_of(path)) & set(range(known))
        assert left <= set(answer.retrieval.union) <= set(range(known))
        for layer, blocks in zip(reader.memory.layers.values(), truth, strict=True):
            read = layer.blocks.read(answer.retrieval.union)
            expected = blocks[list(answer.retrieval.union)]
            tolerance = 0.1 * float(expected.abs().max()) if storage is PACK else 0.0
            torch.testing.assert_close(read, expected, atol=tolerance, rtol=0)
        assert_as_opened_now(reader, path)
