"""Fusion: what each layer likes and what a dual encoder likes, by the ranks that they give to frames.

Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009): a frame's score is the sum of 1 / (60 + rank) over
the rankings. Ranks need no calibration between scores that have nothing in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rekv.retrieval.base import Query, Retriever
from rekv.retrieval.given import Given
from rekv.retrieval.scoring import standard_scores
from rekv.retrieval.top import Top

_FLATNESS = 60  # the published constant: how little the very first ranks count more than those after them


@dataclass(frozen=True, slots=True)
class Fusion:
    """Every layer fuses its own ranking with the one of the dual encoder."""

    top: Top
    other: Tensor  # (candidates,): reciprocal ranks by the dual encoder

    def most(self, candidates: Sequence[int]) -> int:
        return self.top.most(candidates)

    def pick(self, layer: int, scores: Tensor, candidates: Sequence[int]) -> list[int]:
        return self.top.pick(reciprocal_ranks(scores) + self.other.to(scores.device), candidates)


def fusion(query: Query) -> Retriever:
    retriever = Fusion(Top.of(query), reciprocal_ranks(query.similarity()))
    if query.config.shared_picks:
        return Given(retriever.pick(0, standard_scores(query.scan(query.config.query)), query.candidates))
    return retriever


def reciprocal_ranks(scores: Tensor) -> Tensor:
    """1 / (60 + rank) of each score, the best one's rank being 1."""
    order = scores.argsort(descending=True, stable=True)
    ranks = torch.empty_like(scores)
    ranks[order] = torch.arange(1, len(scores) + 1, dtype=scores.dtype, device=scores.device)
    return 1 / (_FLATNESS + ranks)
