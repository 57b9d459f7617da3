"""Fixtures of the store's tests."""

import pytest
import torch

from tests.store.faults import FRAMES, true_blocks
from tests.store.support import small_segments


@pytest.fixture(scope="session")
def truth() -> list[torch.Tensor]:
    """Per layer, the blocks of the whole stream."""
    return true_blocks(len(FRAMES))


@pytest.fixture
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of six frames."""
    small_segments(monkeypatch, 6)
