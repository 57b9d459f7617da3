"""Internal retrieval: each layer takes the frames whose representative keys its own question query likes best."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_GROUP = 64


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
        chosen = _top(_chunk_means(scores, size), self.retrieve_size // size).sort().values.tolist()
        return [f for c in chosen for f in candidates[c * size : (c + 1) * size]]


def _top(scores: Tensor, k: int) -> Tensor:
    """Where the k largest scores are, in any order.

    On the CPU `topk` takes longer than computing the scores: of a long stream, first the k groups with the largest
    maxima are found, which hold the k largest scores.
    """
    groups = len(scores) // _GROUP
    if scores.device.type != "cpu" or groups < 4 * max(k, 16):
        return scores.topk(k).indices
    whole = groups * _GROUP
    best = scores[:whole].view(groups, _GROUP).amax(1).topk(k).indices
    places = (best[:, None] * _GROUP + torch.arange(_GROUP)).view(-1)
    places = torch.cat((places, torch.arange(whole, len(scores))))
    return places[scores[places].topk(k).indices]


def _chunk_means(scores: Tensor, size: int) -> Tensor:
    if size == 1:
        return scores
    whole = len(scores) // size * size
    means = scores[:whole].view(-1, size).mean(1)
    return torch.cat((means, scores[whole:].mean(0, keepdim=True))) if whole < len(scores) else means
