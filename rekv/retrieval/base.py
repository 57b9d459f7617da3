"""The interface of a retriever."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Retriever(Protocol):
    """Chooses frames, layer by layer, while the question passes through the model."""

    def most(self, candidates: Sequence[int]) -> int:
        """The largest number of frames that `pick` may return for these candidates."""

    def pick(self, layer: int, scores: Tensor, candidates: Sequence[int]) -> Sequence[int]:
        """Choose among `candidates` (frame ids); `scores` (len(candidates),) are the layer's own, fp32.

        Returns frame ids in the order in which the layer shall read them.
        """
