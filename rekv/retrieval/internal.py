"""Internal retrieval: each layer takes the frames whose representative keys its own question query likes best."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Internal:
    """The paper's retriever (section 3.3): top `retrieve_size` frames by score, in time order.

    With `chunk_size` > 1 neighbouring frames are taken together, by the mean of their scores. The last chunk may be
    short; if it is chosen, fewer than `retrieve_size` frames are.
    """

    retrieve_size: int
    chunk_size: int = 1

    def most(self, candidates: Sequence[int]) -> int:
        return min(self.retrieve_size, len(candidates))

    def pick(self, layer: int, scores: Tensor, candidates: Sequence[int]) -> list[int]:
        if len(candidates) <= self.retrieve_size:
            return list(candidates)
        size = self.chunk_size
        chosen = _chunk_means(scores, size).topk(self.retrieve_size // size).indices.sort().values.tolist()
        return [f for c in chosen for f in candidates[c * size : (c + 1) * size]]


def _chunk_means(scores: Tensor, size: int) -> Tensor:
    if size == 1:
        return scores
    whole = len(scores) // size * size
    means = scores[:whole].view(-1, size).mean(1)
    return torch.cat((means, scores[whole:].mean(0, keepdim=True))) if whole < len(scores) else means
