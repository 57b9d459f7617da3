"""Internal retrieval: each layer takes the frames whose representative keys its own question query likes best.

The paper's retriever (section 3.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rekv.retrieval.base import Query, Retriever
from rekv.retrieval.given import Given
from rekv.retrieval.scoring import standard_scores
from rekv.retrieval.top import Top


@dataclass(frozen=True, slots=True)
class Internal:
    """Every layer for itself."""

    top: Top

    def most(self, candidates: Sequence[int]) -> int:
        return self.top.most(candidates)

    def pick(self, layer: int, scores: Tensor, candidates: Sequence[int]) -> list[int]:
        return self.top.pick(scores, candidates)


def internal(query: Query) -> Retriever:
    """With `shared_picks` all layers read the same frames: the best on average, as a pass before this one found."""
    top = Top.of(query)
    if query.config.shared_picks:
        return Given(top.pick(standard_scores(query.scan(query.config.query)), query.candidates))
    return Internal(top)
